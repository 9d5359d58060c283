"""Models for `python:tests.worker.odd_model:FACTORY`: what they do depends on the picture they see."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

CARD = {"input": {"width": 4, "height": 4}, "output": {"labels": ["dark", "bright"]}}


class Moody:
    """How bright is it? It never answers to black, and ends the process at white."""

    card = CARD
    inputs = (("image", "float32", (None, 4, 4, 3)),)
    outputs = (("scores", "float32", (None, 2)),)

    def __call__(self, batch: Any) -> Any:
        if not batch.any():
            threading.Event().wait()
        if batch.min() == 255:
            os._exit(11)
        bright = batch.mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1).astype(np.float32)
