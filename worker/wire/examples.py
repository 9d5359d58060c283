"""TensorFlow Serving's classify and regress in JSON: examples of named features, and results.

    {"signature_name": "...", "context": {...}, "examples": [{"x": 1.0, "words": ["a", "b"]}, ...]}
    ->  {"results": [[["label", 0.9], ...], ...]}  or  {"results": [0.9, ...]}

A model that was made for it takes each example as the bytes of a tf.Example, which it parses by itself. They are written
here by hand, so that no TensorFlow is needed:

    Example { Features features = 1 }      Features { map<string, Feature> feature = 1 }
    Feature { oneof { BytesList = 1, FloatList = 2, Int64List = 3 } }      each list { repeated value = 1 }

Source: tensorflow/core/example/{example,feature}.proto, and json_tensor.cc for how JSON's values become features.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ..errors import BadRequest
from . import elements, numbers
from .elements import is_b64, type_name
from .numbers import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value = bytes | float | int
Feature = list[Value]  # of one kind
BYTES, FLOAT, INT64 = 1, 2, 3
CLASSIFY = "classify"  # the signature of our export that takes pictures in examples; workers do without it
KINDS = {BYTES: "bytes", FLOAT: "float", INT64: "int64"}


@dataclass(frozen=True)
class Examples:
    """A request. `examples`: features by name, in order; `context`: those that all of them have besides."""

    signature: str
    examples: list[dict[str, Feature]]
    context: dict[str, Feature]

    def serialized(self) -> NDArray[Any]:
        """Array of shape (n,) and dtype object: each example's bytes. Parsers take the context's and its own as one."""
        before = serialized(self.context) if self.context else b""
        out = np.empty(len(self.examples), object)
        out[:] = [before + serialized(example) for example in self.examples]
        return out

    def pictures(self, model: str, *names: str) -> list[bytes]:
        """The encoded picture of each: the feature of one of these names, or else the only one that is one byte string.

        `model`: for the text of the BadRequest that is raised where there is none.
        """
        found: list[bytes] = []
        for index, example in enumerate(self.examples):
            features = self.context | example
            files = {n: f[0] for n, f in features.items() if len(f) == 1 and isinstance(f[0], bytes)}
            picture = next((files[name] for name in names if name in files), None)
            if picture is None and len(files) == 1:
                (picture,) = files.values()
            if not isinstance(picture, bytes):
                raise BadRequest(
                    f'{model} classifies pictures, and example {index} has none: expected {{"image": {{"b64": "..."}}}}'
                )
            found.append(picture)
        return found

    def rows(self, name: str, dtype: str) -> NDArray[Any]:
        """Array of shape (n, values): the numbers of the feature `name`, for models of tensors. Raises BadRequest."""
        rows: list[Feature] = []
        for index, example in enumerate(self.examples):
            feature = (self.context | example).get(name)
            if feature is None:
                raise BadRequest(f"example {index} has no feature '{name}', which is this signature's input")
            rows.append(feature)
        return elements.dense([list(row) for row in rows], dtype)


def decode(body: bytes) -> Examples:
    """Raises BadRequest with TensorFlow Serving's words."""
    document = numbers.parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise BadRequest(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    context = _example(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise BadRequest(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise BadRequest(f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise BadRequest(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    return Examples(name, [_example(example) for example in examples], context)


def encode_classes(labels: NDArray[Any] | None, scores: NDArray[Any] | None) -> bytes:
    """Of shape (n, classes), in that order: labels are byte strings or texts, empty if there are none; scores numbers, 0 if
    there are none. One of them there is."""
    if labels is None:
        assert scores is not None
        labels = np.full(scores.shape, "", object)
    if scores is None:
        scores = np.zeros(labels.shape, np.float32)
    rows = []
    for names, row in zip(labels.tolist(), scores, strict=True):
        texts = numbers.write(row)[1:-1].split(b",") if row.size else []
        pairs = [b"[" + _label(name) + b"," + text + b"]" for name, text in zip(names, texts, strict=True)]
        rows.append(b"[" + b", ".join(pairs) + b"]")
    return b'{"results": [' + b", ".join(rows) + b"]}"


def encode_values(values: NDArray[Any]) -> bytes:
    """Regressions, of shape (n,)."""
    return b'{"results": ' + numbers.write(values) + b"}"


def serialized(example: Mapping[str, Feature]) -> bytes:
    """A tf.Example."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(feature))) for name, feature in example.items()
    )
    return _field(1, entries)


def kind_of(value: Value) -> int:
    return BYTES if isinstance(value, bytes) else FLOAT if isinstance(value, float) else INT64


def _feature(feature: Feature) -> bytes:
    if not feature:
        return b""
    kind = kind_of(feature[0])
    if kind == BYTES:
        inside = b"".join(_field(1, value) for value in feature if isinstance(value, bytes))
    elif kind == FLOAT:
        inside = _field(1, struct.pack(f"<{len(feature)}f", *feature))
    else:
        inside = _field(1, b"".join(_varint(int(value) % 2**64) for value in feature))
    return _field(kind, inside)


def _field(number: int, data: bytes) -> bytes:
    """One of length-delimited type."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _label(name: bytes | str) -> bytes:
    return orjson.dumps(name.decode(errors="replace") if isinstance(name, bytes) else name)


def _example(value: Any) -> dict[str, Feature]:
    if not isinstance(value, dict):
        raise BadRequest(f"Example must be JSON object but got JSON {type_name(value)}")
    return {name: _values(name, content) for name, content in value.items()}


def _values(name: str, content: Any) -> Feature:
    feature: Feature = []
    for value in content if isinstance(content, list) else [content]:
        found = _value(name, value)
        if feature and kind_of(found) != kind_of(feature[0]):
            raise BadRequest(f"Unexpected element type in feature: {name} expecting type: {KINDS[kind_of(feature[0])]}")
        feature.append(found)
    return feature


def _value(name: str, value: Any) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if value >= 2**63:
            raise BadRequest(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return value
    if isinstance(value, float):
        return float(elements.dense(value, "float32"))
    if isinstance(value, str):
        return elements.encoded(value)
    if is_b64(value):
        return elements.unescaped(value["b64"])
    raise BadRequest(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")
