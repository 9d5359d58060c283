"""What PredictionService carries, as plain values: calls of a model, examples, and what a model makes of them.

Messages in, values out, and back; a client builds with one half what the worker reads with the other. Source:
tensorflow_serving/apis. Tensors are answered as lists of values, as TensorFlow Serving does: some clients read only those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import BadRequest
from . import tensor_proto
from .protobuf import message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tensor import Signature, TensorSpec

METHOD_NAMES = {kind: f"tensorflow/serving/{kind}" for kind in ("predict", "classify", "regress")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model is meant. Empty: the default one, its default signature; neither version nor label: the latest."""

    model: str = ""
    version: int | None = None
    label: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """`inputs`: by name; byte strings are arrays of objects. `outputs`: names of those that are wanted; none means all."""

    wanted: Wanted
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


# -- which model ----------------------------------------------------------------------------------------------------


def read_wanted(proto: Any) -> Wanted:
    """The `model_spec` of any request. Raises BadRequest if it has none."""
    if not proto.HasField("model_spec"):
        raise BadRequest("Missing ModelSpec")
    spec = proto.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return Wanted(spec.name, version, spec.version_label, spec.signature_name)


def model_spec(wanted: Wanted) -> Any:
    spec = message("tensorflow.serving.ModelSpec")(name=wanted.model, signature_name=wanted.signature)
    if wanted.version is not None:
        spec.version.value = wanted.version
    elif wanted.label:
        spec.version_label = wanted.label
    return spec


# -- Predict --------------------------------------------------------------------------------------------------------


def encode_request(call: Call) -> Any:
    proto = message("tensorflow.serving.PredictRequest")(model_spec=model_spec(call.wanted), output_filter=call.outputs)
    for name, array in call.inputs.items():
        proto.inputs[name].MergeFrom(tensor_proto.from_array(array, content=True))
    return proto


def decode_request(proto: Any, most: int = tensor_proto.MOST) -> Call:
    """`most`: bytes that one tensor may take. Raises BadRequest and TooLarge."""
    inputs = {name: tensor_proto.to_array(tensor, name, most) for name, tensor in proto.inputs.items()}
    return Call(read_wanted(proto), inputs, tuple(proto.output_filter))


def encode_response(wanted: Wanted, outputs: Mapping[str, NDArray[Any]]) -> Any:
    proto = message("tensorflow.serving.PredictResponse")(model_spec=model_spec(wanted))
    for name, array in outputs.items():
        proto.outputs[name].MergeFrom(tensor_proto.from_array(array))
    return proto


def decode_response(proto: Any) -> tuple[Wanted, dict[str, NDArray[Any]]]:
    """Which version answered, and its outputs by name. Raises BadRequest for what is no tensor: the server erred then."""
    return read_wanted(proto), {name: tensor_proto.to_array(tensor, name) for name, tensor in proto.outputs.items()}


# -- Classify and Regress -------------------------------------------------------------------------------------------


def read_examples(proto: Any) -> list[bytes]:
    """The examples of a request's `input`, serialised; a context's features are part of each. Raises BadRequest if none."""
    match proto.input.WhichOneof("kind"):
        case "example_list":
            found = [example.SerializeToString() for example in proto.input.example_list.examples]
        case "example_list_with_context":
            given = proto.input.example_list_with_context
            # Two messages in a row are one that has the fields of both.
            context = given.context.SerializeToString()
            found = [context + example.SerializeToString() for example in given.examples]
        case _:
            found = []
    if not found:
        raise BadRequest("Input is empty.")
    return found


def write_examples(examples: Iterable[Mapping[str, Any]]) -> Any:
    """Features by name, each a value or a list of them, as an `Input`. Texts go as UTF-8."""
    made = message("tensorflow.serving.Input")()
    for features in examples:
        example = made.example_list.examples.add()
        for name, value in features.items():
            values = value if isinstance(value, list | tuple) else [value]
            feature = example.features.feature[name]
            if values and isinstance(values[0], bytes | str):
                feature.bytes_list.value.extend(v if isinstance(v, bytes) else v.encode() for v in values)
            elif values and isinstance(values[0], float):
                feature.float_list.value.extend(values)
            else:
                feature.int64_list.value.extend(values)
    return made


def read_features(example: bytes) -> dict[str, list[Any]]:
    """A serialised example -> its features' values. Raises BadRequest if it is none."""
    found = message("tensorflow.Example").FromString(example).features.feature
    return {
        name: list(getattr(feature, kind).value) if (kind := feature.WhichOneof("kind")) else []
        for name, feature in found.items()
    }


def classifications(labels: Sequence[Sequence[str]] | None, scores: Sequence[Sequence[float]] | None) -> Any:
    """Rows of labels, of scores, or of both -> a ClassificationResult."""
    result = message("tensorflow.serving.ClassificationResult")()
    rows = labels if labels is not None else scores
    for row in range(len(rows or ())):
        classes = result.classifications.add().classes
        for column in range(len((rows or ())[row])):
            one = classes.add()
            if labels is not None:
                one.label = labels[row][column]
            if scores is not None:
                one.score = scores[row][column]
    return result


def read_classifications(result: Any) -> list[list[tuple[str, float]]]:
    """A ClassificationResult -> for every example its labels with their scores."""
    return [[(one.label, one.score) for one in row.classes] for row in result.classifications]


def regressions(values: Iterable[float]) -> Any:
    result = message("tensorflow.serving.RegressionResult")()
    for value in values:
        result.regressions.add(value=value)
    return result


def read_regressions(result: Any) -> list[float]:
    return [one.value for one in result.regressions]


# -- what a model takes and gives -----------------------------------------------------------------------------------


def signature_def(signature: Signature) -> Any:
    """A Signature as a SignatureDef. The names of tensors inside the graph are no longer known: the public ones stand
    there."""
    made = message("tensorflow.SignatureDef")(method_name=METHOD_NAMES[signature.method])
    for spec in signature.inputs:
        made.inputs[spec.name].MergeFrom(_tensor_info(spec))
    for spec in signature.outputs:
        made.outputs[spec.name].MergeFrom(_tensor_info(spec))
    return made


def _tensor_info(spec: TensorSpec) -> Any:
    number = tensor_proto.numbers()[tensor_proto.NAMES.get(spec.dtype, "DT_INVALID")]
    shape = tensor_proto.shape_proto(spec)
    return message("tensorflow.TensorInfo")(name=f"{spec.name}:0", dtype=number, tensor_shape=shape)
