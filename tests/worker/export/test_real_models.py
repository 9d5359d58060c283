"""Models of others, as they are found, and the bundled one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.export.__main__ import export
from fairway.worker.image import to_item
from fairway.worker.loading import load_model

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

SCALING = ("--input-mean", "0", "--input-std", "1")


@pytest.mark.parametrize("to", ["litert", "litert-int8"])
def test_a_residual_net_of_keras(
    to: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLPerf Tiny's, for CIFAR-10."""
    model, out = shared_data / "models/mlcommons_tiny/pretrainedResnet.h5", tmp_path / "resnet.tflite"
    photos = shared_data / "photos"
    assert export([str(model), "--to", to, "--out", str(out), "--images", str(photos), *SCALING]) == 0
    assert "9 of 9" in capsys.readouterr().out
    served = load_model("", 0, str(out), WorkerSettings(runtime="litert", choices=str(tmp_path)), 1)
    assert served.card is not None
    item = to_item((photos / "cat_720p.jpg").read_bytes(), served.card.input)
    scores = served.loaded.run({served.image_input: item[None]}, served.loaded.default)[served.scores]
    assert scores.argmax() == 3  # cats
    assert (out.stat().st_size < model.stat().st_size / 8) == (to == "litert-int8")


@pytest.mark.parametrize(("to", "suffix"), [("litert", "tflite"), ("onnx", "onnx")])
def test_the_bundled_model(to: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if to == "onnx":
        pytest.importorskip("tf2onnx")
    assert export(["flowers", "--to", to, "--out", str(tmp_path)]) == 0
    assert "8 of 8" in capsys.readouterr().out
    model = load_model("", 0, str(tmp_path / f"flowers.{suffix}"), WorkerSettings(runtime=to), 1)
    assert model.card is not None
    assert model.card.labels == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert model.loaded.signatures["serving_default"].inputs[0].shape == (None, 128, 128, 3)


def test_digits_and_letters_of_tensorflow_1(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two signatures, both of one item a call, whose pictures are 784 numbers."""
    said = ("--input-mean", "0", "--input-std", "255", "--input-width", "28", "--input-height", "28")
    line = [str(shared_data / "models/emnist_dl2prod"), "--images", str(shared_data / "emnist"), *said]
    assert export([*line, "--input-channels", "L", "--to", "litert", "--out", str(tmp_path / "emnist.tflite")]) == 0
    out = capsys.readouterr().out
    assert "10 of 10" in out
    assert "predict_images" in out
    card = json.loads((tmp_path / "emnist.model_card.json").read_text())["input"]
    assert (card["channels"], card["flatten"], card["std"]) == ("L", True, [255.0])
