"""How far the answers of two engines, or of two forms of a model, lie apart, and whether they are still the same.

A number is measured against 1, or against the largest of its array where that is more: scores differ by themselves, logits
by their share. Two classes that the reference itself can hardly tell apart may change places. Pure: sans-io.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Bounds:
    """What is taken for the same. `largest`: difference of a number. `best`: share of items whose best class is the same.
    `exact`: what is no floating point number must be equal.
    """

    largest: float
    best: float = 1.0
    exact: bool = True


EXACT = Bounds(1e-4)
COARSE = Bounds(0.2, 0.75, exact=False)  # less than float32


@dataclass(frozen=True)
class Comparison:
    """`difference`: the largest, of all outputs that are numbers. `reason`: empty if they agree. `same` of `items` have the
    same best class; both 0 where nothing is called scores.
    """

    difference: float
    reason: str
    same: int = 0
    items: int = 0


def compare(
    expected: Mapping[str, list[Arrays]], given: Mapping[str, list[Arrays]], scores: str, bounds: Bounds
) -> Comparison:
    """By signature, what was answered to the same calls. `scores`: the output whose best class counts, (n, classes)."""
    largest, same, items = 0.0, 0, 0
    for signature, calls in expected.items():
        for wanted, answered in zip(calls, given[signature], strict=True):
            for name, right in wanted.items():
                got = answered[name]
                if got.shape != right.shape or got.dtype != right.dtype:
                    return Comparison(largest, f"{name} is {got.dtype}{got.shape}, not {right.dtype}{right.shape}")
                if right.dtype.kind not in "fV" or not right.size:
                    if bounds.exact and not np.array_equal(got, right):
                        return Comparison(largest, f"{name} differs")
                    continue
                scale = max(1.0, float(np.nanmax(np.abs(right), initial=0.0)))
                difference = float(np.max(np.abs(got.astype(np.float64) - right), initial=0.0)) / scale
                if not np.array_equal(np.isfinite(got), np.isfinite(right)) or difference != difference:
                    return Comparison(largest, f"{name} is not finite where it should be, or the other way round")
                largest = max(largest, difference)
                if name == scores:
                    rows, best = right.reshape(-1, right.shape[-1]), got.reshape(-1, right.shape[-1]).argmax(axis=-1)
                    short = rows.max(axis=-1) - rows[np.arange(len(rows)), best]
                    same, items = same + int((short <= 2 * EXACT.largest).sum()), items + len(rows)
    reason = ""
    if largest > bounds.largest:
        reason = f"answers differ by {largest:.2g}"
    elif same < items * bounds.best:
        reason = f"{items - same} of {items} best classes differ"
    return Comparison(largest, reason, same, items)
