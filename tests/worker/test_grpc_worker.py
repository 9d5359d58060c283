"""gRPC at a worker that is a process, and in front of models that TensorFlow itself made for examples."""

# ruff: noqa: E402  the libraries may be missing, and then the whole file is skipped
from __future__ import annotations

import signal
import socket
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from fairway.worker.config import WorkerSettings

from ..cluster.processes import FAIRWAY, Running
from ..conftest import ROOT, picture
from .foreign import triton_python
from .grpc_calls import named, numbers, with_inputs
from .grpc_door import open_door

FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
FAST = ("--registry=none", "--drain-seconds=0", "--runtime=tensorflow", "--batching=off", "--threads=1")


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[Running, str]]:
    with Running([*FAIRWAY, "worker", *FAST, "--grpc-port=0"]) as running:
        yield running, running.line(r"serving gRPC on (127\.0\.0\.1:\d+)")[1]


def photo() -> bytes:
    """The one of the article, if it is at hand."""
    path = ROOT.parent / "shared" / "data" / "flowers" / "daisy" / "21652746_cc379e0eea_m.jpg"
    return path.read_bytes() if path.is_file() else picture()


def test_a_photo_by_tensorflow_servings_stubs(worker: tuple[Running, str]) -> None:
    with grpc.insecure_channel(worker[1]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = with_inputs({}, model="flowers")
        metadata = named(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), "flowers")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert stub.GetModelMetadata(metadata, timeout=20).metadata["signature_def"].Unpack(signatures)
        ((name, _),) = signatures.signature_def["serving_default"].inputs.items()
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array([photo()], object)))
        (scores,) = numbers(stub.Predict(request, timeout=20)).values()
        assert np.sum(scores) == pytest.approx(1, abs=1e-5)

        classify = named(classification_pb2.ClassificationRequest(), "flowers")
        example = classify.input.example_list.examples.add()
        example.features.feature["image/encoded"].bytes_list.value.append(photo())
        (classes,) = stub.Classify(classify, timeout=20).result.classifications
        assert [(one.label, one.score) for one in classes.classes] == [
            (label, pytest.approx(score)) for label, score in zip(FLOWERS, scores[0], strict=True)
        ]


TRITON = """
import sys
import numpy as np
import tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
image = triton.InferInput("image", [1], "BYTES")
image.set_data_from_numpy(np.array([sys.stdin.buffer.read()], object))
best = client.infer("flowers", [image], outputs=[triton.InferRequestedOutput("scores", class_count=2)])
print(best.as_numpy("scores").reshape(-1)[0].decode())
client.close()
"""


def test_a_photo_by_tritons_client(worker: tuple[Running, str], shared_data: Path) -> None:
    ran = subprocess.run(
        [triton_python(), "-c", TRITON, worker[1]], input=photo(), capture_output=True, timeout=60, check=False
    )
    assert ran.stdout.decode().strip().endswith(":daisy"), ran.stderr.decode()


def test_a_worker_with_both_ports_ends_well(worker: tuple[Running, str]) -> None:
    running, _ = worker
    running.send(signal.SIGTERM)
    assert running.ended(20) == 0
    assert "Traceback" not in running.said


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError('not here', name='grpc')\n")
    (tmp_path / "same_model.py").write_text("def apply(x):\n    return x\n")
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    command = [*FAIRWAY, "worker", "--registry=none", "--model=python:same_model", "--grpc-port=0"]
    with Running(command, env=environment) as running:
        running.line(r"--grpc-port needs more than is installed \(grpc is missing\): pip install 'fairway\[grpc\]'")
        assert running.ended(20) not in (0, None)


def test_a_port_that_is_taken_ends_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running([*FAIRWAY, "worker", *FAST, f"--grpc-port={port}"]) as running:
            running.line(f"cannot listen on 127.0.0.1:{port}")
            assert running.ended(20) not in (0, None)


# -- models made for examples -------------------------------------------------------------------------------------------


def save_for_examples(path: Path) -> None:
    """A SavedModel of TensorFlow 1's kind: x of an example -> classes with scores, and 2 x."""
    v1 = tf.compat.v1
    with warnings.catch_warnings(), tf.Graph().as_default(), v1.Session() as session:
        warnings.simplefilter("ignore")
        examples = v1.placeholder(tf.string, [None], name="examples")
        x = v1.io.parse_example(examples, {"x": v1.io.FixedLenFeature([1], tf.float32)})["x"]
        classes = tf.tile(tf.constant([["small", "large"]]), [tf.shape(x)[0], 1])
        scores = tf.concat([1 - x, x], axis=1)
        signatures = {
            "serving_default": v1.saved_model.classification_signature_def(examples, classes, scores),
            "twice": v1.saved_model.regression_signature_def(examples, 2 * x),
            "tensors": v1.saved_model.predict_signature_def({"x": x}, {"y": 2 * x}),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def with_examples(request: Any, *values: float, signature: str = "") -> Any:
    if hasattr(request, "model_spec"):
        named(request, "examples", signature)
    for value in values:
        request.input.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return request


async def test_a_model_that_parses_examples(tmp_path: Path) -> None:
    save_for_examples(tmp_path / "examples" / "3")
    settings = WorkerSettings(
        model=str(tmp_path / "examples"), registry="none", runtime="tensorflow", batching="off", threads=1
    )
    async with open_door(settings=settings) as door:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(door.channel)
        answer = await stub.Classify(with_examples(classification_pb2.ClassificationRequest(), 0.25, 0.75))
        assert [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications] == [
            [("small", 0.75), ("large", 0.25)],
            [("small", 0.25), ("large", 0.75)],
        ]
        assert answer.model_spec.version.value == 3
        answer = await stub.Regress(with_examples(regression_pb2.RegressionRequest(), 0.25, signature="twice"))
        assert [one.value for one in answer.result.regressions] == [0.5]

        both = with_examples(inference_pb2.MultiInferenceRequest(), 0.25)
        for signature, method in (("", "classify"), ("twice", "regress")):
            task = both.tasks.add(method_name=f"tensorflow/serving/{method}")
            named(task, "examples", signature)
        first, second = (await stub.MultiInference(both)).results
        assert first.classification_result.classifications[0].classes[0].score == 0.75
        assert second.regression_result.regressions[0].value == 0.5

        empty = with_examples(classification_pb2.ClassificationRequest())
        empty.input.example_list.examples.add()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # the model itself says so
            await stub.Classify(empty)
        assert "x" in caught.value.details()
        tensors = with_inputs({"x": np.array([[3]], "float32")}, model="examples", signature="tensors")
        assert numbers(await stub.Predict(tensors)) == {"y": [[6]]}
