"""The bundled model is as good as its card says."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fairway.worker.card import Card
from fairway.worker.config import WorkerSettings
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.runtimes import RUNTIMES
from fairway.worker.tensor import Prediction

OTHERS = ("litert", "onnx", "openvino")


@pytest.fixture(scope="module")
def flowers() -> Model:
    return load_model("", 0, "flowers", WorkerSettings(runtime="tensorflow"), 2)


def card_of(model: Model) -> Card:
    assert model.card is not None
    return model.card


def scored(model: Model, upload: bytes) -> list[float]:
    item = to_item(upload, card_of(model).input)
    scores: list[float] = model.loaded.run({model.image_input: item[None]}, model.loaded.default)[model.scores][
        0
    ].tolist()
    return scores


def test_it_knows_five_flowers(flowers: Model) -> None:
    assert (flowers.name, flowers.version, flowers.reason) == ("flowers", 1, "")
    assert card_of(flowers).labels == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    scores = flowers.loaded.run({"image": np.zeros((3, 128, 128, 3), np.float32)}, "serving_default")["scores"]
    assert scores.shape == (3, 5)
    assert scores.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


def test_accuracy_on_the_photos_training_never_saw(flowers: Model, shared_data: Path) -> None:
    listing = (shared_data / "flowers/LISTING.tsv").read_text("utf-8")
    rows = csv.DictReader(listing.splitlines(), delimiter="\t")
    tested = [row["path"] for row in rows if row["split"] == "val"]
    called = Counter[tuple[str, str]]()
    for path in tested:
        scores = scored(flowers, (shared_data / "flowers" / path).read_bytes())
        called[path.partition("/")[0], Prediction.from_scores(scores, card_of(flowers).labels, 1).label] += 1
    on_card = card_of(flowers).notes["test"]["confusion_rows_are_truth"]
    assert sum(called.values()) == card_of(flowers).notes["test"]["photos"] == 150
    assert called == Counter({(a, b): n for a, row in on_card.items() for b, n in row.items() if n})
    assert sum(n for (truth, name), n in called.items() if truth == name) >= 0.80 * 150


def test_the_photo_of_the_article(flowers: Model, shared_data: Path) -> None:
    scores = scored(flowers, (shared_data / "flowers/daisy/21652746_cc379e0eea_m.jpg").read_bytes())
    assert Prediction.from_scores(scores, card_of(flowers).labels, 1).label == "daisy"


@pytest.mark.parametrize("runtime", OTHERS)
def test_every_runtime_answers_the_same(flowers: Model, shared_data: Path, tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(RUNTIMES[runtime][0])
    if runtime == "onnx":
        pytest.importorskip("tf2onnx")
    other = load_model("", 0, "flowers", WorkerSettings(runtime=runtime, choices=str(tmp_path)), 2)
    assert other.loaded.runtime == runtime
    assert card_of(other) == card_of(flowers)
    for photo in sorted((shared_data / "flowers").glob("*/*.jpg"))[::50]:
        assert scored(other, photo.read_bytes()) == pytest.approx(scored(flowers, photo.read_bytes()), abs=1e-4)
    other.loaded.close()
