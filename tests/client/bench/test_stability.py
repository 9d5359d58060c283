"""Three windows that agree, by rate and by latency, are enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.client.bench.stability import LAST, TOLERANCE, Window, stable


@pytest.mark.parametrize(
    ("rates", "latencies", "expected"),
    [
        ([100, 100], [1, 1], False),  # too few
        ([100, 104, 96], [1, 1, 1], True),
        ([100, 106, 100], [1, 1, 1], False),
        ([100, 100, 100], [1, 1.2, 1], False),  # the latency counts as well
        ([10, 500, 100, 101, 102], [9, 7, 1, 1, 1], True),  # what was before does not
        ([100, 101, 102, 10], [1, 1, 1, 1], False),
        ([0, 0, 0], [0, 0, 0], False),  # nothing at all is not stable
    ],
)
def test_the_last_three_decide(rates: list[float], latencies: list[float], expected: bool) -> None:
    windows = [Window(rate, latency) for rate, latency in zip(rates, latencies, strict=True)]
    assert stable(windows) is expected


@given(st.lists(st.floats(0.001, 1e6), min_size=LAST, max_size=LAST), st.floats(0.01, 100))
def test_order_and_unit_do_not_matter(rates: list[float], unit: float) -> None:
    found = stable([Window(rate, 1.0) for rate in rates])
    assert stable([Window(rate, 1.0) for rate in reversed(rates)]) is found
    if found:
        assert max(rates) <= min(rates) * (1 + TOLERANCE) / (1 - TOLERANCE) * (1 + 1e-9)
    slightly = [rate * unit for rate in rates]
    middle = sorted(rates)[1]
    edges = [abs(abs(rate - middle) - TOLERANCE * middle) > 1e-9 * middle for rate in rates]
    if all(edges):
        assert stable([Window(rate, unit) for rate in slightly]) is found
