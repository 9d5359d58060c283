"""Clients that hold a connection and do nothing, drip, or take no answer: nobody else notices, and no worker is held."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ..proxy.stage import until
from .fleet import HOST, Door, Fleet
from .uploads import UPLOADS, Load, images, plainly

MB = 1_000_000
ASK = b"GET /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(door: Door, connections: ExitStack, said: bytes = b"") -> socket.socket:
    client = connections.enter_context(socket.create_connection((HOST, door.port), timeout=20))
    client.sendall(said)
    return client


def answer(client: socket.socket) -> bytes:
    return client.recv(65536)


async def test_2000_idle_connections(fleet: Fleet, hub: int, connections: ExitStack) -> None:
    """Half of them were used once, half never; all that were used are as good as new afterwards."""
    door, _ = fleet.cluster(3, hub)
    before = door.memory()
    used = [connected(door, connections, ASK) for _ in range(1000)]
    assert all(answer(client).startswith(b"HTTP/1.1 200 ") for client in used)
    for _ in range(1000):
        connected(door, connections)
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert load.failed == []
    assert len(load.said) == UPLOADS
    assert door.memory() - before < 40 * MB
    for client in used:
        client.sendall(ASK)
    assert all(answer(client).startswith(b"HTTP/1.1 200 ") for client in used)


async def test_uploads_that_drip_a_byte_a_second(fleet: Fleet, hub: int) -> None:
    """They are answered in the end; until they are whole they hold no worker, and others go before them."""
    door, workers = fleet.cluster(3, hub)
    image = images(1, (2,))[0]  # ten bytes, of which seven come at once

    async def drips() -> bytes:
        reader, writer = await asyncio.open_connection(HOST, door.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n" + image.data[:7])
        for at in range(7, 10):
            await asyncio.sleep(1)  # a slow line is what this is about
            writer.write(image.data[at : at + 1])
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(1000)
        writer.close()
        return head + body

    dripping = [asyncio.create_task(drips()) for _ in range(40)]
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert not any(drip.done() for drip in dripping)
    assert load.failed == []
    assert sum(worker.begun() for worker in workers) == len(load.said) == UPLOADS
    for said in await asyncio.gather(*dripping):
        assert said.startswith(b"HTTP/1.1 200 ")
        assert image.digest.encode() in said


async def test_heads_that_drip_are_given_up(fleet: Fleet, hub: int) -> None:
    door, _ = fleet.cluster(1, hub, "--head-seconds=1")

    async def drips() -> bytes:
        reader, writer = await asyncio.open_connection(HOST, door.port)
        answered = asyncio.ensure_future(reader.read())
        for byte in b"POST / HTTP/1.1\r\n" * 10:
            writer.write(bytes([byte]))
            if (await asyncio.wait({answered}, timeout=0.25))[0]:
                break
        writer.close()
        return await answered

    dripping = [asyncio.create_task(drips()) for _ in range(40)]
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert load.failed == []
    assert len(load.said) == UPLOADS
    async with asyncio.timeout(10):
        for said in await asyncio.gather(*dripping):
            assert said == b"" or said.startswith(b"HTTP/1.1 408 ")


async def test_clients_that_never_read_their_answer(fleet: Fleet, hub: int, connections: ExitStack) -> None:
    """600 MB are owed to twenty who take nothing. They are not kept in memory, and not for ever; no worker is blamed."""
    door, workers = fleet.cluster(3, hub, "--stall-seconds=3")
    before = door.memory()
    for _ in range(20):
        connected(door, connections, b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: in_flight(door) == 20)
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert load.failed == []
    assert len(load.said) == UPLOADS
    assert in_flight(door) == 20
    assert door.most_memory() - before < 40 * MB
    await asyncio.to_thread(until_none, door)
    assert all(row["available"] for row in door.workers())
    async with plainly(door.url) as send, Load(send, 60) as load:
        pass
    assert load.failed == []
    assert set(load.workers()) == {worker.id for worker in workers}


def in_flight(door: Door) -> int:
    return sum(row["in_flight"] for row in door.workers())


def until_none(door: Door) -> None:
    asyncio.run(until(lambda: in_flight(door) == 0, 15))
