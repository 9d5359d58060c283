"""JSON's values as elements of tensors, and back, as strictly as TensorFlow Serving has it.

A number with a point is no whole number, 1 is no bool, and only a text, or {"b64": "..."}, is a byte string. A whole
number stands for a float only if it is one exactly.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ..errors import BadRequest
from . import numbers
from .numbers import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What TensorFlow calls NumPy's dtypes, where it has another name.
NAMES = {"float32": "float", "float64": "double", "float16": "half", "bytes": "string"}
BYTES_SUFFIX = "_bytes"  # of such a name is what is no text


def dense(value: Any, dtype: str) -> NDArray[Any]:
    """Lists of lists, as deep and as long as their first ones, of values fit for `dtype` (TensorSpec's).

    A value that is no list becomes an array of shape (). Raises BadRequest.
    """
    column = Column(dtype)
    column.add(value)
    array = column.array()
    return array.reshape(array.shape[1:])


class Column:
    """One tensor of many items: values as `dense` takes them, all of one shape."""

    def __init__(self, dtype: str) -> None:
        self._dtype, self._read = dtype, _reader(dtype)
        self._shape: list[int] | None = None
        self._items = 0
        self._flat: list[Any] = []

    def add(self, value: Any) -> None:
        """Raises BadRequest."""
        shape: list[int] = []
        inner = value
        while isinstance(inner, list):
            if len(shape) == numbers.MAX_DIMENSIONS:
                raise BadRequest(f"Lists are nested in more than {numbers.MAX_DIMENSIONS} levels")
            shape.append(len(inner))
            inner = inner[0] if inner else None
        before = len(self._flat)
        _fill(value, 0, shape, self._read, self._flat)
        expected, size = self._shape, len(self._flat) - before
        if expected is None:
            self._shape = shape
        elif prod(expected) != size:
            raise BadRequest(f"Expecting tensor size: {prod(expected)} but got: {size}")
        elif expected != shape:
            raise BadRequest(f"Expecting shape {_shape_text(expected)} but got: {_shape_text(shape)}")
        self._items += 1

    def array(self) -> NDArray[Any]:
        """Of shape (items, ...)."""
        array = np.empty(len(self._flat), "object" if self._dtype == "bytes" else self._dtype)
        array[:] = self._flat
        return array.reshape(self._items, *(self._shape or ()))


def guessed(value: Any) -> NDArray[Any]:
    """The same, of the dtype that its values look like: bool, int64, uint64, float64 or bytes. Raises BadRequest."""
    leaves = list(_leaves(value))
    kinds = set(map(type, leaves))
    if kinds <= {bool} and kinds:
        return dense(value, "bool")
    if kinds == {int}:
        return dense(value, "int64" if max(leaves) < 2**63 else "uint64")
    if kinds <= {int, float}:
        return dense(value, "float64")
    return dense(value, "bytes")


def write(name: str, array: NDArray[Any], as_bytes: bool | None = None) -> bytes:
    """An array, called `name`, in JSON. Byte strings are written as text, or as b64 if they are none, or not meant to be
    any: `as_bytes`, or else if the name says so. Raises BadRequest for what JSON has no form of."""
    if array.dtype.kind not in "OSU":
        try:
            return numbers.write(array)
        except TypeError as error:
            raise BadRequest(f"Failed to write JSON value for tensor type: {array.dtype.name}") from error
    if as_bytes is None:
        as_bytes = name.endswith(BYTES_SUFFIX)
    boxed = np.empty(array.size, object)
    boxed[:] = [_string(element, as_bytes) for element in array.reshape(-1).tolist()]
    return orjson.dumps(boxed.reshape(array.shape).tolist())


def unescaped(text: str) -> bytes:
    """What base64 text stands for: RFC 4648's first alphabet, padded or not, white space ignored. Raises BadRequest."""
    try:
        data = "".join(text.split()).rstrip("=").encode("ascii")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise BadRequest("Unable to base64 decode") from error


def is_b64(value: Any) -> bool:
    """{"b64": "..."} and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def encoded(text: str) -> bytes:
    """Raises BadRequest for half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("JSON Parse error: The surrogate pair in string is invalid.") from error


def type_name(value: Any) -> str:
    """RapidJSON's word for what Python's value was in JSON."""
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    if isinstance(value, str):
        return "String"
    return "Object" if isinstance(value, dict) else "Array" if isinstance(value, list) else "Number"


def _fill(value: Any, level: int, shape: Sequence[int], read: Callable[[Any], Any], flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise BadRequest(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        flat.append(read(value))
        return
    if level >= rank:
        raise BadRequest(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise BadRequest(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for inner in value:
        _fill(inner, level + 1, shape, read, flat)


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _reader(dtype: str) -> Callable[[Any], Any]:
    """What takes a value of JSON, and gives it back as an element of `dtype`, or raises BadRequest."""
    name = NAMES.get(dtype, dtype)

    def other(value: Any) -> BadRequest:
        return BadRequest(f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: {name}")

    if dtype == "bytes":

        def read_bytes(value: Any) -> bytes:
            if isinstance(value, str):
                return encoded(value)
            if is_b64(value):
                return unescaped(value["b64"])
            if isinstance(value, dict):
                raise BadRequest(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
            raise other(value)

        return read_bytes
    if dtype == "bool":

        def read_bool(value: Any) -> bool:
            if isinstance(value, bool):
                return value
            raise other(value)

        return read_bool
    if dtype in numbers.WHOLE:
        whole, most = numbers.WHOLE[dtype], float(np.finfo(dtype).max)

        def read_float(value: Any) -> float:
            if type(value) is float:
                if not isfinite(value) or -most <= value <= most:
                    return value
            elif type(value) is not int:
                raise other(value)
            elif -whole <= value <= whole:
                return value
            raise BadRequest(f"Cannot convert JSON value: {shown(value)} to {name} without loss of precision.")

        return read_float
    if np.dtype(dtype).kind not in "iu":
        raise BadRequest(f"Conversion of JSON to type: {name} is not possible; send it as application/x-npy")
    limits = np.iinfo(dtype)
    least, greatest = int(limits.min), int(limits.max)

    def read_int(value: Any) -> int:
        if type(value) is int and least <= value <= greatest:
            return value
        raise other(value)

    return read_int


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _string(element: Any, as_bytes: bool) -> Any:
    data = element if isinstance(element, bytes) else str(element).encode()
    if not as_bytes:
        try:
            return data.decode()
        except UnicodeDecodeError:  # TensorFlow Serving would send what is no JSON
            pass
    return {"b64": base64.b64encode(data).decode()}
