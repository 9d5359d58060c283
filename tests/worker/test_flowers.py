"""The bundled model is as good as its card says."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.image import to_item
from fairway.worker.runtimes import Model, load
from fairway.worker.tensor import Prediction


@pytest.fixture(scope="module")
def flowers() -> Model:
    return load(WorkerSettings(model="flowers"), threads=2)


def test_it_knows_five_flowers(flowers: Model) -> None:
    assert flowers.card.labels == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    scores = flowers.predict(np.zeros((3, 128, 128, 3), np.float32))
    assert scores.shape == (3, 5)
    assert scores.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


def test_accuracy_on_the_photos_training_never_saw(flowers: Model, shared_data: Path) -> None:
    listing = (shared_data / "flowers/LISTING.tsv").read_text("utf-8")
    rows = csv.DictReader(listing.splitlines(), delimiter="\t")
    tested = [row["path"] for row in rows if row["split"] == "val"]
    called = Counter[tuple[str, str]]()
    for path in tested:
        item = to_item((shared_data / "flowers" / path).read_bytes(), flowers.card.input)
        scores = flowers.predict(item[None])[0].tolist()
        called[path.partition("/")[0], Prediction.from_scores(scores, flowers.card.labels, 1).label] += 1
    on_card = flowers.card.notes["test"]["confusion_rows_are_truth"]
    assert sum(called.values()) == flowers.card.notes["test"]["photos"] == 150
    assert called == Counter({(a, b): n for a, row in on_card.items() for b, n in row.items() if n})
    assert sum(n for (truth, name), n in called.items() if truth == name) >= 0.80 * 150


def test_the_photo_of_the_article(flowers: Model, shared_data: Path) -> None:
    item = to_item((shared_data / "flowers/daisy/21652746_cc379e0eea_m.jpg").read_bytes(), flowers.card.input)
    scores = flowers.predict(item[None])[0].tolist()
    assert Prediction.from_scores(scores, flowers.card.labels, 1).label == "daisy"
