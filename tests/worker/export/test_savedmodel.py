"""A trained net as a SavedModel: its signatures, and TensorFlow Serving's classify, answered by real workers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from fairway.worker.config import WorkerSettings
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.tensor import TensorSpec
from fairway.worker.wire.examples import serialized

from ...cluster.processes import FAIRWAY, Running
from ...conftest import picture
from ..colours import plain
from ..door import Door
from ..half_plus_two import serving
from . import nets

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.export.savedmodel import write_saved_model

PICTURES = [picture(seed, (100, 80), kind) for seed, kind in enumerate(("JPEG", "PNG", "JPEG"))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 1, its card inside."""
    folder = tmp_path_factory.mktemp("exported") / "flowers"
    version = folder / "1"
    version.mkdir(parents=True)  # as it is where a version is published
    write_saved_model(nets.small_net(), version, nets.LABELS, softmax=False, spec=nets.SPEC)
    (version / "model_card.json").write_text(json.dumps(nets.CARD))
    return folder


@pytest.fixture(scope="module")
def expected() -> list[list[tuple[str, float]]]:
    """Labels and scores of each picture, best first, by Keras."""
    scores = np.asarray(nets.small_net()(np.stack([to_item(data, nets.SPEC) for data in PICTURES])))
    return [sorted(zip(nets.LABELS, row.tolist(), strict=True), key=lambda pair: -pair[1]) for row in scores]


def load(path: Path, runtime: str, tmp_path: Path, **more: Any) -> Model:
    settings = WorkerSettings(runtime=runtime, choices=str(tmp_path / "choices"), **more)
    return load_model("flowers", 0, str(path), settings, 1)


def agree(given: Any, expected: list[list[tuple[str, float]]]) -> None:
    """Pixels that TensorFlow makes are a level off here and there."""
    assert [[label for label, _ in row] for row in given] == [[label for label, _ in row] for row in expected]
    for row, right in zip(given, expected, strict=True):
        assert [score for _, score in row] == pytest.approx([score for _, score in right], abs=0.01)


def asked(name: str = "image/encoded") -> dict[str, Any]:
    rows = [{name: {"b64": base64.b64encode(data).decode()}} for data in PICTURES]
    return {"signature_name": "classify", "examples": rows}


# -- what is written ----------------------------------------------------------------------------------------------------


def test_signatures(exported: Path, tmp_path: Path) -> None:
    signatures = load(exported, "tensorflow", tmp_path).loaded.signatures
    plain, classify = signatures["serving_default"], signatures["classify"]
    assert (plain.method, plain.inputs, plain.outputs) == (
        "predict",
        (TensorSpec("image", "float32", (None, 16, 16, 3)),),
        (TensorSpec("scores", "float32", (None, 3)),),
    )
    assert (classify.method, classify.inputs, classify.outputs) == (
        "classify",
        (TensorSpec("inputs", "bytes", (None,)),),
        (TensorSpec("classes", "bytes", (None, 3)), TensorSpec("scores", "float32", (None, 3))),
    )


def test_without_labels_and_of_a_size_that_is_said(tmp_path: Path) -> None:
    keras = nets.keras
    image = keras.Input((None, None, 1))
    net = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image)))
    write_saved_model(net, tmp_path / "net", size=(20, 30))
    model = load(tmp_path / "net", "tensorflow", tmp_path)
    (signature,) = model.loaded.signatures.values()
    assert signature.inputs[0].shape == (None, 20, 30, 1)
    items = np.random.default_rng(1).random((2, 20, 30, 1)).astype(np.float32)
    powers = np.exp(np.asarray(net(items)))
    scores = model.loaded.run({"image": items}, "serving_default")["scores"]
    np.testing.assert_allclose(scores, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)  # softmax is the default


def test_without_a_card_pictures_are_squashed(tmp_path: Path) -> None:
    write_saved_model(nets.small_net(), tmp_path / "net", nets.LABELS, softmax=False)
    model = load(tmp_path / "net", "tensorflow", tmp_path, input_mean="0", input_std="1")
    assert model.card is not None
    assert model.card.input.resize == "squash"
    items = np.stack([to_item(data, model.card.input) for data in PICTURES])
    right = model.loaded.run({"image": items}, "serving_default")["scores"]
    examples = np.array([serialized({"image": [data]}) for data in PICTURES], object)
    given = model.loaded.run({"inputs": examples}, "classify")
    assert given["classes"][:, 0].tolist() == [nets.LABELS[i].encode() for i in right.argmax(axis=1)]
    np.testing.assert_allclose(given["scores"], -np.sort(-right, axis=1), atol=0.05)


def test_labels_of_the_wrong_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels, but the model has 3 outputs"):
        write_saved_model(nets.small_net(), tmp_path / "net", ("daisy", "rose"), softmax=False)


# -- what workers answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["tensorflow", "litert"])
async def test_classify_by_the_engine_or_by_the_worker(
    runtime: str, exported: Path, tmp_path: Path, expected: list[list[tuple[str, float]]]
) -> None:
    """LiteRT cannot parse examples; it is tried all the same, and what a client sees is no different."""
    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    model = load(exported, runtime, tmp_path)
    assert ("classify" in model.loaded.signatures) == (runtime == "tensorflow")
    async with serving([model]) as site:
        for name in ("image/encoded", "image"):
            agree((await site.post("/v1/models/flowers:classify", asked(name)))["results"], expected)
        if runtime == "tensorflow":
            broken = {"signature_name": "classify", "examples": [{"image": "no picture"}]}
            assert "DecodeJpeg" in await site.refusal("/v1/models/flowers:classify", broken, 500)


async def test_no_other_signature_is_made_up(warm: Door) -> None:
    path, examples = "/v1/models/colours:classify", [{"image": {"b64": base64.b64encode(plain("#c02020")).decode()}}]
    status, answer = await warm.send("POST", path, json={"signature_name": "classify", "examples": examples})
    assert (status, answer["results"][0][0][0]) == (200, "red")
    status, answer = await warm.send("POST", path, json={"signature_name": "classifier", "examples": examples})
    assert (status, answer) == (400, {"error": "No signature was found with the name: classifier"})


async def test_grpc_needs_no_such_signature_either() -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
    from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

    from ..grpc_door import open_door

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "colours", "classify"
    request.input.example_list.examples.add().features.feature["image"].bytes_list.value.append(plain("#c02020"))
    async with open_door() as door:
        response = await prediction_service_pb2_grpc.PredictionServiceStub(door.channel).Classify(request)
    best = max(response.result.classifications[0].classes, key=lambda one: one.score)
    assert best.label == "red"


@pytest.fixture(scope="module")
def worker(exported: Path) -> Iterator[tuple[int, int]]:
    """A process -> port, gRPC port."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    line = [*FAIRWAY, "worker", "--registry=none", f"--model={exported}", "--runtime=tensorflow", "--batching=off"]
    with Running([*line, "--port=0", "--grpc-port=0", "--drain-seconds=0"]) as process:
        port = int(process.line(r"on http://127\.0\.0\.1:(\d+)")[1])
        yield port, int(process.line(r"gRPC on 127\.0\.0\.1:(\d+)")[1])


def test_a_real_worker_over_rest(worker: tuple[int, int], expected: list[list[tuple[str, float]]]) -> None:
    answer = requests.post(f"http://127.0.0.1:{worker[0]}/v1/models/flowers:classify", json=asked(), timeout=60)
    agree(answer.json()["results"], expected)


def test_a_real_worker_over_grpc(worker: tuple[int, int], expected: list[list[tuple[str, float]]]) -> None:
    """A tf.Example as TensorFlow makes it, sent by TensorFlow Serving's own stubs."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
    from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "flowers", "classify"
    for data in PICTURES:
        request.input.example_list.examples.add().features.feature["image/encoded"].bytes_list.value.append(data)
    with grpc.insecure_channel(f"127.0.0.1:{worker[1]}") as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=60)
    agree([[(one.label, one.score) for one in row.classes] for row in response.result.classifications], expected)
