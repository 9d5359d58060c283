"""Addresses from a proxy: kept for their time, used in turn, passed by when they fail."""

from __future__ import annotations

import pytest

from fairway.client.addresses import AddressCache
from fairway.registry.instance import Address, Instance
from fairway.registry.lookup import Lookup

A, B, C = (f"http://127.0.0.1:{port}/" for port in (9001, 9002, 9003))


def found(*ports: int, ttl: float = 5.0) -> Lookup:
    return Lookup("classify", tuple(Instance(f"w{p}", "classify", Address("127.0.0.1", p)) for p in ports), ttl)


def filled(*ports: int, now: float = 100.0) -> AddressCache:
    cache = AddressCache()
    cache.fill(found(*ports), now)
    return cache


def test_kept_for_as_long_as_the_proxy_said() -> None:
    cache = AddressCache()
    assert not cache.fresh(0.0)
    cache.fill(found(9001, ttl=5.0), 100.0)
    assert cache.fresh(100.0)
    assert cache.fresh(104.9)
    assert not cache.fresh(105.0)


def test_in_turn_beginning_with_the_one_named_first() -> None:
    cache = filled(9002, 9001, 9003)
    assert [cache.next(100.0) for _ in range(6)] == [B, A, C, B, A, C]


def test_those_to_avoid_are_left_out_while_there_are_others() -> None:
    cache = filled(9001, 9002, 9003)
    assert [cache.next(100.0, {A}) for _ in range(4)] == [B, C, B, C]
    assert {cache.next(100.0, {A, B, C}) for _ in range(3)} == {A, B, C}


def test_who_failed_rests_also_when_named_again() -> None:
    cache = filled(9001, 9002)
    cache.failed(A, 100.0, 5.0)
    assert [cache.next(101.0), cache.next(101.0)] == [B, B]
    cache.fill(found(9001, 9002), 102.0)
    assert [cache.next(104.9), cache.next(104.9)] == [B, B]
    assert sorted([cache.next(105.0), cache.next(105.0)]) == [A, B]


def test_who_rests_is_better_than_who_is_to_be_avoided_and_anyone_better_than_nobody() -> None:
    cache = filled(9001, 9002)
    cache.failed(A, 100.0, 5.0)
    assert cache.next(101.0, {B}) == A
    cache.failed(B, 101.0, 5.0)
    assert {cache.next(101.0) for _ in range(2)} == {A, B}


def test_when_all_have_failed_the_proxy_may_know_others_but_is_not_asked_at_every_turn() -> None:
    cache = filled(9001, 9002)
    cache.failed(A, 100.0, 5.0)
    assert cache.fresh(104.0)
    cache.failed(B, 100.0, 5.0)
    assert cache.fresh(100.2)  # just asked
    assert not cache.fresh(100.3)
    cache.fill(found(9001, 9002), 100.3)
    assert cache.fresh(100.5)
    assert not cache.fresh(100.6)
    assert cache.fresh(105.0)  # rested


@pytest.mark.parametrize(("times", "seconds"), [(1, 5.0), (2, 10.0), (3, 20.0), (7, 300.0), (5000, 300.0)])
def test_who_fails_again_and_again_rests_longer(times: int, seconds: float) -> None:
    cache, now = filled(9001), 100.0
    for _ in range(times):
        now += 1000.0
        cache.failed(A, now, 5.0)
    assert cache.resting(A, now + seconds - 0.1)
    assert not cache.resting(A, now + seconds)
    cache.answered(A)
    assert not cache.resting(A, now)
    cache.failed(A, now, 5.0)
    assert not cache.resting(A, now + 5.0)  # it counts from the beginning


def test_one_crash_with_many_in_flight_is_one_crash() -> None:
    cache = filled(9001)
    for _ in range(16):
        cache.failed(A, 100.0, 5.0)
    assert not cache.resting(A, 105.0)


def test_who_has_too_much_to_do_rests_as_long_as_it_said_and_is_not_ill() -> None:
    cache = filled(9001)
    for second in range(10):
        cache.failed(A, 100.0 + second, 3.0, ill=False)
    assert cache.resting(A, 111.9)
    assert not cache.resting(A, 112.0)
    cache.failed(A, 120.0, 5.0)
    assert not cache.resting(A, 125.0)


def test_nothing_is_remembered_for_ever() -> None:
    cache = filled(9001)
    cache.failed(A, 100.0, 5.0)
    cache.fill(found(9002), 1000.0)
    assert cache._resting == {}


def test_the_last_word_of_a_proxy_that_is_away_holds_on() -> None:
    cache = filled(9001)
    assert not cache.fresh(105.0)
    cache.keep(106.0)
    assert cache.fresh(105.9)
    assert not cache.fresh(106.0)


def test_a_fresh_answer_replaces_the_old_one() -> None:
    cache = filled(9001, 9002)
    cache.next(100.0)
    cache.fill(found(9003), 104.0)
    assert cache.fresh(108.9)
    assert [cache.next(105.0), cache.next(105.0)] == [C, C]


def test_an_empty_answer_is_not_fresh() -> None:
    assert not filled().fresh(100.0)


def test_ipv6_addresses_become_urls() -> None:
    cache = AddressCache()
    cache.fill(Lookup("classify", (Instance("w", "classify", Address("::1", 9001)),), 5.0), 0.0)
    assert cache.next(0.0) == "http://[::1]:9001/"


def test_repr_is_a_dashboard_line() -> None:
    assert repr(filled(9001, 9002)) == "<AddressCache 2 workers>"
