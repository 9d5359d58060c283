"""JSON's numbers, straight into arrays and back: what makes or breaks a protocol that sends pictures as text.

There are two readers. `Reader` never makes Python objects of numbers, and gives up (None) at whatever is not plain: NaN,
numbers of more than 64 bits, ragged lists, anything but numbers. `parse` reads all of JSON as RapidJSON does, whose texts
TensorFlow Serving shows to its clients, and is some ten times slower. Who asks the first one first, and the second one
where it gave up, is quick with what is common and exact with what is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from math import inf, isinf, prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson
import simdjson

from ..errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DIMENSIONS = 32
MAX_VALUES = 2**20  # that are made Python's objects: of a hundred bytes and more
BRACKET, BLOCK_BYTES = ord("["), 2**20
LONG_BYTES = 100  # lists of so many are looked at one by one
# How far whole numbers have a float of their own, and a little less: what RapidJSON's users call lossless.
WHOLE = {"float16": 2**11 - 1, "float32": 2**24 - 1, "float64": 2**53 - 1}
# Parsers keep their memory, which costs more to be had again than a document to be read. Large ones give it back.
_idle: list[simdjson.Parser] = []
KEPT_PARSERS, KEPT_BYTES = 4, 2**22
# NumPy's dtypes -> simdjson's, in the order they are tried: almost all whole numbers fit the signed ones.
_KINDS = {"": "iud", "uint64": "iu", **dict.fromkeys(WHOLE, "d")}
_KINDS |= dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"), "i")
_BUFFERS = {"d": np.float64, "i": np.int64, "u": np.uint64}
_NUMERALS = b"0123456789+-.eE \t\r\n"

# json's words -> RapidJSON's
_WORDS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Invalid control character at": "Invalid encoding in string.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_BRACKET = re.compile(r"[][{}]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')


class Reader:
    """One document, whose arrays are read into memory.

    `fields`: what its object holds; None if it is no object, or no JSON as the standard has it, or names something twice.
    Arrays and objects among the values are for `array` and `members` only, inside of a `with` block. A reader is for one
    thread.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._lists = _brackets(body)
        self._parser = _idle.pop() if _idle else simdjson.Parser()
        document = self._parsed()
        self.fields = self.members(document) if isinstance(document, simdjson.Object) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fields = None
        if len(self._body) <= KEPT_BYTES and len(_idle) < KEPT_PARSERS:
            _idle.append(self._parser)

    def _parsed(self) -> Any:
        try:
            return self._parser.parse(self._body)
        except ValueError:
            return None
        except RuntimeError:  # nested too deeply; or something is still held of what the parser read before
            self._parser = simdjson.Parser()
        try:
            return self._parser.parse(self._body)
        except (ValueError, RuntimeError):
            return None

    @property
    def finished(self) -> bool:
        """Whether every list of the document was part of an array that was read.

        One that was not hides inside of another, where a number was expected: simdjson makes rows of any depth flat.
        """
        return not self._lists

    def members(self, value: Any) -> dict[str, Any] | None:
        """Of an object; None if it is none, or names something twice, or with a zero byte."""
        if not isinstance(value, simdjson.Object):
            return None
        names = set(value)
        if len(names) < len(value) or any("\0" in name for name in names):  # which simdjson cannot be asked for
            return None
        return {name: value[name] for name in names}  # items() would make Python's objects of everything

    def holds_objects(self, value: Any) -> bool:
        """Whether it is a list whose first element is an object."""
        return isinstance(value, simdjson.Array) and len(value) > 0 and isinstance(value[0], simdjson.Object)

    def objects(self, value: Any) -> Iterator[dict[str, Any] | None]:
        """The members of each object of a list; None for what is none."""
        self._lists -= 1
        return map(self.members, value)

    def column(self, values: Sequence[Any], dtype: str) -> NDArray[Any] | None:
        """Numbers, or lists of them of one shape, as one array with a further dimension before all others; else None."""
        kinds, types = _KINDS.get(dtype, ""), set(map(type, values))
        if types <= {int, float}:
            kind = "d" if float in types or kinds == "d" else "u" if dtype == "uint64" else "i"
            try:
                return _narrowed(np.array(values, _BUFFERS[kind]), dtype) if kind in kinds else None
            except OverflowError:
                return None
        arrays = [self.array(value, dtype) for value in values]
        found = [array for array in arrays if array is not None and array.shape == getattr(arrays[0], "shape", None)]
        return np.stack(found) if len(found) == len(values) else None

    def array(self, value: Any, dtype: str = "") -> NDArray[Any] | None:
        """A list, or lists of lists, of numbers -> an array of their shape; a number -> one of shape (). No `dtype`: int64,
        uint64 or float64, the first that will do.

        None if it is no such thing, or holds nothing, or a number that `dtype` may not have.
        """
        kinds = _KINDS.get(dtype)
        if kinds is None:
            return None
        if type(value) in (int, float):
            column = self.column([value], dtype)
            return None if column is None else column.reshape(())
        shape = _shape(value)
        # As the first ones are, all can only be if there are so many numbers, each with something between it and the next.
        if not shape or 2 * prod(shape) > len(self._body) or not self._is_regular(value, shape):
            return None
        flat = next((flat for kind in kinds if (flat := _flat(value, kind)) is not None), None)
        if flat is None or flat.size != prod(shape):
            return None
        narrow = _narrowed(flat, dtype)
        return None if narrow is None else narrow.reshape(shape)

    def _is_regular(self, value: Any, shape: tuple[int, ...]) -> bool:
        lists = sum(prod(shape[:depth]) for depth in range(len(shape)))
        whole, self._lists = lists == self._lists, self._lists - lists
        if self._lists < 0:
            return False
        if lists * LONG_BYTES < len(self._body) or not whole:
            return _walked(value, shape)
        # A picture is a hundred thousand little lists. All brackets of the document are its own, so that the document
        # without its numerals shows from the first bracket on what it is made of.
        skeleton = self._body.translate(None, _NUMERALS)
        expected = b"[" + b"," * (shape[-1] - 1) + b"]"
        for size in reversed(shape[:-1]):
            expected = b"[" + ((expected + b",") * size)[:-1] + b"]"
        return skeleton.startswith(expected, skeleton.index(b"["))


def parse(body: bytes) -> dict[str, Any]:
    """The object at the beginning of `body`, as Python has it; NaN, Infinity and -Infinity are numbers.

    What follows it is ignored. Whole numbers of more than 64 bits become floats, as in RapidJSON. Raises BadRequest.
    """
    if not body:
        raise BadRequest("JSON Parse error: The document is empty")
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadRequest(
            f"JSON Parse error: more than {MAX_VALUES} values, and they are no regular arrays of plain numbers: is it cut "
            "off, or ragged, or are there NaNs? Send fewer at once, or an array as application/x-npy"
        )
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _broken("Invalid encoding in string.", error.start) from error
    start = len(text) - len(text.lstrip(" \t\r\n"))
    if start == len(text):
        raise _broken("The document is empty.", len(body))
    try:
        found, _ = _decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        words = _WORDS.get(error.msg) or _missing_comma(text[: error.pos])
        raise _broken(words, len(text[: error.pos].encode())) from error
    except _TooBig as error:
        raise _broken("Number too big to be stored in double.", body.find(str(error).encode())) from error
    except RecursionError as error:
        raise BadRequest("JSON Parse error: Nested too deeply.") from error
    if not isinstance(found, dict):
        raise BadRequest(f"JSON Value: {shown(found)} Is not object")
    return found


def shown(value: Any, most: int = 256) -> str:
    """A value in an error's text, as RapidJSON prints it; a long one is cut, and never printed whole before."""
    text = ""
    for piece in _printer.iterencode(value):
        text += piece
        if len(text) > most:
            return text[:most] + "..."
    return text


def write(array: NDArray[Any]) -> bytes:
    """An array of numbers or bools as JSON: lists of lists. Floats take as few digits as tell them from their neighbours
    of the same dtype, and never look like whole numbers; NaN, Infinity and -Infinity are written as such.

    Raises TypeError for what is neither.
    """
    if not array.ndim:
        return write(array.reshape(1))[1:-1]
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return text
    odd = array[~np.isfinite(array)].tolist()  # row by row, as they stand in the text
    pieces = text.split(b"null")
    words = [b"NaN" if number != number else b"Infinity" if number > 0 else b"-Infinity" for number in odd] + [b""]
    return b"".join(piece + word for piece, word in zip(pieces, words, strict=True))


class _TooBig(Exception):
    """A float that is written with more than a float can hold."""


def _float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise _TooBig(text)
    return number


def _int(text: str) -> int | float:
    if len(text) > 20:
        return _float(text)
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        # RapidJSON takes the first one, others the last: nobody can mean both.
        raise BadRequest(f"JSON object: the key {shown(name, 64)} is there twice")
    return found


_CONSTANTS = {"NaN": float("nan"), "Infinity": inf, "-Infinity": -inf}
_decoder = json.JSONDecoder(
    parse_float=_float, parse_int=_int, parse_constant=_CONSTANTS.__getitem__, object_pairs_hook=_object
)
_printer = json.JSONEncoder(indent=4, ensure_ascii=False)


def _broken(words: str, offset: int) -> BadRequest:
    return BadRequest(f"JSON Parse error: {words} at offset: {offset}")


def _missing_comma(before: str) -> str:
    """json has one message for lists and objects; which of them is open here?"""
    closed = 0
    for bracket in reversed(_BRACKET.findall(_STRING.sub("", before))):
        closed += 1 if bracket in "]}" else -1
        if closed < 0 and bracket == "{":
            return "Missing a comma or } after an object member."
        if closed < 0:
            break
    return "Missing a comma or ] after an array element."


def _shape(value: Any) -> tuple[int, ...] | None:
    """As the first elements have it; None for what holds none, or is none of simdjson's lists."""
    shape: list[int] = []
    while isinstance(value, simdjson.Array):
        size = len(value)
        if not size or len(shape) == MAX_DIMENSIONS:
            return None
        shape.append(size)
        value = value[0]
    return tuple(shape) or None


def _walked(value: Any, shape: tuple[int, ...]) -> bool:
    inner = shape[1:]
    return len(value) == shape[0] and (
        not inner or all(isinstance(row, simdjson.Array) and _walked(row, inner) for row in value)
    )


def _flat(value: Any, kind: Any) -> NDArray[Any] | None:
    try:
        return np.frombuffer(value.as_buffer(of_type=kind), _BUFFERS[kind])
    except (TypeError, ValueError):  # something else than numbers; a number beyond 64 bits or with a fraction
        return None


def _brackets(body: bytes) -> int:
    """How many lists begin in it. NumPy looks at many bytes at a time, `bytes.count` at one."""
    whole = np.frombuffer(body, np.uint8)
    blocks = (whole[at : at + BLOCK_BYTES] for at in range(0, len(body), BLOCK_BYTES))
    return sum(int(np.count_nonzero(block == BRACKET)) for block in blocks)


def _narrowed(wide: NDArray[Any], dtype: str) -> NDArray[Any] | None:
    """`wide` as `dtype`, if one is wanted; None if a number might have lost more than a float loses anyway."""
    if not dtype:
        return wide
    wanted = np.dtype(dtype)
    if wanted.kind == "f":
        # A larger number is lossless if it was written with a point, which nobody can tell any more.
        return wide.astype(wanted) if max(wide.max(), -wide.min()) <= WHOLE[dtype] else None
    limits = np.iinfo(wanted)
    fits = limits.min <= int(wide.min()) and int(wide.max()) <= limits.max
    return wide.astype(wanted) if fits else None
