"""TensorFlow's TensorProto <-> NumPy.

A tensor comes as `tensor_content` (little-endian, row-major), or as a list of values in the field of its kind. A list
may be shorter than its shape: its last value stands for the rest, and an empty one is all zeros. Source: the comments of
tensorflow/core/framework/tensor.proto, and what TensorFlow's own reader does.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadRequest, TooLarge
from .datatypes import MAX_DIMENSIONS
from .protobuf import build, enum, message, message_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tensor import TensorSpec

# TensorFlow's type -> NumPy's, and the field that lists its values. Half-precision numbers are listed by their bits.
KINDS = {
    "DT_FLOAT": ("float32", "float_val"),
    "DT_DOUBLE": ("float64", "double_val"),
    "DT_HALF": ("float16", "half_val"),
    "DT_BFLOAT16": ("bfloat16", "half_val"),
    "DT_INT8": ("int8", "int_val"),
    "DT_INT16": ("int16", "int_val"),
    "DT_INT32": ("int32", "int_val"),
    "DT_INT64": ("int64", "int64_val"),
    "DT_UINT8": ("uint8", "int_val"),
    "DT_UINT16": ("uint16", "int_val"),
    "DT_UINT32": ("uint32", "uint32_val"),
    "DT_UINT64": ("uint64", "uint64_val"),
    "DT_BOOL": ("bool", "bool_val"),
    "DT_COMPLEX64": ("complex64", "scomplex_val"),
    "DT_COMPLEX128": ("complex128", "dcomplex_val"),
    "DT_STRING": ("object", "string_val"),
}
NAMES = {dtype: name for name, (dtype, _) in KINDS.items()} | {"bytes": "DT_STRING"}
LISTED = {"DT_COMPLEX64": "float32", "DT_COMPLEX128": "float64", "DT_HALF": "uint16", "DT_BFLOAT16": "uint16"}
MOST = 2**31 - 1  # bytes; no message can be longer

# A packed list of these is, on the wire, their bytes in a row: so it is written as what it is, not number by number.
PACKED = """
package tensorflow
TensorProto: 5 float_val bytes, 6 double_val bytes, 9 scomplex_val bytes, 11 bool_val bytes, 12 dcomplex_val bytes
"""


@cache
def numbers() -> dict[str, int]:
    """The numbers of TensorFlow's types."""
    return enum("tensorflow.DataType")


def type_name(number: int) -> str:
    """`DT_FLOAT` for 1."""
    return next((name for name, known in numbers().items() if known == number), f"type {number}")


def to_array(proto: Any, alias: str = "", most: int = MOST) -> NDArray[Any]:
    """A TensorProto as an array; byte strings have dtype object. A view of its content where it can be, read-only then.
    bfloat16 becomes float32, without a loss.

    `most`: how many bytes the array may take, whatever its shape promises. Raises BadRequest for what is no such tensor,
    with TensorFlow Serving's text first, and TooLarge.
    """
    try:
        return _to_array(proto, most)
    except BadRequest as error:
        raise BadRequest(f"tensor parsing error: {alias}: {error}") from error


def from_array(array: NDArray[Any], content: bool = False) -> Any:
    """The inverse. `content`: as `tensor_content`, which is shorter and faster for whole numbers; else as a list, which
    is what TensorFlow Serving answers. Raises BadRequest where TensorFlow has no such type.
    """
    strings = array.dtype.kind in "OSU"
    name = "DT_STRING" if strings else NAMES.get(array.dtype.name)
    if name is None:
        raise BadRequest(f"TensorFlow has no type for {array.dtype.name}")
    field = KINDS[name][1]
    proto = message("tensorflow.TensorProto")(dtype=numbers()[name])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if strings:
        proto.string_val.extend(v if isinstance(v, bytes) else str(v).encode() for v in array.reshape(-1).tolist())
        return proto
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    if content:
        proto.tensor_content = flat.tobytes()
    elif field in _packed().DESCRIPTOR.fields_by_name:
        proto.MergeFromString(_packed()(**{field: flat.tobytes()}).SerializeToString())
    else:
        getattr(proto, field).extend(flat.view(LISTED.get(name, flat.dtype)).tolist())
    return proto


def shape_proto(spec: TensorSpec) -> Any:
    """The shape of a model's input or output as a TensorShapeProto: -1 where any size will do."""
    proto = message("tensorflow.TensorShapeProto")(unknown_rank=spec.shape is None)
    for size in spec.shape or ():
        proto.dim.add(size=-1 if size is None else size)
    return proto


@cache
def _packed() -> Any:
    return message_of(build(PACKED), "tensorflow.TensorProto")


def _to_array(proto: Any, most: int) -> NDArray[Any]:
    name = type_name(proto.dtype)
    if name not in KINDS:
        raise BadRequest(f"its type is {name}; expected one of {', '.join(KINDS)}")
    dtype, field = KINDS[name]
    if name == "DT_BFLOAT16":
        dtype = "float32"  # which it becomes; NumPy itself knows no other
    listed = np.dtype(LISTED.get(name, dtype))  # as what its numbers come
    shape = _shape(proto.tensor_shape)
    count = prod(shape)
    content = proto.tensor_content  # a copy: asked for once
    if content and name == "DT_STRING":
        array = _strings(count, content)
    elif content:
        wanted = np.dtype(listed if name in ("DT_HALF", "DT_BFLOAT16") else dtype).newbyteorder("<")
        if len(content) != count * wanted.itemsize:
            raise BadRequest(
                f"its content has {len(content)} bytes, but shape {list(shape)} of {name} takes "
                f"{count * wanted.itemsize}"
            )
        array = np.frombuffer(content, wanted)
        if name == "DT_BOOL" and count and array.view(np.uint8).max() > 1:
            raise BadRequest("a byte of its content is neither 0 nor 1")
    else:
        # Only here may a few bytes ask for many.
        if count * np.dtype(dtype).itemsize > most:
            raise TooLarge(f"a tensor of shape {list(shape)} and type {name} takes more than {most} bytes")
        array = _listed(name, np.dtype(dtype), getattr(proto, field), count, shape)
    if name == "DT_HALF":
        array = array.view(np.float16)
    elif name == "DT_BFLOAT16":
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.reshape(shape)


def _shape(proto: Any) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise BadRequest("its shape is not known")
    if len(proto.dim) > MAX_DIMENSIONS:
        raise BadRequest(f"it has {len(proto.dim)} dimensions; at most {MAX_DIMENSIONS} are accepted")
    shape = tuple(dim.size for dim in proto.dim)
    if any(size < 0 for size in shape):
        raise BadRequest(f"its shape is {list(shape)}; expected sizes from 0 up")
    if prod(max(size, 1) for size in shape) > MOST:  # a size of 0 would hide what the others overflow
        raise BadRequest(f"a shape of {list(shape)} is more than any message can hold")
    return shape


def _listed(name: str, dtype: np.dtype[Any], values: Any, count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The values of a list, the last one repeated; half-precision numbers as bits."""
    if name == "DT_STRING":
        found = np.empty(len(values), object)
        found[:] = list(values)
    elif dtype.kind == "c":
        pairs = np.array(values, LISTED[name])
        if len(pairs) % 2:
            raise BadRequest(f"it lists {len(pairs)} numbers; those of {name} come in pairs")
        found = pairs.view(dtype)
    else:
        # Small whole numbers come in wider ones.
        wide = {"int_val": np.int32, "half_val": np.int32}.get(KINDS[name][1], dtype)
        came = np.array(values, wide)
        dtype = np.dtype(LISTED.get(name, dtype))
        if came.dtype != dtype:
            limits = np.iinfo(dtype)
            if came.size and not limits.min <= int(came.min()) <= int(came.max()) <= limits.max:
                raise BadRequest(f"one of the numbers it lists does not fit {name}")
        found = came.astype(dtype, copy=False)
    if len(found) > count:
        raise BadRequest(f"it lists {len(found)} values, but shape {list(shape)} takes {count}")
    if len(found) == count:
        return found
    last = found[-1] if len(found) else b"" if found.dtype == object else 0
    out = np.empty(count, found.dtype)
    out[: len(found)], out[len(found) :] = found, last
    return out


def _strings(count: int, content: bytes) -> NDArray[Any]:
    """Byte strings as TensorFlow packs them: all their lengths, as varints, then all of them."""
    if count > len(content):
        raise BadRequest(f"its content has {len(content)} bytes, too few for {count} byte strings with their lengths")
    lengths, at = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise BadRequest("its content ends inside of its lengths, or one of them is none")
            byte = content[at]
            at, length, shift = at + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(content) - at:
        raise BadRequest(f"its byte strings have {len(content) - at} bytes, but their lengths add up to {sum(lengths)}")
    found = np.empty(count, object)
    for index, length in enumerate(lengths):
        found[index] = content[at : at + length]
        at += length
    return found
