"""What is taken for the same, and what is counted on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairway.worker.runtimes.difference import Bounds, Comparison, compare

RIGHT = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.9, 0.1, 0.0]], np.float32)


def compared(given: Any, bounds: Bounds, right: Any = RIGHT) -> Comparison:
    """Each row a call of its own, as pictures are compared."""
    calls = [[{"scores": row[None]} for row in array] for array in (right, given)]
    return compare({"s": calls[0]}, {"s": calls[1]}, "scores", bounds)


def test_the_same() -> None:
    assert compared(RIGHT, Bounds(0.0)) == Comparison(0.0, "", 4, 4)


def test_the_largest_difference_counts() -> None:
    given = RIGHT.copy()
    given[2, 0] += 0.25
    given[1, 0] += 0.125
    found = compared(given, Bounds(0.2))
    assert found.difference == pytest.approx(0.25)
    assert found.reason == "answers differ by 0.25"
    assert (found.same, found.items) == (4, 4)
    assert compared(given, Bounds(0.26)).reason == ""


def test_best_classes_are_counted() -> None:
    given = RIGHT.copy()
    given[1] = (0.3, 0.2, 0.1)
    found = compared(given, Bounds(0.5, 0.75))
    assert (found.same, found.items, found.reason) == (3, 4, "")
    assert compared(given, Bounds(0.5, 0.8)).reason == "1 of 4 best classes differ"


def test_outputs_without_scores_have_no_best_class() -> None:
    found = compare({"s": [{"y": RIGHT}]}, {"s": [{"y": RIGHT + np.float32(0.5)}]}, "scores", Bounds(0.6))
    assert (found.same, found.items, found.reason) == (0, 0, "")


def test_what_is_no_number_must_be_equal_where_it_can_be() -> None:
    texts = np.array([b"a", b"b"], object)
    for exact, reason in ((True, "t differs"), (False, "")):
        assert compare({"s": [{"t": texts}]}, {"s": [{"t": texts[::-1]}]}, "", Bounds(1, 1, exact)).reason == reason
