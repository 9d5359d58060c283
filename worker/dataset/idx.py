"""The idx files of MNIST and EMNIST: one array, its type and sizes before it. Sans-io: a file's bytes in, an array out.

    0, 0, type, number of dimensions; each dimension as 4 bytes; the elements: all big-endian, in C order

Source: "The IDX file format" at the end of yann.lecun.com/exdb/mnist. What comes compressed is unpacked by the caller.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 8
GZIP = b"\x1f\x8b"


def decode(data: bytes) -> NDArray[Any]:
    """-> a read-only array, in the byte order of this machine. Raises BadRequest saying what is wrong."""
    if data.startswith(GZIP):
        raise BadRequest("not an idx file: it is compressed with gzip")
    if len(data) < 4 or data[:2] != b"\0\0":
        raise BadRequest(f"not an idx file: it begins with {data[:4].hex(' ') or 'nothing'}, expected 00 00 and a type")
    kind, dimensions = data[2], data[3]
    if kind not in DTYPES:
        known = ", ".join(f"{number:02x}" for number in DTYPES)
        raise BadRequest(f"not an idx file: elements of type {kind:02x}; known are {known}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise BadRequest(f"an idx file of {dimensions} dimensions; expected 1 to {MAX_DIMENSIONS}")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise BadRequest(f"the idx file is cut short: {len(data)} bytes, and its head alone is {start}")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    dtype = np.dtype(DTYPES[kind])
    expected, there = prod(shape) * dtype.itemsize, len(data) - start
    if there != expected:
        wrong = "is cut short" if there < expected else "is too long"
        sizes = "x".join(map(str, shape))
        raise BadRequest(
            f"the idx file {wrong}: its head promises {sizes} of {dtype.name}, {expected} bytes; {there} follow"
        )
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def encode(array: NDArray[Any]) -> bytes:
    """The inverse. Raises ValueError for a dtype or a shape that the format does not have."""
    kinds = [kind for kind, name in DTYPES.items() if np.dtype(name) == array.dtype.newbyteorder(">")]
    if not kinds or not 1 <= array.ndim <= MAX_DIMENSIONS:
        raise ValueError(f"idx has no form for {array.dtype} of {array.ndim} dimensions")
    head = bytes((0, 0, kinds[0], array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(DTYPES[kinds[0]]).tobytes()
