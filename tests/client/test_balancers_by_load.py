"""Those that look at the workers before they choose: by load, by latency, by a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from fairway.client.balancing import Balancer, Hashed, LeastLoaded, PeakEwma
from fairway.client.pool import Outcome, Pool
from fairway.client.upstream import MEMORY_SECONDS, Upstream

from .test_candidates import pool_of
from .test_pool import GOOD, LOST, instance

FAILED, GATEWAY = Outcome.FAILED, Outcome.GATEWAY


def chosen(balancer: Balancer, pool: Pool, now: float = 0.0, count: int = 2000) -> Counter[str]:
    """Chosen, and at once forgotten."""
    return Counter(balancer.choose(pool.candidates(now), now).id for _ in range(count))


def load(pool: Pool, *in_flight: int) -> None:
    for upstream, count in zip(pool.upstreams, in_flight, strict=False):
        for _ in range(count - upstream.in_flight):
            pool.started(upstream, 0.0)


def timed(pool: Pool, upstream: Upstream, seconds: float, now: float = 0.0, outcome: Outcome = GOOD) -> None:
    pool.started(upstream, now)
    pool.finished(upstream, outcome, now, seconds)


# -- the less loaded of two -----------------------------------------------------------------------------------------


def test_of_two_the_one_with_less_to_do() -> None:
    pool, _ = pool_of(2)
    load(pool, 3, 2)
    assert set(chosen(LeastLoaded(Random(1)), pool)) == {"w1"}


def test_with_equal_loads_everybody_is_chosen_alike() -> None:
    pool, _ = pool_of(5)
    served = chosen(LeastLoaded(Random(1)), pool, count=5000)
    assert all(served[f"w{i}"] == pytest.approx(1000, rel=0.15) for i in range(5))


def test_of_many_the_least_loaded_is_not_rushed() -> None:
    """It has its turn, and is the other one in a quarter of the rest; all who saw it idle would else meet there."""
    pool, _ = pool_of(5)
    load(pool, 0, 1, 1, 1, 1)
    served = chosen(LeastLoaded(Random(1)), pool, count=5000)
    assert served["w0"] == pytest.approx(5000 * (0.2 + 0.8 * 0.25), rel=0.1)
    load(pool, 0, 1, 1, 1, 9)
    assert chosen(LeastLoaded(Random(1)), pool)["w4"] == 0


def test_what_it_says_of_others_counts_and_is_forgotten() -> None:
    pool, (first, second) = pool_of(2)
    pool.started(first, 0.0)
    pool.reported(first, b"TEXT named_metrics.in_flight=6, named_metrics.queue=5")  # besides the one it answers
    pool.finished(first, GOOD, 0.0, 0.1)
    assert first.load(0.0) == 6
    load(pool, 0, 3)
    assert set(chosen(LeastLoaded(Random(1)), pool)) == {"w1"}
    assert first.load(0.05) == pytest.approx(3)
    assert first.load(0.1) == first.load(99.0) == 0
    assert set(chosen(LeastLoaded(Random(1)), pool, 0.1)) == {"w0"}
    assert second.load(0.0) == 3


def test_of_whom_nothing_is_known_as_much_is_thought_as_of_all() -> None:
    """Else those that were not heard of for long would be rushed, and that somebody is idle would be no news."""
    pool, (idle, busy, _) = pool_of(3)
    for _ in range(1000):
        for upstream, value in ((idle, b"TEXT named_metrics.in_flight=0"), (busy, b"TEXT named_metrics.in_flight=4")):
            pool.started(upstream, 0.0)
            pool.reported(upstream, value)
            pool.finished(upstream, GOOD, 0.0, 0.1)
    assert [round(u.load(0.0, pool.usual), 1) for u in pool.upstreams] == [0, 4, 2]
    assert [round(u.load(0.1, pool.usual), 1) for u in pool.upstreams] == [2, 2, 2]


def test_what_is_usual_goes_with_the_weight() -> None:
    """Else at high load, when most reports are old, those with a large weight would look idle."""
    pool = Pool()
    pool.update([instance(0), replace(instance(1), weight=4)], 0.0)
    for _ in range(1000):
        for upstream, value in zip(pool.upstreams, (b"10", b"40"), strict=True):
            pool.started(upstream, 0.0)
            pool.reported(upstream, b"TEXT named_metrics.in_flight=" + value)
            pool.finished(upstream, GOOD, 0.0, 0.1)
    assert [round(u.load(9.0, pool.usual)) for u in pool.upstreams] == [10, 40]


def test_ours_are_not_counted_twice() -> None:
    pool, (first, _) = pool_of(2)
    load(pool, 3)
    pool.reported(first, b"TEXT named_metrics.in_flight=2")  # the other two of ours
    pool.finished(first, GOOD, 0.0, 0.1)
    assert first.load(0.0) == 2
    pool.reported(first, b"TEXT named_metrics.in_flight=0")  # fewer than we know of: ours are still on their way
    assert first.load(0.0) == 2
    pool.reported(first, b"nonsense")
    assert first.load(0.0) == 2


def test_who_has_twice_the_weight_may_have_twice_as_much_to_do() -> None:
    pool = Pool()
    pool.update([instance(0), replace(instance(1), weight=4)], 0.0)
    balancer, most = LeastLoaded(Random(1)), Counter[str]()
    for _ in range(50):
        pool.started(balancer.choose(pool.candidates(0.0), 0.0), 0.0)
    most.update({u.id: u.in_flight for u in pool.upstreams})
    assert most["w1"] == pytest.approx(40, abs=3)


# -- the sooner expected of two -------------------------------------------------------------------------------------


def test_a_higher_latency_counts_at_once_a_lower_one_bit_by_bit() -> None:
    _, (first,) = pool_of(1)
    first.answered(0.1, 0.0)
    first.answered(0.5, 1.0)
    assert first.latency == 0.5
    first.answered(0.1, 1.0)
    assert first.latency == 0.5  # no time has passed
    first.answered(0.1, 1.0 + MEMORY_SECONDS)
    assert first.latency == pytest.approx(0.1 + 0.4 / 2.718, rel=0.01)
    assert first.expected_latency(1.0 + 3 * MEMORY_SECONDS) == pytest.approx(first.latency * 0.135, rel=0.01)


def test_of_two_the_one_that_is_quicker_until_it_has_much_to_do() -> None:
    pool, (quick, slow) = pool_of(2)
    timed(pool, quick, 0.1)
    timed(pool, slow, 0.35)
    balancer = PeakEwma(Random(1))
    assert set(chosen(balancer, pool)) == {"w0"}
    load(pool, 3)
    assert set(chosen(balancer, pool)) == {"w1"}


def test_who_is_unknown_gets_one_request_and_no_more_until_it_has_answered() -> None:
    pool, (known, new) = pool_of(2)
    timed(pool, known, 0.1)
    balancer = PeakEwma(Random(1))
    assert set(chosen(balancer, pool)) == {"w1"}
    pool.started(new, 0.0)
    assert set(chosen(balancer, pool)) == {"w0"}
    pool.finished(new, GOOD, 0.0, 0.05)
    assert set(chosen(balancer, pool)) == {"w1"}


@pytest.mark.parametrize("kind", [LeastLoaded, PeakEwma])
@pytest.mark.parametrize("outcome", [FAILED, GATEWAY, LOST])
def test_who_fails_at_once_is_not_taken_for_quick_or_idle(outcome: Outcome, kind: Callable[[Random], Balancer]) -> None:
    """A black hole: four workers take 50 ms, one says no in 1 ms. A 500 ejects nobody, so that they alone decide."""
    pool, upstreams = pool_of(5)
    balancer, served, now = kind(Random(1)), Counter[str](), 0.0
    for _ in range(5000):  # 100 a second
        now += 0.01
        upstream = balancer.choose(pool.candidates(now), now)
        served[upstream.id] += 1
        if upstream is upstreams[0]:
            timed(pool, upstream, 0.001, now, outcome)
        else:
            timed(pool, upstream, 0.05, now)
    assert served["w0"] <= 25, "half a percent: it is tried now and then"


def test_one_failure_is_forgiven() -> None:
    pool, upstreams = pool_of(4)
    for upstream in upstreams:
        timed(pool, upstream, 0.05)
    timed(pool, upstreams[0], 0.001, 0.0, FAILED)
    now = 10.0
    for upstream in upstreams[1:]:
        timed(pool, upstream, 0.05, now)
    assert chosen(PeakEwma(Random(1)), pool, now)["w0"] > 500


# -- by a key -------------------------------------------------------------------------------------------------------

KEYS = [b"key-%d" % i for i in range(4000)]


def owners(pool: Pool, balancer: Hashed | None = None, now: float = 0.0) -> dict[bytes, str]:
    """With nothing in flight."""
    balancer = balancer or Hashed(Random(1))
    return {key: balancer.choose(pool.candidates(now), now, key).id for key in KEYS}


def test_all_proxies_send_a_key_to_the_same_worker() -> None:
    assert owners(pool_of(8)[0], Hashed(Random(1))) == owners(pool_of(8)[0], Hashed(Random(2)))
    counted = Counter(owners(pool_of(8)[0]).values())
    assert len(counted) == 8
    assert max(counted.values()) < 1.3 * len(KEYS) / 8


def test_only_the_keys_of_who_leaves_move_and_only_to_who_joins() -> None:
    pool, balancer = pool_of(8)[0], Hashed(Random(1))
    before = owners(pool, balancer)
    pool.update((instance(i) for i in range(7)), 0.0)
    after = owners(pool, balancer)
    assert {before[key] for key in KEYS if before[key] != after[key]} == {"w7"}
    assert len({after[key] for key in KEYS if before[key] == "w7"}) == 7  # to all others, not to one
    pool.update((instance(i) for i in range(8)), 0.0)
    assert owners(pool, balancer) == before
    pool.update((instance(i) for i in range(9)), 0.0)
    more = owners(pool, balancer)
    assert {more[key] for key in KEYS if before[key] != more[key]} == {"w8"}


def test_who_is_left_out_for_a_while_gets_its_keys_back() -> None:
    pool, balancer = pool_of(4)[0], Hashed(Random(1))
    before = owners(pool, balancer)
    pool.busy(pool.upstreams[0], 5.0)
    meanwhile = owners(pool, balancer, 1.0)
    assert {before[key] for key in KEYS if before[key] != meanwhile[key]} == {"w0"}
    assert owners(pool, balancer, 5.0) == before
    again = {key: balancer.choose(pool.candidates(5.0, {"w1"}), 5.0, key).id for key in KEYS}  # another try
    assert {before[key] for key in KEYS if before[key] != again[key]} == {"w1"}


def test_keys_by_weight() -> None:
    pool = Pool()
    pool.update([replace(instance(i), weight=1 + 3 * (i == 0)) for i in range(5)], 0.0)
    counted = Counter(owners(pool).values())
    assert counted["w0"] == pytest.approx(len(KEYS) / 2, rel=0.25)


def test_a_key_in_great_demand_does_not_drown_its_worker() -> None:
    pool, upstreams = pool_of(10)
    balancer = Hashed(Random(1))
    for _ in range(200):
        pool.started(balancer.choose(pool.candidates(0.0), 0.0, b"the same"), 0.0)
    most = max(u.in_flight for u in upstreams)
    assert most <= 26  # 1.25 times the mean, rounded up
    owner = balancer.choose(pool_of(10)[0].candidates(0.0), 0.0, b"the same").id
    assert {u.id: u.in_flight for u in upstreams}[owner] == most


def test_without_a_key_the_less_loaded_of_two() -> None:
    pool, _ = pool_of(2)
    load(pool, 3, 2)
    assert set(chosen(Hashed(Random(1)), pool)) == {"w1"}
