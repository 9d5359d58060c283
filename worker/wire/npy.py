"""NumPy's .npy files as bodies, `application/x-npy`: one array, its dtype and shape before it.

Source: numpy.lib.format, versions 1.0 to 3.0. Nothing in a file is ever unpickled.
"""

from __future__ import annotations

import io
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from ..errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTENT_TYPE = "application/x-npy"
MAX_HEADER = 1024  # NumPy writes 128 bytes, or a little more for many dimensions
MAX_DIMENSIONS = 32
KINDS = "biuf"


def encode(array: NDArray[Any]) -> list[bytes | memoryview]:
    """Head and numbers; the latter as they lie in memory, if they lie there in order. Raises TypeError unless they are
    numbers or bools."""
    if array.dtype.kind not in KINDS:
        raise TypeError(f"no numbers: {array.dtype}")
    contiguous = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    numbers: Any = contiguous.reshape(-1).view(np.uint8)
    return [_written(contiguous.dtype, array.shape), memoryview(numbers)]


def fitted(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """`array` as `dtype`, if that is of the same kind, as NumPy's own float64 is for float32: what else would be asked of a
    file that was saved as it was? Raises BadRequest for whole numbers that do not fit, and leaves other dtypes alone."""
    if dtype == "bytes" or array.dtype == dtype or not np.can_cast(array.dtype, dtype, "same_kind"):
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if array.dtype.kind in "iu" and cast.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise BadRequest(f"a number of the .npy file, which is {array.dtype}, does not fit {dtype}")
    return cast


def decode(body: bytes) -> NDArray[Any]:
    """A view of `body`, read-only, in the byte order of this machine. Raises BadRequest saying what is wrong."""
    shape, in_columns, dtype, at = _read(body[: _head_size(body)])
    expected = prod(shape) * dtype.itemsize
    if len(body) - at != expected:
        raise BadRequest(
            f"the .npy file's head promises {expected} bytes, {dtype} of shape {list(shape)}; {len(body) - at} follow it"
        )
    array = np.frombuffer(body, dtype, offset=at).reshape(shape, order="F" if in_columns else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


# Heads are Python's text, and a model's are the same again and again: most of the time that a small file takes.


@lru_cache(256)
def _written(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    head = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(head, described)  # type: ignore[no-untyped-call,unused-ignore]
    return head.getvalue()


def _head_size(body: bytes) -> int:
    """As far as it is told; more than is read of any, if it is told to be that large."""
    size = 12 + int.from_bytes(body[8:12], "little") if body[6:7] > b"\1" else 10 + int.from_bytes(body[8:10], "little")
    return min(size, 12 + MAX_HEADER + 1)


@lru_cache(256)
def _read(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether column by column, dtype, and where the numbers begin. Raises BadRequest."""
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise BadRequest(f"a .npy file of version {version}: expected 1.0, 2.0 or 3.0")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = read(file, max_header_size=MAX_HEADER)
    except BadRequest:
        raise
    except Exception as error:  # its header is Python's text: whatever that may raise
        raise BadRequest(f"not a .npy file: {' '.join(str(error).split())[:200]}") from error
    if dtype.kind not in KINDS or dtype.hasobject:
        raise BadRequest(f"a .npy file of dtype {dtype}: expected numbers or bools")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise BadRequest(f"a .npy file of shape {str(shape)[:80]}: expected at most {MAX_DIMENSIONS} sizes from 0 up")
    return shape, in_columns, dtype, file.tell()
