"""What may be tried again: the whole tables; when: one image's course; and how often: the budget, by transcript."""

from __future__ import annotations

import pytest

from fairway.client.retry import (
    AGAIN,
    ATTEMPTS,
    CLIENT_AGAIN,
    LONGEST_PAUSE,
    TELLING,
    Attempts,
    Budget,
    Failure,
    may_retry,
    retry_after,
)


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


def test_the_tables_are_whole() -> None:
    assert set(AGAIN) == set(CLIENT_AGAIN) == set(Failure)


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (Failure.NOT_SENT, True),
        (Failure.BROKEN, True),
        (Failure.BUSY, True),
        (Failure.TIMEOUT, True),
        (Failure.STARTED, False),
    ],
)
def test_the_clients_table(failure: Failure, again: bool) -> None:
    assert Attempts(100.0).failed("a", failure, None, 0.0) is again


def test_what_answers_tell() -> None:
    assert TELLING == {
        408: Failure.TIMEOUT,
        429: Failure.BUSY,
        502: Failure.BROKEN,
        503: Failure.BUSY,
        504: Failure.TIMEOUT,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("120", 120.0),
        ("9" * 400, LONGEST_PAUSE),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        (" 1", None),
        ("\u0661", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_the_next_one_is_asked_at_once_and_the_same_one_after_pauses_that_grow() -> None:
    course = Attempts(1000.0)
    assert course.pause("a", 0.0, 1.0) == 0.0
    course.failed("a", Failure.BROKEN, None, 0.0)
    assert set(course.places) == {"a"}
    assert course.pause("b", 0.0, 1.0) == 0.0
    pauses = []
    for _ in range(6):
        pauses.append(course.pause("a", 0.0, 1.0))
        assert not course.places  # waited for: like any other
        course.failed("a", Failure.BROKEN, None, 0.0)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])


def test_never_earlier_than_told_and_not_all_at_once() -> None:
    for chance in (0.0, 0.5, 1.0):
        course = Attempts(1000.0)
        course.failed("a", Failure.BUSY, 3.0, 10.0)
        pause = course.pause("a", 11.0, chance)
        assert pause == pytest.approx(2.0 + 0.05 + 0.05 * chance)
    course.failed("a", Failure.BUSY, 3.0, 10.0)
    pause = course.pause("a", 20.0, 0.0)
    assert pause == pytest.approx(0.1)  # his time is over, ours is not


def test_too_late_is_known_before_it_is_waited_for() -> None:
    course = Attempts(12.0)
    course.failed("a", Failure.BUSY, 3.0, 10.0)
    assert course.pause("a", 10.0, 0.0) is None


def test_so_many_attempts_and_no_more() -> None:
    course = Attempts(1000.0)
    assert [course.failed("a", Failure.BROKEN, None, 0.0) for _ in range(ATTEMPTS)] == [True] * (ATTEMPTS - 1) + [False]
    course = Attempts(1000.0)
    assert [course.failed("a", Failure.BROKEN, None, 0.0, most=2) for _ in range(2)] == [True, False]
    assert repr(course) == f"<Attempts 2 of {ATTEMPTS}, 1 places failed>"


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
