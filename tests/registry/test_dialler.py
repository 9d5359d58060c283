"""Dialling back: addresses that swallow connections, workers that die behind a relay, faults of our own."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from fairway.registry.changes import Dial
from fairway.registry.dialler import Dialler
from fairway.registry.instance import Address
from fairway.registry.ports import free_port
from fairway.registry.wire import Accepted, Free, Hello, Register, Rejected, Synced

from .peers import PATIENCE, Peer, connected, greeted, listening, row, running_hub


async def test_addresses_that_swallow_connections_keep_nobody_else_waiting() -> None:
    async with (
        running_hub(dial_back=True) as hub,
        listening() as alive,
        greeted(hub.port, Hello(services=())) as worker,
    ):
        with socket.socket() as hole, socket.socket() as first:
            hole.bind(("127.0.0.2", 0))
            hole.listen(0)
            first.connect(hole.getsockname())  # its queue is full now: further connections get no answer
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port, local_addr=("127.0.0.2", 0))
            try:
                vandal = Peer(reader, writer)
                vandal.say(Hello(services=()))
                vandal.say(*(row(f"A{n}", hole.getsockname()[1]) for n in range(1000)))
                assert isinstance(await vandal.until(lambda message: isinstance(message, Rejected)), Rejected)
                worker.say(row("B", alive))
                assert await worker.next() == Accepted("B")
            finally:
                writer.transport.abort()


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_worker_that_dies_behind_its_relay_is_gone_and_back_when_it_is(
    hangs_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """thalassa #12, its other half: the relay named it while it lived, and stays. Noticed at once, or by its turn."""
    monkeypatch.setattr("fairway.registry.dialler.REMEMBERED_SECONDS", 0)
    if not hangs_up:
        monkeypatch.setattr("fairway.registry.hearsay.AGAIN_SECONDS", 0.5)
    async with (
        running_hub(dial_back=True) as hub,
        greeted(hub.port) as watcher,
        connected(hub.port) as relay,
    ):
        async with connected(hub.port) as worker:
            async with listening() as port:
                relay.say(row("A", port), Synced())
                heard = await watcher.next()
                assert isinstance(heard, Register)
                if hangs_up:
                    worker.say(row("A", port), Synced())
                    await worker.dump()
                    assert hub.catalog.speakers("A") == set(hub.peers) - {"127.0.0.1#1"}
            if not hangs_up:
                assert await watcher.next() == Free("A")
        if hangs_up:
            assert await watcher.next() == Free("A")
        assert hub.catalog.instances() == []
        async with listening(port):
            heard = await watcher.next()
            assert isinstance(heard, Register)
            assert heard.id == "A"


async def test_a_fault_of_our_own_says_nothing_about_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were only relayed would all be gone because no file descriptor was left for a moment."""
    real, said = asyncio.open_connection, asyncio.Event()
    failures: list[str] = []
    dead, spent = free_port(), [OSError(errno.EMFILE, "Too many open files")] * 2

    async def starved(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if spent:
            raise spent.pop()
        return await real(host, port)

    def failed(dial: Dial, reason: str) -> None:
        failures.append(reason)
        said.set()

    monkeypatch.setattr(asyncio, "open_connection", starved)
    dialler = Dialler(lambda dial: not failures, lambda dial: None, failed)
    dialler.dial(Dial("A", "127.0.0.1#1", Address("127.0.0.1", dead)))
    async with asyncio.timeout(PATIENCE):
        await said.wait()
    await dialler.close()
    assert not spent
    assert "Too many open files" not in failures[0]
