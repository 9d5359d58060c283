"""A small Keras net with its card, and pictures for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.card import InputSpec
from fairway.worker.image import to_item

from ...conftest import picture

keras = pytest.importorskip("keras", reason="TensorFlow is not installed")

LABELS = ("daisy", "rose", "tulip")
SPEC = InputSpec(width=16, height=16, resize="crop", mean=(127.5,), std=(127.5,))
CARD = {
    "input": {"width": 16, "height": 16, "resize": "crop", "mean": 127.5, "std": 127.5},
    "output": {"labels": list(LABELS)},
    "about": "kept",
}


def small_net(outputs: int = len(LABELS)) -> Any:
    """(n, 16, 16, 3) float32 -> (n, outputs) scores that sum to 1; the same weights every time."""
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    return keras.Model(image, keras.layers.Dense(outputs, activation="softmax")(x))


def save(net: Any, folder: Path, card: bool = True) -> Path:
    net.save(folder / "net.keras")
    if card:
        (folder / "net.model_card.json").write_text(json.dumps(CARD))
    return folder / "net.keras"


def save_pictures(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for seed in range(count):
        size = (90 + 7 * seed, 120 - 3 * seed)
        (folder / f"{seed}.png").write_bytes(picture(seed, size, "PNG"))
    return folder


def answers(net: Any, pictures: Path) -> Any:
    """What Keras itself says to each, (n, 3)."""
    items = [to_item(path.read_bytes(), SPEC) for path in sorted(pictures.iterdir())]
    return np.asarray(net(np.stack(items), training=False))
