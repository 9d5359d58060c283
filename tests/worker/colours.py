"""A model small enough to be understood at a glance: which of its three colours is a picture strongest in?"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairway.worker.card import Card, InputSpec
from fairway.worker.model import Model
from fairway.worker.tensor import Signature, TensorSpec

LABELS = ("red", "green", "blue")


def plain(colour: str, size: tuple[int, int] = (40, 30), format: str = "PNG") -> bytes:
    """An image file of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return out.getvalue()


class Colours:
    """Scores are the shares of red, green and blue. It fails on black, and knows no number for white.

    While `gate` is clear it stands still inside `predict`; `entered` says that it got there.
    """

    runtime, default, streams = "python", "serving_default", 1

    def __init__(self) -> None:
        image, scores = TensorSpec("image", "float32", (None, 4, 4, 3)), TensorSpec("scores", "float32", (None, 3))
        self.signatures: Mapping[str, Signature] = {self.default: Signature(self.default, (image,), (scores,))}
        self.card = Card(InputSpec(width=4, height=4, filter="nearest"), LABELS)
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.entered.set()
        if not self.gate.wait(10):
            raise TimeoutError("the test never opened the gate")
        amounts = batch.reshape(len(batch), -1, 3).sum(axis=1, dtype=np.float32)
        if not amounts.any(axis=1).all():
            raise ArithmeticError("black has no colour")
        shares: NDArray[np.float32] = amounts / amounts.sum(axis=1, keepdims=True)
        shares[batch.reshape(len(batch), -1).min(axis=1) == 255] = np.nan
        return shares

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        return {"scores": self.predict(inputs["image"])}

    def close(self) -> None:
        pass

    def model(self) -> Model:
        return Model("colours", 1, self, self.card, "image", "scores")
