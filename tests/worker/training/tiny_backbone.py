"""A backbone and photos small enough to be learnt from in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CARD = {"input": {"width": 16, "height": 16, "mean": 127.5, "std": 127.5}}
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def tiny_backbone(path: Path, top: bool = True, card: bool = True, seed: int = 1, side: int | None = 16) -> Path:
    """A Keras file: one convolution of 8 maps, pooled, and a dense layer of 4 classes if `top`; its card beside it."""
    import keras

    keras.utils.set_random_seed(seed)
    picture = keras.Input((side, side, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="maps")(picture)
    if top:
        x = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(picture, x, name="tiny").save(path)
    if card:
        path.with_name(f"{path.stem}.model_card.json").write_text(json.dumps(CARD))
    return path


def colour_photos(folder: Path, count: int = 12, first: int = 0) -> Path:
    """`folder`/red, green, blue: `count` PNGs each, all different, of about that colour."""
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            rng = np.random.default_rng([len(label), i])
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (24, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}-{i:03d}.png")
    return folder
