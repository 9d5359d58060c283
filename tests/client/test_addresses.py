"""Addresses from a proxy: kept for their time, used in turn, forgotten when they do not answer."""

from __future__ import annotations

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
    assert [cache.next() for _ in range(6)] == [B, A, C, B, A, C]


def test_those_to_avoid_are_left_out_while_there_are_others() -> None:
    cache = filled(9001, 9002, 9003)
    assert [cache.next({A}) for _ in range(4)] == [B, C, B, C]
    assert cache.next({A, B, C}) in (A, B, C)


def test_forgotten_until_named_again() -> None:
    cache = filled(9001, 9002)
    cache.forget(A)
    cache.forget(A)
    assert [cache.next(), cache.next()] == [B, B]
    cache.forget(B)
    assert not cache.fresh(100.0)  # nobody left: time to ask, whatever the clock says
    cache.fill(found(9001, 9002), 101.0)
    assert cache.next() == A


def test_a_fresh_answer_replaces_the_old_one() -> None:
    cache = filled(9001, 9002)
    cache.next()
    cache.fill(found(9003), 104.0)
    assert cache.fresh(108.9)
    assert [cache.next(), cache.next()] == [C, C]


def test_an_empty_answer_is_not_fresh() -> None:
    assert not filled().fresh(100.0)


def test_ipv6_addresses_become_urls() -> None:
    cache = AddressCache()
    cache.fill(Lookup("classify", (Instance("w", "classify", Address("::1", 9001)),), 5.0), 0.0)
    assert cache.next() == "http://[::1]:9001/"


def test_repr_is_a_dashboard_line() -> None:
    assert repr(filled(9001, 9002)) == "<AddressCache 2 workers>"
