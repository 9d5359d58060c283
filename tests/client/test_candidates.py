"""Who may be sent to: busy ones, limits, slow starts; and the list that is kept until something changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.client.balancing import RoundRobin
from fairway.client.pool import Outcome, Pool, Upstream
from fairway.client.upstream import BUSY, EJECTED, RESTING, STANDINGS, SUSPECT
from fairway.registry.instance import Address, Instance

from .test_pool import GONE, GOOD, LOST, ids, instance, send


def pool_of(count: int, slow_start: float = 0.0, limit: int = 0) -> tuple[Pool, list[Upstream]]:
    pool = Pool(slow_start, limit)
    pool.update((instance(i) for i in range(count)), 0.0)
    return pool, pool.upstreams


# -- who is busy ----------------------------------------------------------------------------------------------------


def test_who_says_that_it_is_busy_is_left_alone_for_so_long() -> None:
    pool, (first, *_) = pool_of(3)
    pool.busy(first, 2.0)
    assert ids(pool, 1.9) == ["w1", "w2"]
    assert not first.available(1.9)
    assert ids(pool, 2.0) == ["w0", "w1", "w2"]
    assert (first.failures, first.ejections) == ({}, 0)


def test_rather_a_busy_one_than_nobody_and_rather_than_one_that_is_ejected() -> None:
    pool, (first, second, third, fourth) = pool_of(4)
    send(pool, fourth, [LOST] * 3)
    for upstream in (first, second):
        pool.busy(upstream, 2.0)
    assert ids(pool, 0.0) == ["w2"]
    assert [u.id for u in pool.candidates(0.0, {"w2"})] == ["w0", "w1"]
    pool.busy(third, 3.0)
    assert ids(pool, 0.0) == ["w0", "w1", "w2"]
    assert ids(pool, 2.0) == ["w0", "w1"]


def test_a_shorter_wish_does_not_end_a_longer_one_and_none_is_for_ever() -> None:
    pool, (first, _) = pool_of(2)
    pool.busy(first, 10.0)
    pool.busy(first, 2.0)
    assert ids(pool, 9.9) == ["w1"]
    pool.busy(first, 1e9)
    assert ids(pool, 10.0) == ["w1"]
    assert ids(pool, 70.0) == ["w0", "w1"]


def test_the_best_there_are_by_how_they_stand() -> None:
    pool = Pool()
    suspect, resting = replace(instance(1), suspect=True), replace(instance(2), weight=0)
    pool.update([instance(0), suspect, resting, instance(3), instance(4), instance(5, "draining")], 0.0)
    _, first, second, busy, ejected, away = pool.upstreams
    pool.busy(busy, 9.0)
    send(pool, ejected, [LOST] * 3)
    standings = {u.id: STANDINGS[u.standing(0.0)] for u in pool.upstreams}
    assert list(standings.values()) == ["sure", "suspect", "resting", "busy", "ejected", "away"]
    order, tried = [], set[str]()
    while left := pool.candidates(0.0, tried):
        order.append([u.id for u in left])
        tried |= set(order[-1])
    assert order == [["w0"], ["w1"], ["w2"], ["w3"], ["w4"]]  # never w5
    assert [u.standing(0.0) for u in (first, second, busy, ejected)] == [SUSPECT, RESTING, BUSY, EJECTED]
    assert not away.available(0.0)


# -- a limit for each -----------------------------------------------------------------------------------------------


def test_at_its_limit_a_worker_gets_nothing_until_it_has_room() -> None:
    freed: list[str] = []
    pool = Pool(worker_limit=2, on_room=lambda upstream: freed.append(upstream.id))
    pool.update([instance(0), instance(1)], 0.0)
    first, second = pool.upstreams
    for upstream in (first, first, second):
        pool.started(upstream, 0.0)
    assert ids(pool, 0.0) == ["w1"]
    pool.started(second, 0.0)
    assert ids(pool, 0.0) == []
    assert list(pool.candidates(0.0, {"w0"})) == []
    assert freed == []
    pool.finished(second, GONE, 0.0)
    assert (ids(pool, 0.0), freed) == (["w1"], ["w1"])
    pool.finished(first, GOOD, 0.0)
    assert (ids(pool, 0.0), freed) == (["w0", "w1"], ["w1", "w0"])
    pool.finished(first, GOOD, 0.0)
    assert (ids(pool, 0.0), freed) == (["w0", "w1"], ["w1", "w0"])


def test_that_the_good_ones_are_full_makes_nobody_else_good() -> None:
    pool, (first, second, third, fourth) = pool_of(4, limit=1)
    send(pool, fourth, [LOST] * 3)
    pool.busy(third, 9.0)
    pool.started(first, 0.0)
    pool.started(second, 0.0)
    assert ids(pool, 0.0) == []
    assert ids(pool, 5.0) == ["w3"]  # its probe is due, and it is as good as any


def test_one_that_left_while_full_comes_to_no_list() -> None:
    pool, (first, second) = pool_of(2, limit=1)
    pool.started(first, 0.0)
    pool.started(second, 0.0)
    pool.update([instance(1), instance(2)], 1.0)
    assert ids(pool, 1.0) == ["w2"]
    pool.finished(first, GOOD, 1.0)
    assert ids(pool, 1.0) == ["w2"]
    pool.finished(second, GOOD, 1.0)
    assert ids(pool, 1.0) == ["w1", "w2"]
    assert pool.in_flight == 0


# -- slow start -----------------------------------------------------------------------------------------------------


def shares(pool: Pool, now: float) -> list[float]:
    return [round(u.share, 2) for u in pool.candidates(now)]


def test_who_joins_others_starts_with_a_tenth_and_has_its_share_in_the_end() -> None:
    pool, _ = pool_of(2, slow_start=10.0)
    assert shares(pool, 0.0) == [1, 1]  # all are new: somebody must do the work
    pool.update([instance(0), replace(instance(1), weight=3), replace(instance(2), weight=3)], 100.0)
    assert shares(pool, 100.0) == [1, 3, 0.3]
    assert shares(pool, 105.0) == [1, 3, 1.5]
    assert shares(pool, 108.0) == [1, 3, 2.4]
    assert shares(pool, 110.0) == [1, 3, 3]
    assert not pool.candidates(110.0).even
    assert pool.due == float("inf")


def test_the_share_grows_in_small_steps() -> None:
    pool, _ = pool_of(1, slow_start=10.0)
    pool.update([instance(0), instance(1)], 0.0)
    seen = [shares(pool, now / 10)[1] for now in range(101)]
    assert seen == sorted(seen)
    assert len(set(seen)) > 15
    assert max(after - before for before, after in pairwise(seen)) <= 0.06


@pytest.mark.parametrize(
    ("before", "after", "slow"),
    [
        ([], [0, 1], []),
        ([0], [0, 1, 2], [1, 2]),
        ([0, 1], [2, 3], []),  # all others have left: nobody is left to do the rest
        ([0, 1], [1, 2], [2]),
    ],
)
def test_who_starts_slowly(before: list[int], after: list[int], slow: list[int]) -> None:
    pool = Pool(10.0)
    pool.update(map(instance, before), 0.0)
    pool.update(map(instance, after), 50.0)
    pool.candidates(50.0)
    assert [u.id for u in pool.upstreams if u.share < 1] == [f"w{i}" for i in slow]


def test_the_start_is_when_it_first_serves_and_only_then() -> None:
    pool, _ = pool_of(1, slow_start=10.0)
    pool.update([instance(0), instance(1, "starting")], 0.0)
    pool.update([instance(0), instance(1)], 100.0)
    assert shares(pool, 100.0) == [1, 0.1]
    pool.update([instance(0), instance(1, "critical")], 120.0)
    pool.update([instance(0), instance(1)], 121.0)
    assert shares(pool, 121.0) == [1, 1]  # it was silent for a moment, and is as warm as ever


def test_those_a_new_proxy_does_not_know_yet_have_not_joined() -> None:
    pool = Pool(10.0)
    pool.update([instance(0)], 0.0, joining=False)
    pool.update([instance(0), instance(1)], 0.1, joining=False)  # the registry's list comes in parts
    assert shares(pool, 0.1) == [1, 1]
    pool.update([instance(0), instance(1), instance(2)], 0.2)
    assert shares(pool, 0.2) == [1, 1, 0.1]


def test_in_turn_a_slow_starter_gets_what_is_its_share() -> None:
    pool, _ = pool_of(3, slow_start=10.0)
    balancer, served = RoundRobin(Random(1)), Counter[str]()
    pool.update(map(instance, range(4)), 0.0)
    for step in range(10_000):  # a thousand a second
        served[balancer.choose(pool.candidates(step / 1000), step / 1000).id] += 1
    # Half of a share at ten seconds' end: a tenth in the first second, then in a line.
    assert served["w3"] == pytest.approx(0.505 / 3.505 * 10_000, rel=0.1)
    assert max(served[id] for id in ("w0", "w1", "w2")) - min(served[id] for id in ("w0", "w1", "w2")) <= 2


# -- the list that is kept ------------------------------------------------------------------------------------------


def test_while_nothing_changes_it_is_the_same_list() -> None:
    pool, (first, *_) = pool_of(3)
    kept = pool.candidates(0.0)
    send(pool, first, [GOOD, LOST, GOOD, GONE], 1.0)
    pool.reported(first, b"TEXT named_metrics.in_flight=9")
    assert pool.candidates(1e6) is kept
    send(pool, first, [LOST] * 3, 1e6)
    assert pool.candidates(1e6) is not kept


WORKERS = 4
step = st.tuples(
    st.sampled_from(["start", "end", "busy", "update", "wait"]),
    st.integers(0, WORKERS - 1),
    st.sampled_from(list(Outcome)),
    st.integers(0, 15),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=60), st.sampled_from([0, 1, 2]))
def test_the_kept_list_is_what_a_fresh_look_would_find(steps: list[tuple[str, int, Outcome, int]], limit: int) -> None:
    pool, now = Pool(10.0, limit), 0.0
    pool.update((instance(i) for i in range(WORKERS)), now)
    under_way: list[Upstream] = []
    for what, number, outcome, bits in steps:
        upstream = pool.upstreams[number % len(pool.upstreams)] if pool.upstreams else None
        if what == "start" and upstream and (not limit or upstream.in_flight < limit):
            pool.started(upstream, now)
            under_way.append(upstream)
        elif what == "end" and under_way:
            pool.finished(under_way.pop(number % len(under_way)), outcome, now, 0.1)
        elif what == "busy" and upstream:
            pool.busy(upstream, now + bits)
        elif what == "update":
            pool.update((instance(i) for i in range(WORKERS) if bits >> i & 1), now)
        elif what == "wait":
            now += bits / 2
        kept, even = list(pool.candidates(now)), pool.candidates(now).even
        first, others = kept[:1], kept[1:]
        pool.due = float("-inf")
        assert kept == list(pool.candidates(now))
        assert even is (len({u.share for u in kept}) <= 1) or not even
        assert [u.order for u in kept] == sorted(u.order for u in kept)
        if others:
            assert list(pool.candidates(now, {first[0].id})) == others
        assert pool.in_flight == len(under_way)


def test_address_and_id_are_of_the_worker_as_it_is_now() -> None:
    pool, (first,) = pool_of(1)
    pool.started(first, 0.0)
    pool.update([Instance("w0", "classify", Address("127.0.0.1", 9999))], 0.0)
    (second,) = pool.candidates(0.0)
    assert (second is first, second.in_flight, pool.in_flight) == (False, 0, 1)
    pool.finished(first, LOST, 0.0)
    assert (second.failures, pool.in_flight) == ({}, 0)
