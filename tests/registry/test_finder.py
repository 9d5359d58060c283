"""A registry that says where it is, and who looks for it: over loopback's multicast. Others may be heard there as well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

import fairway
from fairway.registry.beacon import KIND, Beacon
from fairway.registry.finder import MOST, Finder, find_registries
from fairway.registry.instance import Address
from fairway.registry.lan import Lan, Service
from fairway.registry.ports import free_port
from fairway.registry.txt import pack

from ..conformance.mdns import multicast_missing

LOOPBACK = ("127.0.0.1",)
PATIENCE = 20.0

needs_multicast = pytest.mark.skipif(bool(missing := multicast_missing()), reason=str(missing))


@asynccontextmanager
async def beacon(port: int, tls: bool = False) -> AsyncIterator[Beacon]:
    beacon = Beacon(LOOPBACK)
    await beacon.start(Address("127.0.0.1", port), tls)
    try:
        yield beacon
    finally:
        await beacon.close()


@asynccontextmanager
async def finder(tls: bool | None = None) -> AsyncIterator[Finder]:
    finder = Finder(LOOPBACK, tls)
    await finder.start()
    try:
        yield finder
    finally:
        await finder.close()


async def until(condition: Callable[[], bool]) -> None:
    """What it waits for comes over the network; there is nothing to be woken by."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@needs_multicast
async def test_a_registry_is_found_and_forgotten_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mine = Address("127.0.0.1", free_port())
    async with finder() as early:
        assert mine not in early.addresses()
        async with beacon(mine.port):
            await until(lambda: mine in early.addresses())
            async with finder() as late:
                await until(lambda: mine in late.addresses())
                assert await late.wait(1.0)
            assert mine in await find_registries(PATIENCE, LOOPBACK)
        await until(lambda: mine not in early.addresses())
    lines = [r.getMessage() for r in caplog.records if str(mine) in r.getMessage() and r.name.endswith("finder")]
    assert len(lines) == 3, "one line for each of the three that looked"


@needs_multicast
async def test_only_those_that_speak_as_we_do_are_told() -> None:
    plain, secure = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
    async with beacon(plain.port), beacon(secure.port, tls=True), finder(False) as one, finder(True) as other:
        async with finder() as both:
            await until(lambda: {plain, secure} <= set(both.addresses()))
        await until(lambda: plain in one.addresses() and secure in other.addresses())
        assert secure not in one.addresses()
        assert plain not in other.addresses()


@needs_multicast
async def test_what_it_says_of_itself() -> None:
    port = free_port()
    asking = AsyncZeroconf(list(LOOPBACK), ip_version=IPVersion.V4Only)
    try:
        async with beacon(port, tls=True):
            info = AsyncServiceInfo(KIND, f"registry-127-0-0-1-{port}.{KIND}")
            assert await info.async_request(asking.zeroconf, 5000)
            assert (info.parsed_addresses(), info.port) == (["127.0.0.1"], port)
            said = {"txtvers": "1", "version": fairway.__version__, "proto": "1", "tls": "1"}
            assert info.decoded_properties == said
    finally:
        await asking.async_close()


@needs_multicast
async def test_what_strangers_say_is_bounded_and_on_the_network_only() -> None:
    txt = pack({"txtvers": b"1", "proto": b"1"})
    port = free_port()
    lan = Lan(KIND, LOOPBACK, beat_seconds=3.0, ttl_seconds=10)
    await lan.start()
    try:
        async with finder() as looking:
            await lan.say(
                [
                    Service("elsewhere", ("192.0.2.9",), port, txt),
                    Service("future", ("127.0.0.1",), port, pack({"proto": b"2"})),
                    Service("garbage", ("127.0.0.1",), port, b"\xff\x00"),
                    Service("both", ("192.0.2.9", "127.0.0.3"), port, txt),
                ]
            )
            await until(lambda: Address("127.0.0.3", port) in looking.addresses())
            assert {a.host for a in looking.addresses() if a.port == port} == {"127.0.0.3"}
            await lan.say([Service(f"flood-{number}", ("127.0.0.1",), 20_000 + number, txt) for number in range(200)])
            await until(lambda: len(looking.addresses()) >= 60)
            await lan.say([Service("last", ("127.0.0.3",), port, txt)])
            assert len(looking.addresses()) <= MOST
    finally:
        await lan.close()


async def test_where_there_is_no_such_interface_nobody_is_found_and_nothing_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await find_registries(0.2, ["127.0.0.99"]) == []
    assert not caplog.records


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2001:db8::1", "localhost", "example.org"])
async def test_what_nobody_else_reaches_is_not_announced(host: str, caplog: pytest.LogCaptureFixture) -> None:
    beacon = Beacon()
    before = asyncio.all_tasks()
    await beacon.start(Address(host, 12481))
    assert asyncio.all_tasks() == before, "it does not even listen"
    await beacon.close()
    assert "is not announced" in caplog.text


async def test_who_never_started_may_be_closed() -> None:
    await Beacon().close()
    await Finder().close()
