"""The Open Inference Protocol's datatypes: arrays as bytes, and as JSON's lists. Both of its transports speak them.

Bytes are little-endian, row-major and without gaps; an element of BYTES is its length in four bytes, then itself.
Source: the protocol's "Tensor Data Types", and Triton's binary tensor data extension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ..errors import BadRequest
from . import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The protocol's name -> NumPy's. BF16 stands aside: NumPy knows no such number.
NUMPY = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip
NAMES = {ours: name for name, ours in NUMPY.items()} | {"bytes": "BYTES", "bfloat16": "BF16"}
WITHOUT_JSON = ("FP16", "BF16")
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 2**40  # more than any body can hold; below what NumPy counts to


def name_of(dtype: str) -> str:
    """The protocol's name for NumPy's, or for TensorSpec's `bytes`; one that it does not have is said in upper case."""
    return NAMES.get(dtype, dtype.upper())


def check(tensor: str, datatype: Any, shape: Any) -> tuple[str, tuple[int, ...]]:
    """What a message says of `tensor`, if it is a datatype and a shape. Raises BadRequest if not."""
    if not isinstance(datatype, str) or not (datatype in NUMPY or datatype == "BF16"):
        known = ", ".join((*NUMPY, "BF16"))
        raise BadRequest(f"tensor '{tensor}': the datatype is {datatype!r:.40}; expected one of {known}")
    sizes_are_numbers = isinstance(shape, list | tuple) and all(type(size) is int for size in shape)
    if not sizes_are_numbers or any(size < 0 for size in shape):
        raise BadRequest(f"tensor '{tensor}': the shape is {shape!r:.80}; expected a list of whole numbers from 0 up")
    if len(shape) > MAX_DIMENSIONS:
        raise BadRequest(f"tensor '{tensor}' has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are accepted")
    # A size of 0 would hide what the others overflow.
    if prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise BadRequest(f"tensor '{tensor}': the shape is more than any request can hold")
    return datatype, tuple(shape)


def from_bytes(tensor: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> NDArray[Any]:
    """`raw` as an array of `shape`; a view where it can be one, read-only then. BF16 becomes float32, without a loss.

    `datatype` and `shape` have been checked. Raises BadRequest where the bytes do not fit them.
    """
    count = prod(shape)
    if datatype == "BYTES":
        return _byte_strings(tensor, count, raw).reshape(shape)
    dtype = _bits(datatype).newbyteorder("<")
    if len(raw) != count * dtype.itemsize:
        raise BadRequest(
            f"tensor '{tensor}' has {len(raw)} bytes, but {datatype} of shape {list(shape)} takes {count * dtype.itemsize}"
        )
    if datatype == "BF16":
        return (np.frombuffer(raw, dtype).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    array = np.frombuffer(raw, dtype).reshape(shape)
    if datatype == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise BadRequest(f"tensor '{tensor}': a byte of BOOL is neither 0 nor 1")
    return array if array.flags.aligned else array.copy()


def to_bytes(array: NDArray[Any]) -> bytes | memoryview:
    """The inverse; a view where it can be one. Texts go as UTF-8. Raises BadRequest if it has no datatype for them."""
    datatype = datatype_of(array)
    if datatype == "BYTES":
        pieces: list[bytes] = []
        for element in array.reshape(-1).tolist():
            piece = _encoded(element)
            pieces += [struct.pack("<I", len(piece)), piece]
        return b"".join(pieces)
    if datatype not in NUMPY and datatype != "BF16":
        raise BadRequest(f"this protocol has no datatype for {array.dtype.name}")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def size_of(datatype: str) -> int:
    """Bytes of one number."""
    return _bits(datatype).itemsize


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name; strings of NumPy's own are BYTES as well."""
    return _named(array.dtype)


def from_list(tensor: str, datatype: str, shape: Sequence[int], data: Any) -> NDArray[Any]:
    """JSON's `data`, nested as `shape` is or flat, as an array. Raises BadRequest where it is something else.

    Instead of lists it may be an array of the right dtype already.
    """
    if datatype in WITHOUT_JSON:
        raise BadRequest(f"tensor '{tensor}': {datatype} has no form in JSON; send it as binary data")
    if isinstance(data, np.ndarray):
        found = data
    elif not isinstance(data, list):
        raise BadRequest(f"tensor '{tensor}': \"data\" is {type(data).__name__}; expected an array")
    else:
        try:
            found = np.array(data, dtype=object if datatype == "BYTES" else None)
        except (ValueError, OverflowError) as error:  # ragged, or too deep
            raise BadRequest(f"tensor '{tensor}': \"data\" is no regular array of {datatype}: {error}") from error
    if not found.size and not prod(shape):
        return np.empty(shape, NUMPY[datatype])
    if found.size != prod(shape) or (found.ndim != 1 and found.shape != tuple(shape)):
        counted = f"{found.size} elements" if found.ndim == 1 else f"shape {list(found.shape)}"
        raise BadRequest(f"tensor '{tensor}': \"data\" has {counted}, but the shape is {list(shape)}")
    return (found if found is data else _typed(tensor, datatype, found, data)).reshape(shape)


def to_json(tensor: str, array: NDArray[Any]) -> bytes:
    """The text of `data`, flat. NaN, Infinity and -Infinity are written as such, which JSON itself does not know.

    Raises BadRequest for what has no form in JSON: FP16, BF16, and bytes that are no UTF-8.
    """
    datatype = datatype_of(array)
    if datatype == "BYTES":
        try:
            return orjson.dumps([_encoded(element).decode() for element in array.reshape(-1).tolist()])
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"tensor '{tensor}' holds bytes that are no UTF-8 text; ask for it as binary data"
            ) from error
    if datatype not in NUMPY or datatype in WITHOUT_JSON:
        raise BadRequest(f"tensor '{tensor}': {datatype} has no form in JSON; ask for it as binary data")
    return numbers.write(array.reshape(-1))


@lru_cache(64)  # NumPy puts a dtype's name together each time it is asked
def _named(dtype: np.dtype[Any]) -> str:
    return "BYTES" if dtype.kind in "OSU" else name_of(dtype.name)


@cache
def _bits(datatype: str) -> np.dtype[Any]:
    return np.dtype("uint16" if datatype == "BF16" else NUMPY[datatype])


def _typed(tensor: str, datatype: str, found: NDArray[Any], data: list[Any]) -> NDArray[Any]:
    """What NumPy made of JSON's values, as what was promised, if it is that without a loss of more than precision."""
    wanted = np.dtype(NUMPY[datatype])
    if datatype == "UINT64" and found.dtype.kind == "f":
        found = _large(found, data)
    kind = found.dtype.kind
    if datatype == "BYTES":
        texts = found.reshape(-1).tolist()
        if all(isinstance(text, str) for text in texts):
            out = np.empty(len(texts), object)
            try:
                out[:] = [text.encode() for text in texts]
            except UnicodeEncodeError as error:  # half of a surrogate pair
                raise BadRequest(f"tensor '{tensor}': a text of \"data\" is no Unicode") from error
            return out
    elif datatype == "BOOL":
        if kind == "b":
            return found
    elif kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if limits.min <= int(found.min()) and int(found.max()) <= limits.max:
            return found.astype(wanted)
        raise BadRequest(f"tensor '{tensor}': a number of \"data\" does not fit {datatype}")
    elif kind in "iuf" and wanted.kind == "f":
        with np.errstate(over="raise"):
            try:
                return found.astype(wanted)
            except FloatingPointError as error:
                raise BadRequest(f"tensor '{tensor}': a number of \"data\" does not fit {datatype}") from error
    raise BadRequest(f"tensor '{tensor}': \"data\" holds something else than {datatype}")


def _large(found: NDArray[Any], data: list[Any]) -> NDArray[Any]:
    """NumPy takes numbers for floating ones where only some of them need the 64th bit."""
    exact = np.array(data, object).reshape(-1)
    if all(type(number) is int and 0 <= number < 2**64 for number in exact.tolist()):
        return exact.astype(np.uint64).reshape(found.shape)
    return found


def _byte_strings(tensor: str, count: int, raw: bytes | memoryview) -> NDArray[Any]:
    if count * 4 > len(raw):  # before memory is taken for them
        raise BadRequest(f"tensor '{tensor}' has {len(raw)} bytes, too few for {count} BYTES with their lengths")
    found, at = np.empty(count, object), 0
    for index in range(count):
        start = at + 4
        if start > len(raw):
            raise BadRequest(f"tensor '{tensor}' ends inside of BYTES number {index} of {count}")
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw):
            raise BadRequest(f"tensor '{tensor}' ends inside of BYTES number {index} of {count}")
        found[index] = bytes(raw[start:at])
    if at != len(raw):
        raise BadRequest(f"tensor '{tensor}' has {len(raw) - at} bytes more than its {count} BYTES")
    return found


def _encoded(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
