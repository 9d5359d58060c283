"""TensorFlow Serving's PredictionService. Texts and codes of errors are the ones it uses, where it has one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BadRequest
from ...wire import predict as wire
from ...wire.examples import CLASSIFY, Examples
from ...wire.predict import METHOD_NAMES, Wanted
from ...wire.protobuf import message
from ...wire.timing import timing
from ..http.tfserving import FEATURES
from .call import Behaviour, Call, FailedPrecondition, Unimplemented

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...model import Model
    from ...tensor import Signature
    from ..http.message import Served

SERVICE = "tensorflow.serving.PredictionService"
DEFAULT = "serving_default"
METADATA = "signature_def"  # all that there is


def methods(served: Served, most: int) -> dict[str, Behaviour]:
    """`most`: bytes that one tensor may take."""

    def find(wanted: Wanted) -> Model:
        return served.repository.find(wanted.model, wanted.version, wanted.label)

    async def predict(proto: Any, call: Call) -> Any:
        model = find(wire.read_wanted(proto))
        request = wire.decode_request(proto, most)
        signature = _signature(model, request.wanted.signature)
        if signature is None:
            raise FailedPrecondition(f'Serving signature key "{request.wanted.signature}" not found.')
        _check_names(signature, request.inputs, request.outputs)
        pictures = _pictures(model, signature, request.inputs)
        if pictures is not None and any(name != model.scores for name in request.outputs):
            raise BadRequest(f"of pictures only the output {model.scores} is answered")
        if pictures is None:
            answer = await served.engine.infer(model, _typed(signature, request.inputs), signature.name, call.deadline)
            outputs = answer.outputs
        else:
            answer = await served.engine.classify(model, pictures, call.deadline)
            outputs = {model.scores: answer.outputs["scores"]}
        call.timing = timing(answer)
        answered = Wanted(request.wanted.model or model.name, model.version, signature=signature.name)
        return wire.encode_response(answered, {n: outputs[n] for n in request.outputs or outputs})

    async def examples_to(method: str, wanted: Wanted, examples: list[bytes], call: Call) -> tuple[Wanted, Any]:
        """-> which model answered, and a ClassificationResult or RegressionResult."""
        model = find(wanted)
        signature = _signature(model, wanted.signature)
        if signature is None and method == "classify" and wanted.signature == CLASSIFY and model.card is not None:
            signature = model.loaded.signatures[model.loaded.default]  # the engine chosen here does not parse examples
        if signature is None:
            raise BadRequest(f"No signature was found with the name: {wanted.signature}")
        if method == "classify" and signature.method != method and _sees_pictures(model, signature):
            answer = await served.engine.classify(model, [_picture_in(model, one) for one in examples], call.deadline)
            labels = [model.card.labels] * len(examples) if model.card else None
            result = wire.classifications(labels, answer.outputs["scores"].tolist())
        else:
            _check_examples(method, signature)
            answer = await served.engine.infer(model, _fed(signature, examples), signature.name, call.deadline)
            result = (_classifications if method == "classify" else _regressions)(answer.outputs, len(examples))
        call.timing = timing(answer)
        return Wanted(wanted.model or model.name, model.version, signature=signature.name), result

    async def classify(proto: Any, call: Call) -> Any:
        wanted, result = await examples_to("classify", wire.read_wanted(proto), wire.read_examples(proto), call)
        return message("tensorflow.serving.ClassificationResponse")(model_spec=wire.model_spec(wanted), result=result)

    async def regress(proto: Any, call: Call) -> Any:
        wanted, result = await examples_to("regress", wire.read_wanted(proto), wire.read_examples(proto), call)
        return message("tensorflow.serving.RegressionResponse")(model_spec=wire.model_spec(wanted), result=result)

    async def multi_inference(proto: Any, call: Call) -> Any:
        kinds = {name: kind for kind, name in METHOD_NAMES.items() if kind != "predict"}
        _check_tasks(proto.tasks, kinds)
        examples = wire.read_examples(proto)
        asked = [(kinds[task.method_name], wire.read_wanted(task)) for task in proto.tasks]
        answers = await asyncio.gather(*(examples_to(kind, wanted, examples, call) for kind, wanted in asked))
        response = message("tensorflow.serving.MultiInferenceResponse")()
        for (kind, _), (answered, result) in zip(asked, answers, strict=True):
            field = "classification_result" if kind == "classify" else "regression_result"
            response.results.add(model_spec=wire.model_spec(answered), **{field: result})
        return response

    async def get_model_metadata(proto: Any, call: Call) -> Any:
        wanted = wire.read_wanted(proto)
        if not proto.metadata_field:
            raise BadRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in proto.metadata_field:
            if field != METADATA:
                raise BadRequest(f"Metadata field {field} is not supported")
        model = find(wanted)
        found = message("tensorflow.serving.SignatureDefMap")()
        for name, signature in model.loaded.signatures.items():
            found.signature_def[name].MergeFrom(wire.signature_def(signature))
        answered = wire.model_spec(Wanted(wanted.model or model.name, model.version))
        response = message("tensorflow.serving.GetModelMetadataResponse")(model_spec=answered)
        response.metadata[METADATA].Pack(found)
        return response

    return {
        "Predict": predict,
        "Classify": classify,
        "Regress": regress,
        "MultiInference": multi_inference,
        "GetModelMetadata": get_model_metadata,
    }


# -- what is asked --------------------------------------------------------------------------------------------------


def _check_names(signature: Signature, inputs: Mapping[str, Any], outputs: tuple[str, ...]) -> None:
    sent, known = set(inputs), {spec.name for spec in signature.inputs}
    if len(sent) != len(known):
        raise BadRequest(
            f"input size does not match signature: {len(sent)}!={len(known)} len({_set(sent)}) != len({_set(known)}). "
            f"Sent extra: {_set(sent - known)}. Missing but required: {_set(known - sent)}."
        )
    if missing := sorted(known - sent):
        raise BadRequest(
            f"input tensor alias not found in signature: {missing[0]}. Inputs expected to be in the set {_set(known)}."
        )
    given = {spec.name for spec in signature.outputs}
    for index, name in enumerate(outputs):
        if name not in given:
            raise BadRequest(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {_set(given)}."
            )
        if name in outputs[:index]:
            raise BadRequest(f"duplicate output tensor alias: {name}")


def _set(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _signature(model: Model, name: str) -> Signature | None:
    """Clients say `serving_default`, whatever a model calls its own."""
    loaded = model.loaded
    found = loaded.signatures.get(name or loaded.default)
    return loaded.signatures[loaded.default] if found is None and name == DEFAULT else found


def _sees_pictures(model: Model, signature: Signature) -> bool:
    return model.card is not None and signature is model.loaded.signatures[model.loaded.default]


def _pictures(model: Model, signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> list[bytes] | None:
    """Encoded pictures where the model has an input of pixels; None: its tensors are what they should be, or wrong."""
    if not _sees_pictures(model, signature) or signature.inputs[0].dtype == "bytes":
        return None
    array = inputs[model.image_input]
    return array.reshape(-1).tolist() if array.dtype == object else None


def _typed(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """bfloat16 came as float32; a model that has such numbers gets them as they were."""
    short = {spec.name for spec in signature.inputs if spec.dtype == "bfloat16"}
    return {
        name: array.astype("bfloat16") if name in short and array.dtype == np.float32 else array
        for name, array in inputs.items()
    }


def _fed(signature: Signature, examples: list[bytes]) -> dict[str, NDArray[Any]]:
    """Serialised, for a model that parses them; of any other one, the feature that is called as its input is."""
    (spec,) = signature.inputs
    if spec.dtype == "bytes":
        return {spec.name: np.array(examples, object)}
    return {spec.name: Examples("", [wire.read_features(one) for one in examples], {}).rows(spec.name, spec.dtype)}


def _picture_in(model: Model, example: bytes) -> bytes:
    """An example's picture: the feature that is called as the model's input is, or as usual, or the only one of bytes."""
    features = {name: values[0] for name, values in wire.read_features(example).items() if len(values) == 1}
    found = {name: value for name, value in features.items() if isinstance(value, bytes)}
    named = next((found[name] for name in (model.image_input, *FEATURES) if name in found), None)
    picture = named if named is not None else next(iter(found.values())) if len(found) == 1 else None
    if picture is None:
        raise BadRequest(
            f"{model.name} classifies pictures, and an example has none: expected a feature "
            f"{FEATURES[0]!r} with an encoded one"
        )
    return picture


def _check_examples(method: str, signature: Signature) -> None:
    """Only signatures of the method's own kind take examples."""
    word = "classification" if method == "classify" else "regression"
    if signature.method != method:
        was = METHOD_NAMES[signature.method]
        raise BadRequest(f"Expected {word} signature method_name to be {METHOD_NAMES[method]}. Was: {was}")
    if len(signature.inputs) != 1:
        raise BadRequest("Expected one input Tensor.")
    outputs = {spec.name for spec in signature.outputs}
    if method == "regress" and "outputs" not in outputs:
        raise FailedPrecondition(
            f'Expected regression signature outputs to contain "outputs". Signature has: {_set(outputs)}'
        )
    if method == "classify" and not outputs & {"classes", "scores"}:
        raise FailedPrecondition(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature has: {_set(outputs)}"
        )


def _check_tasks(tasks: Any, kinds: Mapping[str, str]) -> None:
    names: set[str] = set()
    for task in tasks:
        if not task.model_spec.name:
            raise BadRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise BadRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        signature = task.model_spec.signature_name or DEFAULT
        if signature in names:
            raise BadRequest(f"Duplicate evaluation of signature: {signature}")
        names.add(signature)
        if task.method_name not in kinds:
            raise Unimplemented(f"Unsupported signature method_name: {task.method_name}")


# -- what is answered -----------------------------------------------------------------------------------------------


def _classifications(outputs: Mapping[str, NDArray[Any]], examples: int) -> Any:
    rows: list[Any] = [None, None]
    for place, name in enumerate(("classes", "scores")):
        if name in outputs:
            array = outputs[name]
            if array.ndim != 2:
                raise BadRequest(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
            if len(array) != examples:
                raise BadRequest(f"Expected {name} output batch size of {examples}. Got: {len(array)}")
            rows[place] = array.tolist()
    labels, scores = rows
    if labels is not None and scores is not None and len(labels[0]) != len(scores[0]):
        raise BadRequest(
            f"Tensors class and score should match in dim_size(1). Got {len(labels[0])} vs. {len(scores[0])}"
        )
    if labels is not None:
        labels = [[v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in row] for row in labels]
    return wire.classifications(labels, scores)


def _regressions(outputs: Mapping[str, NDArray[Any]], examples: int) -> Any:
    array = outputs["outputs"]
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise BadRequest(f"Expected Tensor shape: [batch_size 1] or [batch_size] but got {list(array.shape)}")
    if len(array) != examples:
        raise BadRequest(f"Expected output batch size to be {examples}. Got: {len(array)}")
    return wire.regressions(array.reshape(-1).tolist())
