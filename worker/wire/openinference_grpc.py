"""The Open Inference Protocol over gRPC: the same calls and answers as over HTTP, as messages. Both directions, sans-io.

Tensors stand in `raw_input_contents` (`raw_output_contents`), one entry each, as bytes; or all of them in the `contents`
of their descriptions, by a field for each kind of number. FP16 and BF16 have no such field.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadRequest
from . import datatypes
from .openinference import MAX_CLASSES, InferRequest, InferResponse, RequestedOutput
from .protobuf import message

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
WIDE = {"int_contents": "int32", "uint_contents": "uint32"}


def decode_request(proto: Any) -> InferRequest:
    """What a ModelInferRequest asks of the model that it names. Raises BadRequest."""
    outputs = tuple(_requested(output) for output in proto.outputs)
    if len({output.name for output in outputs}) < len(outputs):
        raise BadRequest("an output is requested twice")
    inputs = _tensors(proto.inputs, proto.raw_input_contents)
    if not inputs:
        raise BadRequest('"inputs" is empty; expected tensors')
    return InferRequest(inputs, outputs, proto.id, _parameters(proto.parameters), binary=True)


def encode_request(request: InferRequest, model: str, version: str = "") -> Any:
    """Every tensor in it as bytes. Raises BadRequest for a dtype without a name."""
    proto = message("inference.ModelInferRequest")(model_name=model, model_version=version, id=request.id)
    _put_parameters(proto.parameters, request.parameters)
    for name, array in request.inputs.items():
        _describe(proto.inputs, name, array)
        proto.raw_input_contents.append(bytes(datatypes.to_bytes(array)))
    for output in request.outputs:
        wanted = proto.outputs.add(name=output.name)
        if output.classes:
            wanted.parameters["classification"].int64_param = output.classes
    return proto


def encode_response(response: InferResponse) -> Any:
    proto = message("inference.ModelInferResponse")(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for name, array in response.outputs.items():
        _describe(proto.outputs, name, array)
        proto.raw_output_contents.append(bytes(datatypes.to_bytes(array)))
    return proto


def decode_response(proto: Any) -> InferResponse:
    """The inverse. Raises BadRequest: the same class, though here it was the server who erred."""
    outputs = _tensors(proto.outputs, proto.raw_output_contents)
    return InferResponse(proto.model_name, proto.model_version, outputs, proto.id)


def _tensors(described: Any, raw: Any) -> dict[str, NDArray[Any]]:
    if raw and len(raw) != len(described):
        raise BadRequest(f"there are {len(described)} tensors, but raw contents of {len(raw)}; expected one of each")
    found: dict[str, NDArray[Any]] = {}
    for index, tensor in enumerate(described):
        name = tensor.name
        if name in found:
            raise BadRequest(f"tensor '{name}' is given twice")
        if "shared_memory_region" in tensor.parameters:
            raise BadRequest(f"tensor '{name}' lies in shared memory; expected it in the request")
        datatype, shape = datatypes.check(name, tensor.datatype, list(tensor.shape))
        if raw:
            if tensor.HasField("contents"):
                raise BadRequest(f"tensor '{name}' has contents beside the raw ones; expected one of both")
            found[name] = datatypes.from_bytes(name, datatype, shape, raw[index])
        else:
            found[name] = _from_contents(name, datatype, shape, tensor.contents)
    return found


def _from_contents(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> NDArray[Any]:
    field = CONTENTS.get(datatype)
    if field is None:
        raise BadRequest(f"tensor '{name}': {datatype} has no contents of its own; send it as raw contents")
    others = [other.name for other, _ in contents.ListFields() if other.name != field]
    if others:
        raise BadRequest(f"tensor '{name}': {datatype} is given as {others[0]}; expected {field}")
    values, count = getattr(contents, field), prod(shape)
    if len(values) != count:
        raise BadRequest(f"tensor '{name}' has {len(values)} values, but shape {list(shape)} takes {count}")
    if datatype == "BYTES":
        strings = np.empty(count, object)
        strings[:] = list(values)
        return strings.reshape(shape)
    dtype = np.dtype(datatypes.NUMPY[datatype])
    array = np.array(values, WIDE.get(field, dtype))
    if array.dtype != dtype:
        limits = np.iinfo(dtype)
        if count and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise BadRequest(f"tensor '{name}': one of its values does not fit {datatype}")
        array = array.astype(dtype)
    return array.reshape(shape)


def _describe(tensors: Any, name: str, array: NDArray[Any]) -> None:
    tensors.add(name=name, datatype=datatypes.datatype_of(array), shape=array.shape)


def _requested(output: Any) -> RequestedOutput:
    parameters = _parameters(output.parameters)
    if "shared_memory_region" in parameters:
        raise BadRequest(f"output '{output.name}' is wanted in shared memory; it can only be answered")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes <= MAX_CLASSES:
        raise BadRequest(f"output '{output.name}': classification is {classes!r:.40}; expected a number of classes")
    return RequestedOutput(output.name, classes, binary=True)


def _parameters(given: Any) -> dict[str, Any]:
    """Those without a value are left out."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], choice) for name, choice in chosen.items() if choice}


def _put_parameters(proto: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param"}.get(type(value), "string_param")
        setattr(proto[name], kind, value)
