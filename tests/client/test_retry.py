"""What may be tried again: the whole table; and how often: the budget, by transcript."""

from __future__ import annotations

import pytest

from fairway.client.retry import AGAIN, Budget, Failure, may_retry


@pytest.mark.parametrize(
    ("failure", "held", "gone"),
    [
        (Failure.NOT_SENT, True, True),
        (Failure.BROKEN, True, False),
        (Failure.BUSY, True, False),
        (Failure.TIMEOUT, False, False),
        (Failure.STARTED, False, False),
    ],
)
def test_the_table(failure: Failure, held: bool, gone: bool) -> None:
    assert may_retry(failure, replayable=True) is held
    assert may_retry(failure, replayable=False) is gone


def test_the_table_is_whole() -> None:
    assert set(AGAIN) == set(Failure)


def spent(budget: Budget, now: float) -> int:
    """How many retries it allows at this moment."""
    count = 0
    while budget.spend(now):
        count += 1
        assert count <= 1000
    return count


def test_it_begins_with_ten_seconds_worth() -> None:
    assert spent(Budget(), 1000.0) == 100


def test_ten_a_second_come_back() -> None:
    budget = Budget()
    spent(budget, 1000.0)
    assert spent(budget, 1000.0) == 0
    assert spent(budget, 1000.1) == 1
    assert spent(budget, 1003.1) == 30


def test_a_fifth_of_the_requests_on_top() -> None:
    budget = Budget()
    spent(budget, 1000.0)
    for _ in range(51):
        budget.request(1000.0)
    assert spent(budget, 1000.0) == 10


def test_what_is_not_used_is_not_kept_for_ever() -> None:
    budget = Budget()
    for second in range(1000):
        budget.request(1000.0 + second)
    assert spent(budget, 2000.0) == 100


def test_its_figures_are_arguments() -> None:
    budget = Budget(share=0.5, per_second=1.0)
    assert spent(budget, 10.0) == 10
    for _ in range(4):
        budget.request(10.0)
    assert spent(budget, 10.0) == 2
    assert spent(Budget(share=0.0, per_second=0.0), 10.0) == 0


def test_repr_is_a_dashboard_line() -> None:
    budget = Budget()
    assert repr(budget) == "<Budget 100 of 100>"
    for _ in range(3):
        budget.spend(5.0)
    assert repr(budget) == "<Budget 97 of 100>"
