"""Every number that shapes a training run, in one place; it is copied into the model card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The recipe of the bundled `flowers` model: from scratch, about three thousand photos, two CPU cores."""

    epochs: int = 220
    batch: int = 64
    learning_rate: float = 2e-3  # AdamW's peak; cosine decay to zero after the warm-up
    warm_up_epochs: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mix_alpha: float = 0.4  # Beta(a, a) of mixup, which alternates with cutmix
    mix_until: float = 0.85  # share of the run after which whole, unmixed photos are shown
    average_decay: float = 0.998  # of the weights that are kept: an exponential moving average
    dropout: float = 0.2
    stored_size: int = 144  # shorter side of the photos kept in memory, pixels
    train_size: int = 112  # random windows are shown at this size, pixels ...
    serve_size: int = 128  # ... and whole photos at this one: objects then appear equally large
    window_area: tuple[float, float] = (0.3, 1.0)  # of the photo
    window_aspect: float = 4 / 3
    rotation_degrees: float = 15.0
    brightness: float = 0.25
    contrast: float = 0.3
    saturation: float = 0.4
    hue: float = 0.03
    widths: tuple[int, ...] = (24, 48, 96, 144)
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    held_out_percent: float = 5.0
    seed: int = 7
