"""What is asked for, in words, and rates that follow from a peak."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairway.client.bench.demand import FRACTIONS, Demand, of_peak


def test_in_words() -> None:
    assert [str(Demand("closed", 1)), str(Demand("closed", 8)), str(Demand("open", 97.5))] == [
        "1 client",
        "8 clients",
        "97.5/s",
    ]


def test_all_are_asked_what_the_slowest_can_bear() -> None:
    assert [demand.size for demand in of_peak([400.0, 200.0])] == [50, 100, 150, 180]
    assert {demand.loop for demand in of_peak([400.0])} == {"open"}


def test_without_a_peak_there_is_no_rate() -> None:
    assert of_peak([]) == of_peak([0.0, 300.0]) == ()


@given(st.floats(0.01, 1e6))
def test_rates_rise_to_just_below_the_peak(peak: float) -> None:
    rates = [demand.size for demand in of_peak([peak])]
    assert len(rates) == len(FRACTIONS)
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < peak
