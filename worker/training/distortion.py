"""A photo as it might have been taken otherwise: retrain.py's four distortions, before the card's mean and std.

The law: without a distortion a photo is exactly what a worker would make of it. With one, it is what the worker sees,
enlarged by `(1 + random_crop / 100) * uniform(1, 1 + random_scale / 100)`, of which a window of the input's size is cut
out at random; then perhaps mirrored; then all pixels times `uniform(1 - b, 1 + b)`, b = random_brightness / 100, not
clipped. Formulas: add_input_distortions of TensorFlow's image_retraining/retrain.py (r1.4).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..card import InputSpec
from ..errors import ConfigurationError
from ..image import resize


@dataclass(frozen=True)
class Distortion:
    """All in percent, but the mirror. True if anything is distorted at all."""

    flip_left_right: bool = False
    random_crop: float = 0
    random_scale: float = 0
    random_brightness: float = 0

    def __post_init__(self) -> None:
        for name in ("random_crop", "random_scale", "random_brightness"):
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if not 0 <= value < float("inf"):
                raise ConfigurationError(f"{flag} is {value}; expected percent, from 0 up")
        if self.random_brightness > 100:
            raise ConfigurationError(
                f"--random-brightness is {self.random_brightness}; above 100 % pixels would be darker than black"
            )

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def view(self, picture: Image.Image, spec: InputSpec, rng: np.random.Generator) -> NDArray[np.float32]:
        """`picture` (RGB) -> (height, width, 3) float32, after the card's mean and std, in its order of channels.

        Each call draws anew from `rng`, the same amount whatever the picture: an equal generator gives an equal view.
        """
        scale, x, y, mirror, light = rng.uniform(size=5)
        enlarged = (1 + self.random_crop / 100) * (1 + scale * self.random_scale / 100)
        larger = replace(
            spec,
            width=int(spec.width * enlarged),
            height=int(spec.height * enlarged),
            resize_to=round(spec.resize_to * enlarged),
        )
        pixels = resize(picture, larger)
        if spec.resize != "none":
            left, top = int(x * (larger.width - spec.width + 1)), int(y * (larger.height - spec.height + 1))
            pixels = pixels[top : top + spec.height, left : left + spec.width]
        if self.flip_left_right and mirror < 0.5:
            pixels = pixels[:, ::-1]
        if spec.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        values = pixels.astype(np.float32)
        if self.random_brightness:
            values *= np.float32(1 + (2 * light - 1) * self.random_brightness / 100)
        return np.ascontiguousarray((values - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32))
