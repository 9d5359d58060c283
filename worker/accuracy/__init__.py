"""How good a model is, and how sure one may be of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassReport:
    """One class: `total` photos of it, of which `correct` were called so; `called`: photos of any class that were.

    `recall` (correct / total) and `precision` (correct / called) are None where nothing can be said.
    """

    label: str
    total: int
    correct: int
    called: int

    @property
    def recall(self) -> float | None:
        return self.correct / self.total if self.total else None

    @property
    def precision(self) -> float | None:
        return self.correct / self.called if self.called else None


@dataclass(frozen=True)
class Report:
    """`confusion[i][j]`: how many photos of class i were called j. `top_5`: of how many the truth was among the five
    best; None: nobody counted."""

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    top_5: int | None = None

    @property
    def total(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        """NaN if there is nothing to judge by."""
        return self.correct / self.total if self.total else math.nan

    @property
    def classes(self) -> tuple[ClassReport, ...]:
        called = [sum(column) for column in zip(*self.confusion, strict=True)]
        rows = zip(self.labels, self.confusion, called, strict=True)
        return tuple(ClassReport(name, sum(row), row[i], n) for i, (name, row, n) in enumerate(rows))

    def mistakes(self) -> list[tuple[str, str, int]]:
        """(truth, what it was called, how often), the most frequent first; ties in the order of the labels."""
        wrong = [
            (truth, name, count)
            for i, (truth, row) in enumerate(zip(self.labels, self.confusion, strict=True))
            for j, (name, count) in enumerate(zip(self.labels, row, strict=True))
            if count and i != j
        ]
        return sorted(wrong, key=lambda mistake: -mistake[2])

    def occurring(self) -> Report:
        """Without the classes of which there is no photo, and that none was called. All of them, if that leaves none."""
        kept = [i for i, one in enumerate(self.classes) if one.total or one.called] or range(len(self.labels))
        rows = tuple(tuple(self.confusion[i][j] for j in kept) for i in kept)
        return Report(tuple(self.labels[i] for i in kept), rows, self.top_5)

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
    """(n, classes) scores and (n,) class numbers -> Report. With more than five classes the five best are counted too."""
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (truth, logits.argmax(1)), 1)
    top_5 = None
    if len(labels) > 5:
        best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        top_5 = int((best == truth[:, None]).any(1).sum())
    return Report(labels, tuple(tuple(int(n) for n in row) for row in confusion), top_5)


def tally(pairs: Iterable[tuple[str, str]], labels: Iterable[str], top_5: int | None = None) -> Report:
    """(truth, what it was called) -> Report. `labels` come first; names that are not among them follow as they come."""
    pairs = list(pairs)
    names = list(dict.fromkeys([*labels, *(name for pair in pairs for name in pair)]))
    place = {name: i for i, name in enumerate(names)}
    confusion = np.zeros((len(names), len(names)), int)
    for truth, called in pairs:
        confusion[place[truth], place[called]] += 1
    return Report(tuple(names), tuple(tuple(int(n) for n in row) for row in confusion), top_5)


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (J. Am. Stat. Assoc. 22, 1927); 95 % by default. Of nothing: 0 to 1."""
    if not total:
        return 0.0, 1.0
    p = correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return centre - half, centre + half
