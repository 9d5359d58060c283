"""TensorFlow Serving's predict in JSON, both directions.

    {"signature_name": "...", "instances": [...]}  ->  {"predictions": [...]}     row by row
    {"signature_name": "...", "inputs": ...}       ->  {"outputs": ...}           tensor by tensor

A signature's only tensor needs no name. Byte strings are {"b64": "..."}; NaN, Infinity and -Infinity are numbers. What is
refused is refused with TensorFlow Serving's own words, which people search for.

Source: TensorFlow Serving's REST API page, and its json_tensor.cc for what that page leaves open. Ours beyond it: a model
that takes pictures as pixels is sent their files as b64; numbers for half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import BadRequest
from . import elements, numbers
from .elements import is_b64
from .numbers import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tensor import Signature

SIGNATURE = "signature_name"

Tensors = dict[str, "NDArray[Any]"]


@dataclass(frozen=True)
class Predict:
    """A request. `rows`: its instances were sent, and its answer is predictions.

    `inputs`: by name, of the signature's dtypes; or `images`: picture files instead, one for each item.
    """

    signature: str
    rows: bool
    inputs: Tensors = field(default_factory=dict)
    images: tuple[bytes | memoryview, ...] = ()


def decode_request(body: bytes, signatures: Mapping[str, Signature], default: str, image_input: str = "") -> Predict:
    """A request for a model of these signatures. `image_input`: the default signature's input that is fed with pictures.

    Raises BadRequest. Shapes are not compared with the signature's.
    """
    with numbers.Reader(body) as reader:
        quick = _quick(reader, signatures, default)
    if quick is not None:
        return quick
    try:
        document = numbers.parse(body)
        signature = signature_of(document, signatures, default)
        return _exact(document, signature, image_input if signature.name == default else "")
    except RecursionError as error:
        raise BadRequest("JSON Parse error: Nested too deeply.") from error


def signature_of(document: Mapping[str, Any], signatures: Mapping[str, Signature], default: str) -> Signature:
    """The one that is meant. Raises BadRequest."""
    name = document.get(SIGNATURE, "")
    if not isinstance(name, str):
        raise BadRequest(
            f"JSON Value: {shown(document)} not formatted correctly. '{SIGNATURE}' key must be a string value."
        )
    signature = signatures.get(name or default)
    if signature is None:
        raise BadRequest(f'Serving signature name: "{name or default}" not found in signature def')
    return signature


def encode_response(outputs: Mapping[str, NDArray[Any]], rows: bool) -> bytes:
    """All outputs of a signature. Raises BadRequest where they have no form in JSON.

    In one line, where TensorFlow Serving indents: the same to whoever parses it, and half as long to wait for.
    """
    if not outputs:
        raise BadRequest("Cannot convert empty tensor map to JSON")
    if not rows:
        return b'{"outputs": ' + _columns(outputs) + b"}"
    size = _batch_size(outputs)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return b'{"predictions": ' + elements.write(name, array) + b"}"
    keys = [orjson.dumps(name) + b": " for name in sorted(outputs)]
    columns = [[elements.write(name, outputs[name][row, ...]) for row in range(size)] for name in sorted(outputs)]
    found = [b", ".join(key + column[row] for key, column in zip(keys, columns, strict=True)) for row in range(size)]
    return b'{"predictions": [{' + b"}, {".join(found) + b"}]}" if found else b'{"predictions": []}'


def encode_request(inputs: Mapping[str, NDArray[Any]], signature: str = "") -> bytes:
    """All inputs of a signature, as columns; byte strings as b64. The name of an only one does not matter."""
    named = b'{"inputs": ' + _columns(inputs, as_bytes=True)
    return named + (b', "' + SIGNATURE.encode() + b'": ' + orjson.dumps(signature) if signature else b"") + b"}"


def decode_response(body: bytes) -> Tensors:
    """The outputs by name, or the only one under the empty name, whichever form they come in.

    Numbers become int64, uint64 or float64, as they are written, texts and b64 byte strings. Raises ValueError.
    """
    with numbers.Reader(body) as reader:
        quick = _only_output(reader)
    if quick is not None:
        return {"": quick}
    try:
        document = numbers.parse(body)
        if "outputs" in document:
            value = document["outputs"]
            columns = value if _is_object(value) else {"": value}
        else:
            value = document["predictions"]
            named = value and _is_object(value[0])
            columns = {name: [row[name] for row in value] for name in value[0]} if named else {"": value}
        return {name: elements.guessed(column) for name, column in columns.items()}
    except (BadRequest, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"not TensorFlow Serving's answer: {body[:80]!r}") from error


# -- requests, without Python's numbers ---------------------------------------------------------------------------


def _quick(reader: numbers.Reader, signatures: Mapping[str, Signature], default: str) -> Predict | None:
    """A request that holds nothing but plain numbers; None for any other one, a wrong one included."""
    fields = reader.fields
    if fields is None or ("instances" in fields) == ("inputs" in fields):
        return None
    name = fields.get(SIGNATURE, "")
    signature = signatures.get(name or default) if isinstance(name, str) else None
    if signature is None:
        return None
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    rows = "instances" in fields
    value = fields["instances" if rows else "inputs"]
    members = reader.members(value)
    inputs: Mapping[str, NDArray[Any] | None] | None
    if members is not None and not rows:
        if members.keys() != dtypes.keys():
            return None
        inputs = {name: reader.array(members[name], dtype) for name, dtype in dtypes.items()}
    elif rows and reader.holds_objects(value):
        inputs = _quick_rows(reader, value, dtypes)
    elif len(dtypes) == 1:
        inputs = {name: reader.array(value, dtype) for name, dtype in dtypes.items()}
    else:
        return None
    if inputs is None or not reader.finished:
        return None
    found = {name: array for name, array in inputs.items() if array is not None and (array.ndim or not rows)}
    return Predict(signature.name, rows, found) if len(found) == len(dtypes) else None


def _quick_rows(
    reader: numbers.Reader, value: Any, dtypes: Mapping[str, str]
) -> Mapping[str, NDArray[Any] | None] | None:
    columns: dict[str, list[Any]] = {name: [] for name in dtypes}
    for members in reader.objects(value):
        if members is None or members.keys() != dtypes.keys():
            return None
        for name, column in columns.items():
            column.append(members[name])
    return {name: reader.column(column, dtypes[name]) for name, column in columns.items()}


# -- requests, exactly ----------------------------------------------------------------------------------------------


def _exact(document: Mapping[str, Any], signature: Signature, image_input: str) -> Predict:
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    if not dtypes:
        raise BadRequest(f"Failed to get input map for signature: {signature.name}")
    if dtypes.get(image_input) == "bytes":
        image_input = ""  # it decodes them by itself
    if "instances" in document and "inputs" in document:
        raise BadRequest(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "inputs" in document:
        value = document["inputs"]
        images = _images(value.get(image_input, value) if isinstance(value, dict) else value, image_input)
        return Predict(signature.name, False, {} if images else _from_inputs(value, dtypes), images)
    if "instances" not in document:
        raise BadRequest("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        raise BadRequest(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise BadRequest(f"JSON Value: {shown(document)} No values in 'instances' array")
    images = _images(instances, image_input)
    return Predict(signature.name, True, {} if images else _from_instances(instances, dtypes), images)


def _images(value: Any, image_input: str) -> tuple[bytes, ...]:
    """The picture files, if `value` is nothing else."""
    values = value if isinstance(value, list) else [value]
    found = [v[image_input] if isinstance(v, dict) and v.keys() == {image_input} else v for v in values]
    if not image_input or not all(is_b64(v) for v in found):
        return ()
    files: list[bytes] = []
    for index, v in enumerate(found):
        try:
            files.append(elements.unescaped(v["b64"]))
        except BadRequest as error:
            raise BadRequest(
                f"Failed to process element: {index} of 'instances' list. Error: {_quoted(error)}"
            ) from error
    return tuple(files)


def _from_instances(instances: list[Any], dtypes: Mapping[str, str]) -> Tensors:
    if len(dtypes) > 1 and not isinstance(instances[0], dict):
        raise BadRequest(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_object(instances[0])
    columns = {name: elements.Column(dtype) for name, dtype in dtypes.items()}
    for index, element in enumerate(instances):
        at = f"Failed to process element: {index}"
        if _is_object(element) != named:
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise BadRequest(f"Expecting {expected} but got {got} at item {index} of input list")
        for name, value in element.items() if named else ((next(iter(dtypes)), element),):
            try:
                if name not in columns:
                    raise BadRequest(f"JSON object: does not have named input: {name}")
                columns[name].add(value)
            except BadRequest as error:
                key = f" key: {name}" if named else ""
                raise BadRequest(f"{at}{key} of 'instances' list. Error: {_quoted(error)}") from error
        if named and element.keys() != dtypes.keys():
            wanted = ",".join(sorted(dtypes))
            raise BadRequest(f"{at} of 'instances' list. JSON object: {shown(element)} must only have keys: {wanted}")
    return {name: column.array() for name, column in columns.items()}


def _from_inputs(value: Any, dtypes: Mapping[str, str]) -> Tensors:
    if _is_object(value):
        for name in dtypes:
            if name not in value:
                raise BadRequest(f"Missing named input: {name} in 'inputs' object.")
        return {name: elements.dense(value[name], dtype) for name, dtype in dtypes.items()}
    if len(dtypes) > 1:
        raise BadRequest(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    return {name: elements.dense(value, dtype) for name, dtype in dtypes.items()}


def _is_object(value: Any) -> bool:
    """With members of its own, that is."""
    return isinstance(value, dict) and not is_b64(value)


def _quoted(error: BadRequest) -> str:
    return f"INVALID_ARGUMENT: {error}"  # as a status prints itself


def _only_output(reader: numbers.Reader) -> NDArray[Any] | None:
    if reader.fields is None or reader.fields.keys() not in ({"predictions"}, {"outputs"}):
        return None
    (value,) = reader.fields.values()
    array = reader.array(value)
    return array if reader.finished else None


# -- answers --------------------------------------------------------------------------------------------------------


def _columns(tensors: Mapping[str, NDArray[Any]], as_bytes: bool | None = None) -> bytes:
    """An object of all; of the only one, just its value."""
    if len(tensors) == 1:
        ((name, array),) = tensors.items()
        return elements.write(name, array, as_bytes)
    columns = [orjson.dumps(name) + b": " + elements.write(name, tensors[name], as_bytes) for name in sorted(tensors)]
    return b"{" + b", ".join(columns) + b"}"


def _batch_size(outputs: Mapping[str, NDArray[Any]]) -> int:
    size: int | None = None
    for name, array in outputs.items():
        if not array.ndim:
            raise BadRequest(f"Tensor name: {name} has no shape information ")
        if size is not None and size != len(array):
            raise BadRequest(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)
    return size or 0
