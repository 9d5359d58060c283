"""Choosing over live lists: whoever waits is told, in order; who joins a cluster starts slowly, who was there does not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from fairway.client.pool import Outcome
from fairway.client.resolver import Resolver
from fairway.registry.config import RegistrySettings
from fairway.registry.errors import ConfigurationError
from fairway.registry.instance import Address, Instance
from fairway.registry.link import Link
from fairway.registry.server import Hub

from ..proxy.stage import HOST, until

S = "classify"
GOOD, LOST = Outcome.ANSWERED, Outcome.CONNECTION


def addresses(count: int) -> list[Address]:
    return [Address(HOST, 9001 + i) for i in range(count)]


async def fixed(count: int, **options: Any) -> Resolver:
    resolver = Resolver(static=addresses(count), **options)
    await resolver.start()
    return resolver


@asynccontextmanager
async def listening(count: int) -> AsyncIterator[list[Address]]:
    """What a registry dials: sockets that listen and say nothing."""
    servers = [await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0) for _ in range(count)]
    try:
        yield [Address(HOST, server.sockets[0].getsockname()[1]) for server in servers]
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()


# -- choosing -------------------------------------------------------------------------------------------------------


async def test_everybody_in_turn() -> None:
    resolver = await fixed(3)
    served = Counter(found[1].id for _ in range(30) if (found := resolver.choose_now(S)))
    assert served == {"static-0": 10, "static-1": 10, "static-2": 10}
    assert resolver.choose_now("cars") is None
    assert resolver.choose_now(S, {"static-0", "static-1", "static-2"}) is None
    assert (resolver.has(S), resolver.has("cars")) == (True, False)


async def test_tries_elsewhere_do_not_decide_who_is_asked_first() -> None:
    """One of two is busy and says so to all: it is the first to be asked every other time, not every time."""
    resolver, first = await fixed(2), Counter[str]()
    for _ in range(100):
        found = resolver.choose_now(S)
        assert found is not None
        first[found[1].id] += 1
        if found[1].id == "static-0":
            again = resolver.choose_now(S, {"static-0"})
            assert again is not None
            assert again[1].id == "static-1"
    assert first == {"static-0": 50, "static-1": 50}


@pytest.mark.parametrize("balance", ["random", "hash", "hash:"])
async def test_a_wrong_word_for_balancing_is_said_at_once(balance: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        Resolver(static=addresses(1), balance=balance)


async def test_by_a_key() -> None:
    resolver = await fixed(8, balance="hash:X-Album")
    assert resolver.key_header == b"x-album"
    for key in (b"a", b"b", b"c"):
        chosen = {found[1].id for _ in range(20) if (found := resolver.choose_now(S, (), key))}
        assert len(chosen) == 1
        assert resolver.some(S, 3, key)[0].id in chosen
    assert (await fixed(1)).key_header == b""


@pytest.mark.parametrize(
    ("count", "wanted", "expected"), [(1, 3, 1), (2, 3, 2), (3, 3, 3), (9, 3, 3), (9, 1, 1), (9, 99, 9)]
)
async def test_some_different_ones_the_next_in_turn_first(count: int, wanted: int, expected: int) -> None:
    resolver, first = await fixed(count), Counter[str]()
    others = Counter[str]()
    for _ in range(90):
        found = [instance.id for instance in resolver.some(S, wanted)]
        assert len(found) == len(set(found)) == expected
        first[found[0]] += 1
        others.update(found[1:])
    assert set(first.values()) == {90 // count}
    assert len(others) == (count if expected > 1 else 0)
    assert resolver.some("cars", 3) == []


async def test_beside_the_only_good_one_those_in_doubt() -> None:
    resolver = await fixed(2)
    pool = resolver.services()[S]
    for _ in range(3):
        pool.started(pool.upstreams[0], monotonic())
        pool.finished(pool.upstreams[0], LOST, monotonic())
    assert [instance.id for instance in resolver.some(S, 3)] == ["static-1", "static-0"]


# -- waiting --------------------------------------------------------------------------------------------------------


async def test_who_waits_for_room_gets_it_in_the_order_of_coming() -> None:
    resolver, served = await fixed(2, worker_limit=1), list[int]()
    pool = resolver.services()[S]
    for upstream in pool.upstreams:
        pool.started(upstream, 0.0)

    async def request(number: int) -> None:
        while (found := await resolver.choose(S, (), 10.0)) is None:
            pass
        pool, upstream = found
        pool.started(upstream, monotonic())
        served.append(number)
        await asyncio.sleep(0)
        pool.finished(upstream, GOOD, monotonic())

    waiting = [asyncio.create_task(request(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert await resolver.available(S, 0.0) is False
    began = monotonic()
    for upstream in pool.upstreams:
        pool.finished(upstream, GOOD, 0.0)
    await asyncio.gather(*waiting)
    assert served == list(range(20))
    assert monotonic() - began < 2.0, "each was called, none found out by itself"


async def test_room_at_one_that_was_tried_is_for_the_next_in_line() -> None:
    resolver = await fixed(2, worker_limit=1)
    pool = resolver.services()[S]
    for upstream in pool.upstreams:
        pool.started(upstream, 0.0)
    retry = asyncio.create_task(resolver.choose(S, {"static-0"}, 5.0))
    fresh = asyncio.create_task(resolver.choose(S, (), 5.0))
    await asyncio.sleep(0)
    pool.finished(pool.upstreams[0], GOOD, 0.0)
    assert await fresh == (pool, pool.upstreams[0])
    assert not retry.done()
    pool.finished(pool.upstreams[1], GOOD, 0.0)
    assert await retry == (pool, pool.upstreams[1])


async def test_a_call_that_comes_too_late_is_passed_on() -> None:
    resolver = await fixed(1, worker_limit=1)
    pool = resolver.services()[S]
    pool.started(pool.upstreams[0], 0.0)
    gone, next_ = (asyncio.create_task(resolver.choose(S, (), 5.0)) for _ in range(2))
    await asyncio.sleep(0)
    pool.finished(pool.upstreams[0], GOOD, 0.0)
    gone.cancel()  # its client hangs up in the same moment
    async with asyncio.timeout(1):
        assert await next_ is not None


async def test_nobody_waits_for_longer_than_was_said() -> None:
    resolver = await fixed(1, worker_limit=1)
    pool = resolver.services()[S]
    pool.started(pool.upstreams[0], 0.0)
    began = monotonic()
    assert await asyncio.gather(*(resolver.available(S, 0.1) for _ in range(50))) == [False] * 50
    assert await resolver.available("cars", 0.1) is False
    assert 0.2 <= monotonic() - began < 1.0
    assert repr(resolver._lines) == "<Lines {}>", "nothing is left of services that strangers name"


async def test_the_end_of_an_ejection_is_noticed_by_who_waits() -> None:
    resolver = await fixed(2, worker_limit=1)
    pool = resolver.services()[S]
    first, second = pool.upstreams
    now = monotonic()
    for _ in range(3):
        pool.started(first, now)
        pool.finished(first, LOST, now - 4.8)  # its five seconds are over in a moment
    pool.started(second, now)
    assert not resolver.has(S)
    assert await resolver.available(S, 5.0)
    assert monotonic() - now < 1.0


# -- following a registry -------------------------------------------------------------------------------------------


async def test_who_joins_starts_slowly_and_who_is_met_does_not() -> None:
    hub = Hub(RegistrySettings(port=0))
    await hub.start()
    link = Link(Address(HOST, hub.port))
    await link.start(5)
    async with listening(3) as (one, two, three):
        await link.announce(Instance("a", S, one))
        await link.announce(Instance("b", S, two, weight=4))
        resolver = Resolver(Address(HOST, hub.port), slow_start_seconds=1000.0)
        await resolver.start()
        assert await resolver.available(S, 5.0)
        await until(lambda: len(resolver.services()[S].upstreams) == 2)
        resolver.has(S)
        assert [u.share for u in resolver.services()[S].upstreams] == [1, 4]
        await link.announce(Instance("c", S, three, weight=4))
        await until(lambda: len(resolver.services()[S].upstreams) == 3)
        resolver.has(S)
        assert [round(u.share, 2) for u in resolver.services()[S].upstreams] == [1, 4, 0.4]
        served = Counter(found[1].id for _ in range(540) if (found := resolver.choose_now(S)))
        assert served == {"a": pytest.approx(100, abs=3), "b": pytest.approx(400, abs=3), "c": pytest.approx(40, abs=3)}
        await resolver.close()
    await link.close()
    await hub.close()


async def test_a_list_that_comes_in_parts_is_of_those_who_were_there() -> None:
    """The registry's words, a few at a time."""
    words = asyncio.Queue[list[Any]]()

    async def registry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'["helo", "127.0.0.1:5000"]\n')
        while word := await words.get():
            writer.write(json.dumps(word).encode() + b"\n")
        writer.close()

    server = await asyncio.start_server(registry, HOST, 0)
    resolver = Resolver(f"{HOST}:{server.sockets[0].getsockname()[1]}", slow_start_seconds=1000.0)
    await resolver.start()

    async def shares_after(count: int, *said: list[Any]) -> list[float]:
        for word in said:
            words.put_nowait(word)
        await until(lambda: S in resolver.services() and len(resolver.services()[S].upstreams) == count)
        resolver.has(S)
        return [upstream.share for upstream in resolver.services()[S].upstreams]

    def register(id: str) -> list[Any]:
        return ["register", id, {"role": S, "host": HOST, "port": 9000, "id": id}]

    assert await shares_after(1, register("a")) == [1]
    assert await shares_after(3, register("b"), register("c"), ["synced"]) == [1, 1, 1]
    assert await shares_after(4, register("d")) == [1, 1, 1, 0.1]
    words.put_nowait([])
    await resolver.close()
    server.close()
    await server.wait_closed()


async def test_a_worker_that_appears_is_told_to_all_who_wait() -> None:
    hub = Hub(RegistrySettings(port=0))
    await hub.start()
    link, resolver = Link(Address(HOST, hub.port)), Resolver(Address(HOST, hub.port))
    await link.start(5)
    await resolver.start()
    waiting = [asyncio.create_task(resolver.choose(S, (), 10.0)) for _ in range(3)]
    await asyncio.sleep(0)
    async with listening(1) as (one,):
        await link.announce(Instance("a", S, one))
        assert [found and found[1].id for found in await asyncio.gather(*waiting)] == ["a", "a", "a"]
        await resolver.close()
    await link.close()
    await hub.close()
