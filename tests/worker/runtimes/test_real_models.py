"""Models of others, as they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.tensor import Prediction


def load(path: Path | str, tmp_path: Path, **settings: Any) -> Model:
    return load_model("", 0, str(path), WorkerSettings(choices=str(tmp_path), **settings), 2)


def named(model: Model, photo: Path) -> Prediction:
    assert model.card is not None, model.reason
    item = to_item(photo.read_bytes(), model.card.input)
    scores = model.loaded.run({model.image_input: item[None]}, model.loaded.default)[model.scores]
    return Prediction.from_scores(scores[0].tolist(), model.card.labels, 1)


def test_quantised_mobilenet(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    folder = shared_data / "models/coral_tflite"
    model = load(folder / "mobilenet_v2_1.0_224_quant.tflite", tmp_path, labels=str(folder / "imagenet_labels.txt"))
    found = named(model, shared_data / "photos/cat_720p.jpg")
    assert "cat" in found.label
    assert 0.5 < found.score <= 1  # a number between 0 and 1, not a byte
    signature = model.loaded.signatures[model.loaded.default]
    assert (signature.inputs[0].dtype, signature.outputs[0].dtype, signature.batch) == ("uint8", "float32", 1)
    with pytest.raises(ValueError, match="expected"):
        model.loaded.run({model.image_input: np.zeros((2, 224, 224, 3), np.uint8)}, model.loaded.default)


def test_signed_bytes_need_no_card(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = load(shared_data / "models/mlcommons_tiny/pretrainedResnet_quant.tflite", tmp_path)
    assert named(model, shared_data / "photos/cat_720p.jpg").label == "class 3"  # CIFAR-10's cats


def test_old_keras_files(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    path = shared_data / "models/mlcommons_tiny/pretrainedResnet.h5"
    model = load(path, tmp_path, runtime="tensorflow", input_mean="0", input_std="1")
    assert named(model, shared_data / "photos/cat_720p.jpg").label == "class 3"


def test_a_model_that_cannot_run_is_named(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(
        ConfigurationError, match=r"model_invoking_error.tflite: LiteRT cannot load it: .*fake-op-double"
    ):
        load(shared_data / "models/coral_tflite/model_invoking_error.tflite", tmp_path)


@pytest.mark.parametrize("runtime", ["auto", "tensorflow"])
def test_digits_and_letters_of_tensorflow_1(shared_data: Path, tmp_path: Path, runtime: str) -> None:
    """784 numbers an item, one item a call, or several where an engine can; pictures only where the scaling is said."""
    pytest.importorskip("tensorflow")
    path = shared_data / "models/emnist_dl2prod"
    model = load(path, tmp_path, runtime=runtime)
    assert model.card is None
    assert "--input-mean and --input-std" in model.reason
    items = 0 if model.loaded.runtime == "litert" else 1  # a busy machine may choose another one
    assert {name: (s.method, s.inputs[0].name, s.batch) for name, s in model.loaded.signatures.items()} == {
        "predict_images": ("predict", "images", items),
        "serving_default": ("classify", "inputs", items),
    }
    blank = np.zeros((1, 784), np.float32)
    first = model.loaded.run({"images": blank}, "predict_images")["scores"]
    assert first.shape == (1, 62)
    assert first.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(model.loaded.run({"inputs": blank}, "serving_default")["scores"], first, atol=1e-6)

    fed = {"input_mean": "0", "input_std": "255", "input_width": 28, "input_height": 28, "input_channels": "L"}
    drawn = load(path, tmp_path, runtime=runtime, **fed)
    glyphs = sorted((shared_data / "emnist").rglob("*.png"))
    assert glyphs
    assert all(named(drawn, glyph).score > 0.2 for glyph in glyphs[:3])


def test_what_onnx_runtime_refuses_may_run_elsewhere(shared_data: Path, tmp_path: Path) -> None:
    """Its operators are of a set older than ONNX Runtime implements."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    path = shared_data / "models/emnist_dl2prod/dnn_model_pt.onnx"
    with pytest.raises(ConfigurationError, match="ONNX Runtime cannot load it"):
        load(path, tmp_path, runtime="onnx")
    model = load(path, tmp_path)
    assert model.loaded.runtime == "openvino"
    assert "ONNX Runtime cannot load it" in model.report["runtime"]["because"]
    (scores,) = model.loaded.run(
        {"flattened_rescaled_img_28x28": np.zeros((1, 784), np.float32)}, "serving_default"
    ).values()
    assert scores.shape == (1, 62)
