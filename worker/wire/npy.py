"""NumPy's .npy files as bodies, `application/x-npy`: one array, its dtype and shape before it.

Source: numpy.lib.format, versions 1.0 to 3.0. Nothing in a file is ever unpickled.
"""

from __future__ import annotations

import io
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
    head = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(contiguous.dtype), "fortran_order": False, "shape": array.shape}
    npy.write_array_header_1_0(head, described)  # type: ignore[no-untyped-call,unused-ignore]
    numbers: Any = contiguous.reshape(-1).view(np.uint8)
    return [head.getvalue(), memoryview(numbers)]


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
    file = io.BytesIO(body)
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
    at, expected = file.tell(), prod(shape) * dtype.itemsize
    if len(body) - at != expected:
        raise BadRequest(
            f"the .npy file's head promises {expected} bytes, {dtype} of shape {list(shape)}; {len(body) - at} follow it"
        )
    array = np.frombuffer(body, dtype, offset=at).reshape(shape, order="F" if in_columns else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
