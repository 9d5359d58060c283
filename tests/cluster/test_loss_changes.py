"""What is done to a cluster on purpose, under load, costs nobody an upload: by the proxy alone, and by the library."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from fairway.registry.ports import free_port

from .fleet import HOST, Door, Fleet, Worker
from .uploads import UPLOADS, Load, by_library, images, plainly

RESTED = 0.02  # seconds between two uploads of each lane: what is started meanwhile needs a processor, too
DRAIN = 0.5  # seconds for which a worker that leaves serves on, as workers.py has it
TTL = f"--address-ttl-seconds={DRAIN / 2}"  # and addresses are kept for less


@asynccontextmanager
async def loads(door: Door) -> AsyncIterator[list[Load]]:
    """In all manners at once, until the end of what happens within, and 500 in each at least."""
    async with AsyncExitStack() as stack:
        ways = (plainly(door.url), by_library(door.url, "address"), by_library(door.url, "redirect"))
        sends = [await stack.enter_async_context(way) for way in ways]
        running = [await stack.enter_async_context(Load(send, concurrency=6, pause=RESTED)) for send in sends]
        for load in running:
            load.more()
        await asyncio.gather(*(load.answered(50) for load in running))
        yield running
        await asyncio.gather(*(load.answered(50) for load in running))
        for load in running:
            load.enough()


def nothing_is_lost(running: list[Load]) -> None:
    assert [load.failed for load in running] == [[], [], []]
    assert all(len(load.said) >= UPLOADS for load in running)


async def leaves(worker: Worker) -> None:
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.running.ended, 30) == 0


async def test_a_rolling_restart(fleet: Fleet, hub: int) -> None:
    """One after another is asked to go, goes, and is started again."""
    door, workers = fleet.cluster(3, hub, TTL)
    async with loads(door) as running:
        for worker in workers:
            await leaves(worker)
            (new,) = await asyncio.to_thread(fleet.workers, 1, hub, door.service)
            await asyncio.gather(*(load.answered(20) for load in running))
            assert new.id not in {old.id for old in workers}
    nothing_is_lost(running)
    assert len(running[0].workers()) == 6


async def test_all_workers_are_replaced_by_new_ones(fleet: Fleet, hub: int) -> None:
    door, old = fleet.cluster(3, hub, TTL, "--slow-start-seconds=0")
    async with loads(door) as running:
        new = await asyncio.to_thread(fleet.workers, 3, hub, door.service)
        await asyncio.gather(*map(leaves, old))
        at = len(running[0].said)
        await asyncio.gather(*(load.answered(60) for load in running))
    nothing_is_lost(running)
    assert set(running[0].workers(after=at)) == {worker.id for worker in new}


async def test_all_workers_are_replaced_by_new_ones_on_the_same_ports(fleet: Fleet, hub: int) -> None:
    """Each goes when its heir cannot be there yet: what the proxy holds for the old one is of no use with the new."""
    door, workers = fleet.cluster(3, hub, TTL)
    async with loads(door) as running:
        for worker in workers:
            await leaves(worker)
            await asyncio.to_thread(fleet.workers, 1, hub, door.service, f"--port={worker.port}")
    nothing_is_lost(running)


async def test_the_registry_is_killed_and_started_again(fleet: Fleet) -> None:
    """It remembers nothing; those who served go on doing so, and say so again."""
    registry, port = fleet.registry()
    door, workers = fleet.cluster(3, port, TTL)
    async with loads(door) as running:
        registry.send(signal.SIGKILL)
        await asyncio.to_thread(registry.ended, 10)
        at = len(running[0].said)
        await asyncio.gather(*(load.answered(100) for load in running))
        assert set(running[0].workers(after=at)) == {worker.id for worker in workers}
        registry, _ = await asyncio.to_thread(fleet.registry, port=port)
        # All are known to it again when it can tell a proxy that has just begun.
        fresh = await asyncio.to_thread(fleet.proxy, port, door.service)
        await asyncio.to_thread(fresh.wait_for, [worker.port for worker in workers], 30)
        await asyncio.to_thread(door.wait_for, [worker.port for worker in workers])
    nothing_is_lost(running)


async def test_the_registry_is_away_while_a_worker_goes_and_another_comes(fleet: Fleet) -> None:
    """Nobody can say so; the proxy sees it by what it is answered."""
    registry, port = fleet.registry()
    door, workers = fleet.cluster(3, port, TTL)
    async with loads(door) as running:
        registry.send(signal.SIGKILL)
        await asyncio.to_thread(registry.ended, 10)
        await leaves(workers[0])
        await asyncio.gather(*(load.answered(60) for load in running))
        await asyncio.to_thread(fleet.registry, port=port)
        (new,) = await asyncio.to_thread(fleet.workers, 1, port, door.service)
        await asyncio.to_thread(door.wait_for, [new.port, *(worker.port for worker in workers[1:])], 30)
        at = len(running[0].said)
        await asyncio.gather(*(load.answered(60) for load in running))
    nothing_is_lost(running)
    assert new.id in running[0].workers(after=at)


@pytest.mark.parametrize("size", [60_000, 3_000_000])
async def test_a_proxy_that_is_asked_to_go_finishes_what_was_begun(fleet: Fleet, hub: int, size: int) -> None:
    """Half of each upload is there when it is asked; then comes the other half."""
    door, _ = fleet.cluster(3, hub)
    halves = []
    for image in images(12, (size,)):
        reader, writer = await asyncio.open_connection(HOST, door.port)
        head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len(image.data)}\r\n\r\n".encode()
        writer.write(head + image.data[: size // 2])
        await writer.drain()
        halves.append((image, reader, writer))
    async with plainly(door.url) as send:
        assert (await send(images(1)[0])).right  # so what came before was read, too
    door.running.send(signal.SIGTERM)
    await asyncio.to_thread(door.running.line, "draining: 12 requests in flight", 10)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, door.port)
    for image, reader, writer in halves:
        writer.write(image.data[size // 2 :])
        async with asyncio.timeout(20):
            said = await reader.read()  # to its end: nothing more is taken on this connection
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in said.lower()
        assert image.digest.encode() in said
        writer.close()
    assert await asyncio.to_thread(door.running.ended, 20) == 0


async def test_a_proxy_restarted_under_load_costs_the_library_nothing(fleet: Fleet, hub: int) -> None:
    """Whoever only knows this proxy waits for it a moment; who uploads by address hardly notices."""
    port = free_port()
    service = fleet.service()
    workers = fleet.workers(3, hub, service)
    door = fleet.proxy(hub, service, port=port)
    door.wait_for([worker.port for worker in workers])
    async with AsyncExitStack() as stack:
        sends = [
            await stack.enter_async_context(by_library(door.url, via)) for via in ("address", "forward", "redirect")
        ]
        running = [await stack.enter_async_context(Load(send, concurrency=6, pause=RESTED)) for send in sends]
        for load in running:
            load.more()
        await asyncio.gather(*(load.answered(100) for load in running))
        door.running.send(signal.SIGTERM)
        assert await asyncio.to_thread(door.running.ended, 20) == 0
        await asyncio.to_thread(fleet.proxy, hub, service, port=port)
        await asyncio.gather(*(load.answered(100) for load in running))
        for load in running:
            load.enough()
    nothing_is_lost(running)


async def test_of_a_proxy_that_goes_an_ordinary_client_loses_only_what_it_sent_too_late(fleet: Fleet, hub: int) -> None:
    """Every upload whose head was read is answered, rightly; what could not be sent is refused, not broken."""
    door, _ = fleet.cluster(3, hub)
    async with plainly(door.url) as send, Load(send) as load:
        await load.answered(200)
        door.running.send(signal.SIGTERM)
    assert await asyncio.to_thread(door.running.ended, 20) == 0
    for said in load.failed:
        assert said.status == 0
        assert aiohttp.ClientConnectorError.__name__ in said.text
    assert sum(said.right for said in load.said) >= 200
