"""Warm-up requests that come with a model: written by TensorFlow and TensorFlow Serving's own messages, read by us."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import ImageLimits
from fairway.worker.loading import load_model
from fairway.worker.source import find_source
from fairway.worker.tfrecord import LONG, crc32c, masked, read_records
from fairway.worker.warmup import FILE, MOST, warm_up

from .colours import plain

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

LIMITS = ImageLimits(1_000_000, 1_000_000)
SETTINGS = WorkerSettings(runtime="tensorflow")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 100 / x, of whole numbers, and a signature that takes examples. Both fail on 0."""

    def serve(x: Any) -> Any:
        return {"y": 100 // x}

    def classify(inputs: Any) -> Any:
        features = {"x": tf.io.FixedLenFeature([1], tf.int64)}
        x = tf.io.parse_example(inputs, features)["x"]
        return {"scores": tf.cast(100 // x, tf.float32)}

    whole = tf.function(serve, input_signature=[tf.TensorSpec((None,), tf.int64, name="x")])
    fed = tf.function(classify, input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    path = tmp_path_factory.mktemp("saved") / "m"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(tf.Module(), str(path), signatures={"serving_default": whole, "examples": fed})
    return path


@pytest.fixture
def model_path(saved: Path, tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir()
    for child in saved.iterdir():
        (path / child.name).symlink_to(child)
    return path


def write(path: Path, records: Iterable[bytes]) -> None:
    (path / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path / FILE)) as writer:
        for record in records:
            writer.write(record)


def predicted(name: str, *values: int, signature: str = "") -> bytes:
    """A PredictionLog as those write them who follow TensorFlow Serving's page on warm-up."""
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    log = logs.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(list(values), tf.int64))
    return bytes(log.SerializeToString())


def classified(kind: str, x: int, signature: str = "examples") -> bytes:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    log = logs.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    if kind == "multi_inference":
        for _ in range(2):
            request.tasks.add().model_spec.signature_name = signature
    else:
        request.model_spec.signature_name = signature
    request.input.example_list.examples.add().features.feature["x"].int64_list.value.append(x)
    return bytes(log.SerializeToString())


def warmed(path: Path, settings: WorkerSettings = SETTINGS) -> tuple[int, int]:
    """-> how many requests were answered, and how often the model was ready to be called."""
    model = load_model("m", 1, str(path), settings, 1)
    ticks = []
    try:
        answered = warm_up(model, find_source(str(path), settings), LIMITS, lambda: ticks.append(1))
        return answered, len(ticks)
    finally:
        model.loaded.close()


def test_every_request_is_answered(model_path: Path) -> None:
    logs = [predicted("x", 1), predicted("x", 1, 2, 3), predicted("x", 5, signature="serving_default")]
    logs += [classified("classify", 4), classified("regress", 2), classified("multi_inference", 1)]
    write(model_path, logs)
    assert warmed(model_path) == (7, 7)


def test_a_model_without_any_is_left_alone(model_path: Path) -> None:
    assert warmed(model_path) == (0, 0)


def test_they_are_found_inside_a_numbered_version(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "7" / "export"
    path.mkdir(parents=True)
    for child in saved.iterdir():
        (path / child.name).symlink_to(child)
    write(path, [predicted("x", 1)])
    assert warmed(tmp_path / "7") == (1, 1)


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (lambda: predicted("z", 1), "input 'x' is missing and there is no input 'z'"),
        (lambda: predicted("x", 1, signature="other"), "the model has no signature 'other'"),
        (lambda: predicted("x"), "the inputs have no items"),
        (lambda: predicted("x", 0), "the model failed"),
        (lambda: classified("classify", 1, "serving_default"), "signature 'serving_default' takes no examples"),
        (lambda: classified("classify", 1, "other"), "signature 'other' takes no examples"),
        (lambda: b"\xff\xff\xff", "Error parsing message"),
        (lambda: b"", "it holds no request that is known"),
    ],
)
def test_one_that_fails_is_named(model_path: Path, log: Any, text: str) -> None:
    write(model_path, [predicted("x", 1), log()])
    with pytest.raises(ConfigurationError, match=r"assets\.extra/tf_serving_warmup_requests, record 2: ") as caught:
        warmed(model_path)
    assert text in str(caught.value)


def test_too_many_are_refused(model_path: Path) -> None:
    write(model_path, [predicted("x", 1)] * (MOST + 1))
    with pytest.raises(ConfigurationError, match="more than 1000"):
        warmed(model_path)


def test_a_file_that_is_something_else_is_refused(model_path: Path) -> None:
    (model_path / FILE).parent.mkdir()
    (model_path / FILE).write_bytes(b"not a TFRecord file at all")
    with pytest.raises(ConfigurationError, match=r"record 1: its length does not fit its checksum"):
        warmed(model_path)


# -- the card's pictures --------------------------------------------------------------------------------------------


def pictured(folder: Path, warmup: Any) -> tuple[int, int]:
    """A SavedModel of pictures with a card."""

    def serve(image: Any) -> Any:
        return {"scores": tf.reduce_sum(image, axis=(1, 2))}

    function = tf.function(serve, input_signature=[tf.TensorSpec((None, 4, 4, 3), tf.float32, name="image")])
    path = folder / "pictures"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(tf.Module(), str(path), signatures={"serving_default": function})
    card = {"input": {"width": 4, "height": 4}, "output": {"labels": ["r", "g", "b"]}, "warmup": warmup}
    (path / "model_card.json").write_text(json.dumps(card))
    (path / "images").mkdir()
    (path / "images" / "red.png").write_bytes(plain("red"))
    (path / "images" / "text.png").write_bytes(b"a text")
    return warmed(path)


def test_pictures_that_the_card_names(tmp_path: Path) -> None:
    assert pictured(tmp_path, ["images/red.png", "images/red.png"]) == (2, 2)


@pytest.mark.parametrize(
    ("warmup", "text"),
    [
        (["images/green.png"], "images/green.png, which the model card names: .*No such file"),
        (["images/text.png"], "images/text.png, which the model card names: "),
        ("images/red.png", "warmup is 'images/red.png'; expected a list of image files"),
        ([1], "expected a list of image files"),
    ],
)
def test_pictures_that_cannot_be_used_are_named(tmp_path: Path, warmup: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        pictured(tmp_path, warmup)


# -- TFRecord -------------------------------------------------------------------------------------------------------


def test_the_checksum_is_the_one_of_the_standard() -> None:
    # RFC 3720, B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("length", [0, 1, LONG - 1, LONG, LONG + 1, 3 * LONG + 7, 600_000])
def test_records_as_tensorflow_writes_them(tmp_path: Path, length: int) -> None:
    record = np.random.default_rng(length).bytes(length)
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)
        writer.write(b"next")
    with path.open("rb") as stream:
        assert list(read_records(stream)) == [record, b"next"]


@pytest.mark.parametrize("at", [0, 8, 12, 40, -1])
def test_a_bit_that_tipped_over_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"first" * 20)
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with path.open("rb") as stream, pytest.raises(ValueError, match=r"record 1.* checksum"):
        list(read_records(stream))


@pytest.mark.parametrize("kept", [3, 11, 12, 50, 115])
def test_a_file_that_ends_too_early_is_noticed(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"first" * 20)
    path.write_bytes(path.read_bytes()[:kept])
    with path.open("rb") as stream, pytest.raises(ValueError, match="record 1 is cut off"):
        list(read_records(stream))


def test_masks() -> None:
    assert masked(0) == 0xA282EAD8
    assert masked(0xFFFFFFFF) == 0xA282EAD7
