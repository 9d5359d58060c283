"""The Open Inference Protocol v2 over HTTP: what a call of a model and its answer are made of. Both directions, sans-io.

A message is JSON; tensors stand in it, or, as Triton's binary tensor data extension has it, their bytes follow it in
order. The field `Inference-Header-Content-Length` then says where the JSON ends; 0 in it: there is none, and the body is
the only tensor. Sources: the protocol's "Inference REST", and Triton's extensions binary_data and classification.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import BadRequest
from . import datatypes, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tensor import Signature

HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
MAX_CLASSES = 1_000_000
Pieces = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """`classes`: not the numbers are wanted, but so many of the best, as texts; 0: the numbers. `binary`: as bytes."""

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`inputs`: by name; BYTES are arrays of objects, BF16 is float32. `outputs`: none means all of them, `binary` or not.

    `parameters`: texts, numbers and booleans, whose meaning the server knows or ignores.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferResponse:
    """`outputs`: by name, in order, as the inputs of a request are."""

    model: str
    version: str
    outputs: dict[str, NDArray[Any]]
    id: str = ""


def header_length(text: str | None, size: int) -> int | None:
    """What the field says of a body of `size` bytes; None: no such field, all of it is JSON. Raises BadRequest."""
    if text is None:
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16 and int(digits) <= size):
        raise BadRequest(f"{HEADER} is {text!r:.40}; expected how many of the body's {size} bytes are JSON")
    return int(digits)


# -- requests -------------------------------------------------------------------------------------------------------


def decode_request(body: bytes, length: int | None) -> InferRequest:
    """`length`: of the JSON that `body` begins with, as `header_length` gives it. Raises BadRequest."""
    message, rest = _split(body, length)
    parameters = _parameters(message, "the request")
    binary = _flag(parameters, "binary_data_output", False)
    wanted = message.get("outputs") or []
    if not isinstance(wanted, list):
        raise BadRequest(f'"outputs" is {type(wanted).__name__}; expected an array of objects')
    outputs = tuple(_requested(output, binary) for output in wanted)
    if len({output.name for output in outputs}) < len(outputs):
        raise BadRequest("an output is requested twice")
    id = message.get("id", "")
    if not isinstance(id, str):
        raise BadRequest(f'"id" is {type(id).__name__}; expected a text')
    return InferRequest(_tensors(message, "inputs", rest), outputs, id, parameters, binary)


def encode_request(request: InferRequest) -> tuple[Pieces, int]:
    """The body, every tensor in it as bytes, and the length of its JSON. Raises BadRequest for a dtype without a name."""
    message: dict[str, Any] = {"id": request.id} if request.id else {}
    inputs, pieces = [], Pieces()
    for name, array in request.inputs.items():
        inputs.append(_described(name, array, pieces))
    parameters = {"binary_data_output": True} if request.binary else {}
    if given := parameters | dict(request.parameters):
        message["parameters"] = given
    message["inputs"] = inputs
    if request.outputs:
        message["outputs"] = [
            {
                "name": output.name,
                "parameters": {"binary_data": output.binary}
                | ({"classification": output.classes} if output.classes else {}),
            }
            for output in request.outputs
        ]
    text = _aligned(orjson.dumps(message))
    return [text, *pieces], len(text)


def decode_raw(body: bytes, signature: Signature) -> InferRequest:
    """A body that is nothing but the signature's only tensor, its size solved for the one dimension that is open.

    Of several that are open, the first is how many items there are: one. A BYTES tensor is one element, the whole body.
    """
    if len(signature.inputs) != 1:
        raise BadRequest(f"{HEADER} is 0, but the model has {len(signature.inputs)} inputs; that form is for one input")
    spec = signature.inputs[0]
    datatype = datatypes.name_of(spec.dtype)
    if datatype == "BYTES":
        raw = len(body).to_bytes(4, "little") + body
        array = datatypes.from_bytes(spec.name, datatype, (1,) if spec.shape is None else (1,) * len(spec.shape), raw)
    else:
        array = datatypes.from_bytes(spec.name, datatype, raw_shape(len(body), signature), body)
    return InferRequest({spec.name: array}, binary=True)


def raw_shape(size: int, signature: Signature) -> tuple[int, ...]:
    """The shape of the signature's only input, of numbers, that `size` bytes would have. Raises BadRequest if none."""
    spec = signature.inputs[0]
    datatype, _ = datatypes.check(spec.name, datatypes.name_of(spec.dtype), [])
    known = list(spec.shape or ())
    if known.count(None) > 1 and signature.batch == 0:
        known[0] = 1
    one = datatypes.size_of(datatype)
    for number in known:
        one *= number or 1
    if spec.shape is None or not size or known.count(None) > 1 or size % one or (None not in known and size != one):
        shown = "any shape" if spec.shape is None else f"shape {[-1 if n is None else n for n in spec.shape]}"
        raise BadRequest(f"{HEADER} is 0, but the body's {size} bytes do not make {datatype} of {shown}")
    return tuple(size // one if number is None else number for number in known)


# -- answers --------------------------------------------------------------------------------------------------------


def encode_response(response: InferResponse, binary: Collection[str] = ()) -> tuple[Pieces, int | None]:
    """The body, and the length of its JSON where bytes follow it. `binary`: names of the outputs that come as bytes.

    Raises BadRequest for what cannot be said in the form that was asked for.
    """
    outputs, pieces = [], Pieces()
    for name, array in response.outputs.items():
        if name in binary:
            outputs.append(_described(name, array, pieces))
        else:
            data = orjson.Fragment(datatypes.to_json(name, array))
            outputs.append({"name": name, "datatype": datatypes.datatype_of(array), "shape": array.shape, "data": data})
    message: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        message["id"] = response.id
    text = orjson.dumps(message | {"outputs": outputs})
    if not binary:
        return [text], None
    text = _aligned(text)
    return [text, *pieces], len(text)


def decode_response(body: bytes, length: int | None) -> InferResponse:
    """The inverse. Raises BadRequest: the same class, though here it was the server who erred."""
    message, rest = _split(body, length)
    model, version, id = (message.get(key) or "" for key in ("model_name", "model_version", "id"))
    return InferResponse(str(model), str(version), _tensors(message, "outputs", rest), str(id))


# -- what both are made of ------------------------------------------------------------------------------------------


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object, as Python has it. Raises BadRequest if `text` is none."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return numbers.parse(text)  # it may hold NaN; if not, this tells what is wrong, and where
    if not isinstance(found, dict):
        raise BadRequest(f"the message is a JSON {type(found).__name__}; expected an object")
    return found


def _split(body: bytes, length: int | None) -> tuple[dict[str, Any], memoryview]:
    if length is not None:
        return read_json(body[:length]), memoryview(body)[length:]
    # Messages that are all JSON are mostly numbers, which need not become Python's.
    return _read_arrays(body) or read_json(body), memoryview(b"")


def _read_arrays(body: bytes) -> dict[str, Any] | None:
    """As `read_json`, but `data` are arrays of their datatypes. None where something is not as usual, right or wrong."""
    with numbers.Reader(body) as reader:
        message = reader.fields
        if message is None:
            return None
        for key in ("inputs", "outputs"):
            if key not in message:
                continue
            if not reader.holds_objects(message[key]):
                return None
            message[key] = found = list(reader.objects(message[key]))
            if not all(tensor is not None and _read_tensor(reader, tensor) for tensor in found):
                return None
        return message if _read_parameters(reader, message) and reader.finished else None


def _read_parameters(reader: numbers.Reader, message: dict[str, Any]) -> bool:
    if "parameters" in message:
        message["parameters"] = reader.members(message["parameters"])
        return message["parameters"] is not None
    return True


def _read_tensor(reader: numbers.Reader, tensor: dict[str, Any]) -> bool:
    if not _read_parameters(reader, tensor):
        return False
    if "shape" in tensor:
        shape = reader.array(tensor["shape"], "int64")
        if shape is None or shape.ndim != 1:
            return False
        tensor["shape"] = shape.tolist()
    if "data" in tensor:
        datatype = tensor.get("datatype")
        if datatype in datatypes.WITHOUT_JSON or datatype not in datatypes.NUMPY:
            return False
        data = reader.array(tensor["data"], datatypes.NUMPY[datatype])
        if data is None or not data.ndim:
            return False
        tensor["data"] = data
    return True


def _tensors(message: dict[str, Any], key: str, rest: memoryview) -> dict[str, NDArray[Any]]:
    given = message.get(key)
    if not isinstance(given, list) or not given:
        raise BadRequest(f'"{key}" is missing or empty; expected an array of tensors')
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for tensor in given:
        if not isinstance(tensor, dict) or not isinstance(name := tensor.get("name"), str):
            raise BadRequest(f'an element of "{key}" is no object with a "name"')
        if name in found:
            raise BadRequest(f"tensor '{name}' is given twice")
        datatype, shape = datatypes.check(name, tensor.get("datatype"), tensor.get("shape"))
        parameters = _parameters(tensor, f"tensor '{name}'")
        size, data = parameters.get("binary_data_size"), tensor.get("data")
        if "shared_memory_region" in parameters:
            raise BadRequest(f"tensor '{name}' lies in shared memory; expected it in the request")
        if size is None and data is None and len(given) == 1 and rest:
            size = len(rest)  # it can only be that
        if (size is None) == (data is None):
            raise BadRequest(f"tensor '{name}': expected either \"data\" or binary_data_size, and not both")
        if size is None:
            found[name] = datatypes.from_list(name, datatype, shape, data)
            continue
        if type(size) is not int or size < 0:
            raise BadRequest(f"tensor '{name}': binary_data_size is {size!r:.40}; expected a number of bytes")
        if size > len(rest) - at:
            raise BadRequest(f"tensor '{name}': its {size} bytes are cut short: {len(rest) - at} are left of the body")
        found[name] = datatypes.from_bytes(name, datatype, shape, rest[at : at + size])
        at += size
    if at != len(rest):
        raise BadRequest(f"{len(rest) - at} bytes of the body belong to no tensor")
    return found


def _aligned(text: bytes) -> bytes:
    """With spaces at its end: what is read where it lies need not be copied first."""
    return text + b" " * (-len(text) % 8)


def _described(name: str, array: NDArray[Any], pieces: Pieces) -> dict[str, Any]:
    """A tensor's place in the JSON; its bytes go to `pieces`."""
    raw = datatypes.to_bytes(array)
    pieces.append(raw)
    datatype, size = datatypes.datatype_of(array), {"binary_data_size": len(raw)}
    return {"name": name, "datatype": datatype, "shape": array.shape, "parameters": size}


def _requested(output: Any, binary: bool) -> RequestedOutput:
    if not isinstance(output, dict) or not isinstance(name := output.get("name"), str):
        raise BadRequest('an element of "outputs" is no object with a "name"')
    parameters = _parameters(output, f"output '{name}'")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes <= MAX_CLASSES:
        raise BadRequest(f"output '{name}': classification is {classes!r:.40}; expected a number of classes")
    if "shared_memory_region" in parameters:
        raise BadRequest(f"output '{name}' is wanted in shared memory; it can only be answered")
    return RequestedOutput(name, classes, _flag(parameters, "binary_data", binary))


def _parameters(message: dict[str, Any], whose: str) -> dict[str, Any]:
    parameters = message.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest(f'"parameters" of {whose} is {type(parameters).__name__}; expected an object')
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is {value!r:.40}; expected true or false")
    return value
