"""The Poisson schedule: as many as were asked for, at exponential distances, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise
from math import exp, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.client.bench.arrivals import poisson


@given(st.integers(0, 2**32), st.floats(0.5, 500), st.floats(-1e4, 1e6), st.floats(0, 3))
def test_in_order_within_their_time_and_the_same_again(seed: int, rate: float, begin: float, seconds: float) -> None:
    end = begin + seconds
    times = list(poisson(rate, begin, end, Random(seed).random))
    assert times == sorted(times)
    assert all(begin <= at < end for at in times)
    assert times == list(poisson(rate, begin, end, Random(seed).random))


@pytest.mark.parametrize("rate", [3.0, 100.0, 2000.0])
def test_number_and_spread_are_those_of_a_poisson_process(rate: float) -> None:
    seconds = 60_000 / rate
    count = len(list(poisson(rate, 0.0, seconds, Random(1).random)))
    assert abs(count - 60_000) < 4 * sqrt(60_000)  # the deviation of a Poisson number is the root of its mean
    windows = [len(list(poisson(rate, 0.0, 100 / rate, Random(seed).random))) for seed in range(500)]
    mean = sum(windows) / 500
    variance = sum((n - mean) ** 2 for n in windows) / 499
    assert mean == pytest.approx(100, rel=0.03)
    assert variance == pytest.approx(mean, rel=0.3)  # an even schedule would have none


def test_gaps_are_exponential() -> None:
    times = list(poisson(50.0, 0.0, 400.0, Random(2).random))
    gaps = sorted(after - before for before, after in pairwise(times))
    # Kolmogorov and Smirnov: the largest distance between what was drawn and 1 - e^(-rate x)
    furthest = max(abs((i + 1) / len(gaps) - (1 - exp(-50.0 * gap))) for i, gap in enumerate(gaps))
    assert furthest < 1.63 / sqrt(len(gaps))  # one per cent
    longer = sum(after > before for before, after in pairwise([b - a for a, b in pairwise(times)]))
    assert longer == pytest.approx(len(times) / 2, rel=0.05)  # a gap says nothing of the next one


def test_other_seeds_other_times() -> None:
    assert list(poisson(10, 0, 5, Random(1).random)) != list(poisson(10, 0, 5, Random(2).random))


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_no_rate_is_no_schedule(rate: float) -> None:
    with pytest.raises(ValueError, match="arrivals a second"):
        next(poisson(rate, 0, 1, Random(1).random))
