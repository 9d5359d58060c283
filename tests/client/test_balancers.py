"""Everybody in turn, whoever comes and goes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fairway.client.balancers import RoundRobin
from fairway.client.pool import Upstream
from fairway.registry.instance import Address, Instance


def upstreams(*ids: str) -> list[Upstream]:
    return [Upstream(Instance(id, "classify", Address("127.0.0.1", 9001))) for id in ids]


def turns(balancer: RoundRobin, candidates: list[Upstream], count: int) -> str:
    return "".join(balancer.choose(candidates).instance.id for _ in range(count))


def test_each_in_turn_whatever_the_order_of_the_list() -> None:
    balancer = RoundRobin(random.Random(1))
    candidates = upstreams("c", "a", "d", "b")
    order = turns(balancer, candidates, 12)
    assert order[:4] in ("abcd", "bcda", "cdab", "dabc")
    assert order == order[:4] * 3
    first = balancer.choose(candidates[::-1]).instance.id
    assert first == order[0]


def test_it_begins_at_random_so_that_many_proxies_do_not_begin_alike() -> None:
    begins = Counter(turns(RoundRobin(random.Random(seed)), upstreams("a", "b", "c", "d"), 1) for seed in range(200))
    assert set(begins) == set("abcd")
    assert min(begins.values()) > 25  # 50 expected; the seeds are fixed, so this holds for good
    assert turns(RoundRobin(random.Random(7)), upstreams("a", "b", "c"), 9) == turns(
        RoundRobin(random.Random(7)), upstreams("a", "b", "c"), 9
    )


@pytest.mark.parametrize(
    ("last", "now_there", "next_one"),
    [
        ("b", "acd", "c"),  # the one just served left: the turn goes on after it
        ("b", "ab", "a"),  # the next one left
        ("b", "abbc", "c"),
        ("d", "abc", "a"),
        ("a", "ab", "b"),
        ("b", "a", "a"),
    ],
)
def test_the_turn_follows_the_last_one_served(last: str, now_there: str, next_one: str) -> None:
    balancer = RoundRobin(random.Random(1))
    balancer.choose(upstreams(last))
    assert balancer.choose(upstreams(*sorted(set(now_there)))).instance.id == next_one


def test_fair_while_one_worker_comes_and_goes() -> None:
    balancer, served = RoundRobin(random.Random(1)), Counter[str]()
    with_it, without = upstreams("a", "b", "c", "x"), upstreams("a", "b", "c")
    for step in range(1200):
        served[balancer.choose(with_it if step // 5 % 2 else without).instance.id] += 1
    assert max(served[id] for id in "abc") - min(served[id] for id in "abc") <= 0.1 * 1200
    assert 100 < served["x"] <= 200  # its share of the half of the time that it was there: a quarter of 600
