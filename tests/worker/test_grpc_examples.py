"""TensorFlow Serving's Classify, Regress, MultiInference and ModelService, called with its own stubs."""

# ruff: noqa: E402  the libraries may be missing, and then the whole file is skipped
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from fairway.worker.config import WorkerSettings

from .colours import plain
from .grpc_calls import asked, named, numbers, refused
from .grpc_door import GrpcDoor, open_door, write_twice

StatusCode = grpc.StatusCode
RED = plain("#c02020")


@pytest.fixture
async def door() -> AsyncIterator[GrpcDoor]:
    async with open_door() as opened:
        yield opened


@pytest.fixture
def stub(door: GrpcDoor) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(door.channel)


@pytest.fixture
def models(door: GrpcDoor) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(door.channel)


# -- Classify, Regress, MultiInference --------------------------------------------------------------------------------


def examples(request: Any, *rows: dict[str, Any], **spec: Any) -> Any:
    if hasattr(request, "model_spec"):
        named(request, **spec)
    for row in rows:
        example = request.input.example_list.examples.add()
        for name, value in row.items():
            feature = example.features.feature[name]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return request


def classes(result: Any) -> list[list[tuple[str, float]]]:
    return [[(one.label, round(one.score, 4)) for one in row.classes] for row in result.classifications]


async def test_classify(stub: Any) -> None:
    request = examples(classification_pb2.ClassificationRequest(), {"x": 0.25}, {"x": 1.0}, signature="kinds")
    response = await stub.Classify(request)
    assert classes(response.result) == [[("small", 0.75), ("large", 0.25)], [("small", 0), ("large", 1)]]
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (2, "kinds")
    named(request, signature="only_scores")
    assert classes((await stub.Classify(request)).result) == [[("", 0.25)], [("", 1)]]


async def test_a_context_belongs_to_every_example(stub: Any) -> None:
    request = named(classification_pb2.ClassificationRequest(), signature="only_scores")
    given = request.input.example_list_with_context
    given.context.features.feature["x"].float_list.value.append(0.5)
    given.examples.add()
    given.examples.add().features.feature["other"].int64_list.value.append(1)
    assert classes((await stub.Classify(request)).result) == [[("", 0.5)], [("", 0.5)]]


@pytest.mark.parametrize(
    "names",
    [{"image/encoded": RED, "image/format": b"png"}, {"image": RED, "caption": b"c"}, {"whatever": RED, "n": 1}],
)
async def test_pictures_among_an_examples_features_are_classified(stub: Any, names: dict[str, Any]) -> None:
    response = await stub.Classify(examples(classification_pb2.ClassificationRequest(), names, model="colours"))
    ((best, *_),) = [sorted(row, key=lambda pair: -pair[1]) for row in classes(response.result)]
    assert best[0] == "red"
    assert len(response.result.classifications[0].classes) == 3


async def test_regress(stub: Any) -> None:
    request = examples(regression_pb2.RegressionRequest(), {"x": 0.25}, {"x": 1.0}, signature="value")
    response = await stub.Regress(request)
    assert [one.value for one in response.result.regressions] == [0.5, 2]
    assert response.model_spec.signature_name == "value"


@pytest.mark.parametrize(
    ("method", "signature", "code", "text"),
    [
        ("Classify", "none", StatusCode.INVALID_ARGUMENT, "No signature was found with the name: none"),
        (
            "Classify", "value", StatusCode.INVALID_ARGUMENT,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/regress",
        ),
        (
            "Regress", "", StatusCode.INVALID_ARGUMENT,
            "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict",
        ),
        (
            "Classify", "flat", StatusCode.INVALID_ARGUMENT,
            "Expected Tensor shape: [batch_size num_classes] but got [1]",
        ),
        ("Regress", "odd", StatusCode.FAILED_PRECONDITION, None),
    ],
)  # fmt: skip
async def test_wrong_signatures_are_told_of(
    stub: Any, method: str, signature: str, code: Any, text: str | None
) -> None:
    kind = classification_pb2.ClassificationRequest if method == "Classify" else regression_pb2.RegressionRequest
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(examples(kind(), {"x": 1.0}, signature=signature))
    assert caught.value.code() == code
    assert text is None or caught.value.details() == text


async def test_no_examples_and_no_picture(stub: Any) -> None:
    empty = examples(classification_pb2.ClassificationRequest(), signature="kinds")
    await refused(stub.Classify(empty), StatusCode.INVALID_ARGUMENT, "Input is empty.")
    dull = examples(classification_pb2.ClassificationRequest(), {"x": 1.0}, model="colours")
    with pytest.raises(grpc.aio.AioRpcError, match="colours classifies pictures, and an example has none"):
        await stub.Classify(dull)


def tasks(*wanted: tuple[str, str, str]) -> Any:
    request = examples(inference_pb2.MultiInferenceRequest(), {"x": 0.25})
    for model, signature, method in wanted:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


async def test_several_signatures_at_once(stub: Any) -> None:
    response = await stub.MultiInference(tasks(("half", "kinds", "classify"), ("half", "value", "regress")))
    first, second = response.results
    assert classes(first.classification_result) == [[("small", 0.75), ("large", 0.25)]]
    assert [one.value for one in second.regression_result.regressions] == [0.5]
    assert [one.model_spec.signature_name for one in response.results] == ["kinds", "value"]


@pytest.mark.parametrize(
    ("wanted", "code", "text"),
    [
        (
            [("half", "kinds", "classify"), ("half", "kinds", "classify")],
            StatusCode.INVALID_ARGUMENT, "Duplicate evaluation of signature: kinds",
        ),
        (
            [("half", "kinds", "classify"), ("colours", "", "classify")],
            StatusCode.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        ([("", "", "classify")], StatusCode.INVALID_ARGUMENT, "Found ModelSpec with an empty model name."),
        (
            [("half", "", "predict")],
            StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: tensorflow/serving/predict",
        ),
    ],
)  # fmt: skip
async def test_tasks_that_do_not_go_together(stub: Any, wanted: Any, code: Any, text: str) -> None:
    await refused(stub.MultiInference(tasks(*wanted)), code, text)


# -- models -----------------------------------------------------------------------------------------------------------


async def test_metadata(stub: Any) -> None:
    request = named(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
    response = await stub.GetModelMetadata(request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("half", 2)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert tf.TensorShape(signature.inputs["x"].tensor_shape).as_list() == [None, 2]
    assert found.signature_def["kinds"].method_name == "tensorflow/serving/classify"


async def test_metadata_that_there_is_not(stub: Any) -> None:
    wanted = get_model_metadata_pb2.GetModelMetadataRequest
    await refused(
        stub.GetModelMetadata(named(wanted())),
        StatusCode.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    await refused(
        stub.GetModelMetadata(named(wanted(metadata_field=["graph"]))),
        StatusCode.INVALID_ARGUMENT,
        "Metadata field graph is not supported",
    )


async def test_status(models: Any) -> None:
    request = named(get_model_status_pb2.GetModelStatusRequest())
    found = (await models.GetModelStatus(request)).model_version_status
    assert {(one.version, one.State.Name(one.state), one.status.error_code) for one in found} == {
        (1, "AVAILABLE", 0), (2, "AVAILABLE", 0)
    }  # fmt: skip
    named(request, version=1)
    assert [one.version for one in (await models.GetModelStatus(request)).model_version_status] == [1]
    named(request, version=7)
    await refused(models.GetModelStatus(request), StatusCode.NOT_FOUND, "Could not find version 7 of model half")
    await refused(
        models.GetModelStatus(named(get_model_status_pb2.GetModelStatusRequest(), model="third")),
        StatusCode.NOT_FOUND,
        "Could not find any versions of model third",
    )


async def test_a_configuration_that_is_none(models: Any) -> None:
    await refused(
        models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest()),
        StatusCode.INVALID_ARGUMENT,
        "expected a model_config_list",
    )


async def test_a_new_set_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write_twice(tmp_path)
    async with open_door(settings=WorkerSettings(model=path, registry="none", poll_seconds=0.05)) as door:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(door.channel)
        models = model_service_pb2_grpc.ModelServiceStub(door.channel)
        request = model_management_pb2.ReloadConfigRequest()
        for name in ("first", "second"):
            request.config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
        request.config.model_config_list.config[1].version_labels["stable"] = 1
        response = await models.HandleReloadConfigRequest(request)
        assert response.status.error_code == 0
        assert numbers(await stub.Predict(asked(model="first"))) == {"y": [[2, 4]]}
        assert numbers(await stub.Predict(asked(model="second", label="stable"))) == {"y": [[2, 4]]}
        await door.until(lambda: door.repository.names() == ["first", "second"])

        del request.config.model_config_list.config[0]
        request.config.model_config_list.config[0].version_labels["stable"] = 7
        with pytest.raises(grpc.aio.AioRpcError, match="Request to assign label to version 7 of model second"):
            await models.HandleReloadConfigRequest(request)
        request.config.model_config_list.config.add(name="third", base_path=str(tmp_path / "nowhere"))
        with pytest.raises(grpc.aio.AioRpcError, match="third"):
            await models.HandleReloadConfigRequest(request)
        assert numbers(await stub.Predict(asked(model="second"))) == {"y": [[2, 4]]}
        await refused(
            stub.Predict(asked(model="first")), StatusCode.NOT_FOUND, "Servable not found for request: Latest(first)"
        )
