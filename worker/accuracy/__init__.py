"""How good a model is, and how sure one may be of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Report:
    """`confusion[i][j]`: how many photos of class i were called j."""

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def as_card(self) -> dict[str, Any]:
        low, high = wilson(self.correct, self.total)
        return {
            "photos": self.total,
            "top_1": round(self.accuracy, 4),
            "interval_95": [round(low, 4), round(high, 4)],
            "confusion_rows_are_truth": {
                name: dict(zip(self.labels, row, strict=True))
                for name, row in zip(self.labels, self.confusion, strict=True)
            },
        }


def score(logits: NDArray[np.float32], truth: NDArray[np.int64], labels: tuple[str, ...]) -> Report:
    """(n, classes) scores and (n,) class numbers -> Report."""
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (truth, logits.argmax(1)), 1)
    return Report(labels, tuple(tuple(int(n) for n in row) for row in confusion))


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (J. Am. Stat. Assoc. 22, 1927); 95 % by default."""
    p = correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return centre - half, centre + half
