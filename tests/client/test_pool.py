"""Who is sent away, for how long, and how it comes back: transcripts with the time in hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairway.client.pool import Outcome, Pool, Upstream
from fairway.registry.instance import Address, Instance, State

GOOD, GATEWAY, LOST, GONE = Outcome.ANSWERED, Outcome.GATEWAY, Outcome.CONNECTION, Outcome.ABANDONED


def instance(i: int, state: State = "passing") -> Instance:
    return Instance(f"w{i}", "classify", Address("127.0.0.1", 9000 + i), state=state)


def pool_of(count: int) -> tuple[Pool, list[Upstream]]:
    pool = Pool()
    pool.update((instance(i) for i in range(count)), 0.0)
    return pool, pool.upstreams


def send(pool: Pool, upstream: Upstream, outcomes: list[Outcome], now: float = 0.0) -> None:
    for outcome in outcomes:
        pool.started(upstream, now)
        pool.finished(upstream, outcome, now)


def ids(pool: Pool, now: float) -> list[str]:
    return [upstream.instance.id for upstream in pool.candidates(now)]


@pytest.mark.parametrize(
    ("outcomes", "ejected"),
    [
        ([LOST] * 2, False),
        ([LOST] * 3, True),
        ([GATEWAY] * 4, False),
        ([GATEWAY] * 5, True),
        ([LOST, LOST, GOOD, LOST, LOST], False),  # in a row
        ([GATEWAY] * 4 + [GOOD] + [GATEWAY] * 4, False),
        ([LOST, LOST] + [GATEWAY] * 4, False),  # the two kinds are counted apart
        ([LOST, GATEWAY, LOST, GATEWAY, LOST], True),
        ([GONE] * 20, False),  # whoever hung up, it was not the worker
        ([LOST, LOST, GONE, LOST], True),  # ... and says nothing in its favour
        ([GOOD] * 20, False),
    ],
)
def test_what_ejects(outcomes: list[Outcome], ejected: bool) -> None:
    pool, (first, *_) = pool_of(4)
    send(pool, first, outcomes)
    assert ("w0" not in ids(pool, 0.0)) is ejected
    assert first.in_flight == 0


def test_five_seconds_doubling_to_five_minutes() -> None:
    pool, (first, *_) = pool_of(4)
    send(pool, first, [LOST] * 3)
    now, pauses = 0.0, []
    for _ in range(9):
        pauses.append(first.ejected_until - now)
        now = first.ejected_until
        assert not first.available(now - 0.001)
        assert first.available(now)
        send(pool, first, [LOST], now)  # the probe fails
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_one_probe_decides_about_the_return() -> None:
    pool, (first, *_) = pool_of(3)
    send(pool, first, [LOST] * 3)
    assert ids(pool, 4.9) == ["w1", "w2"]
    assert ids(pool, 5.0) == ["w0", "w1", "w2"]
    pool.started(first, 5.0)
    assert ids(pool, 5.1) == ["w1", "w2"]  # while the probe is under way nobody else is sent there
    pool.finished(first, GOOD, 5.2)
    assert ids(pool, 5.3) == ["w0", "w1", "w2"]
    # All is forgiven: it takes three failures again, and the pause begins at five seconds.
    send(pool, first, [LOST] * 2, 6.0)
    assert "w0" in ids(pool, 6.0)
    send(pool, first, [LOST], 7.0)
    assert first.ejected_until == 12.0


def test_a_probe_whose_caller_left_decides_nothing() -> None:
    pool, (first, *_) = pool_of(3)
    send(pool, first, [LOST] * 3)
    send(pool, first, [GONE], 5.0)
    assert "w0" in ids(pool, 5.0)
    pool.started(first, 5.0)
    assert "w0" not in ids(pool, 5.0)


def test_a_crash_with_many_in_flight_is_one_crash() -> None:
    pool, (first, *_) = pool_of(4)
    for _ in range(16):
        pool.started(first, 0.0)
    for _ in range(16):
        pool.finished(first, LOST, 1.0)
    assert first.ejected_until == 6.0
    assert first.ejections == 1


@pytest.mark.parametrize(("count", "left"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_never_more_than_half_and_never_the_last(count: int, left: int) -> None:
    pool, upstreams = pool_of(count)
    for upstream in upstreams:
        send(pool, upstream, [LOST] * 10)
    assert len(pool.candidates(0.0)) == left


def test_draining_workers_do_not_count_as_company() -> None:
    pool = Pool()
    pool.update([instance(0), instance(1, "draining")], 0.0)
    send(pool, pool.upstreams[0], [LOST] * 10)
    assert ids(pool, 0.0) == ["w0"]


def test_an_ejected_worker_serves_again_when_the_others_have_left() -> None:
    pool, (first, _) = pool_of(2)
    send(pool, first, [LOST] * 3)
    assert ids(pool, 1.0) == ["w1"]
    pool.update([instance(0)], 0.0)
    assert ids(pool, 1.0) == ["w0"]
    pool.started(first, 6.0)  # its probe is under way, and it is still all there is
    assert ids(pool, 6.0) == ["w0"]
    pool.update([instance(0), instance(2)], 0.0)
    assert ids(pool, 6.0) == ["w2"]


@pytest.mark.parametrize(
    ("state", "available"), [("passing", True), ("draining", False), ("starting", False), ("critical", False)]
)
def test_only_passing_workers_are_sent_to(state: State, available: bool) -> None:
    pool = Pool()
    pool.update([instance(0, state)], 0.0)
    assert bool(pool.candidates(0.0)) is available
    assert pool.upstreams[0].available(0.0) is available


def test_update_keeps_the_record_of_who_stays() -> None:
    pool, (first, second, _) = pool_of(3)
    pool.started(second, 0.0)
    send(pool, first, [LOST] * 3)
    pool.update([replace(instance(0), version="2.0.0"), instance(1), instance(3)], 0.0)
    assert pool.upstreams[:2] == [first, second]
    assert first.instance.version == "2.0.0"
    assert ids(pool, 1.0) == ["w1", "w3"]
    pool.finished(second, GOOD, 1.0)
    assert second.in_flight == 0


def test_a_new_address_is_a_new_worker() -> None:
    pool, (first, *_) = pool_of(3)
    send(pool, first, [LOST] * 3)
    pool.update([replace(instance(0), address=Address("127.0.0.1", 9999)), instance(1), instance(2)], 0.0)
    assert ids(pool, 1.0) == ["w0", "w1", "w2"]


def test_exclude_is_by_id() -> None:
    pool, _ = pool_of(3)
    assert [u.instance.id for u in pool.candidates(0.0, {"w1"})] == ["w0", "w2"]
    assert list(pool.candidates(0.0, {"w0", "w1", "w2"})) == []


def test_one_in_doubt_is_better_than_none_for_a_second_try() -> None:
    pool, (first, _) = pool_of(2)
    send(pool, first, [LOST] * 3)
    assert ids(pool, 1.0) == ["w1"]
    assert list(pool.candidates(1.0, {"w1"})) == [first]


def test_repr_is_a_dashboard_line() -> None:
    pool, (first, second, *_) = pool_of(4)
    pool.started(second, 0.0)
    send(pool, first, [LOST] * 3)
    assert repr(pool) == "<Pool [4 workers, 1 ejected | 1 in flight]>"
    assert repr(first) == "<Upstream 127.0.0.1:9000 [0 in flight, ejected 1 times]>"
    assert repr(second) == "<Upstream 127.0.0.1:9001 [1 in flight]>"


def test_suspects_come_last_and_what_an_operator_disabled_never() -> None:
    pool = Pool()
    sure, suspect, disabled = instance(0), replace(instance(1), suspect=True), replace(instance(2), enabled=False)
    pool.update([suspect, disabled, sure], 0.0)
    assert ids(pool, now=0) == ["w0"]
    pool.update([suspect, disabled], 0.0)
    assert ids(pool, now=0) == ["w1"], "one in doubt is better than none"
    pool.update([disabled], 0.0)
    assert ids(pool, now=0) == []
