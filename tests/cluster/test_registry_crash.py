"""`kill -9` of the registry at any moment: what it acknowledged is there afterwards, and its indices go on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from pathlib import Path

import aiohttp
import pytest

from fairway.registry import Address, Instance, Link
from fairway.registry.errors import StoreUnavailable
from fairway.registry.ports import free_port

from .processes import FAIRWAY, Running

LIVES = 8


def start(port: int, folder: Path) -> Running:
    running = Running([*FAIRWAY, "registry", f"--port={port}", f"--store=embedded:{folder}", "--no-dial-back"])
    running.line("registry listening on")
    return running


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    port, chance = free_port(), random.Random(seed)
    acknowledged: set[str] = set()
    removed: set[str] = set()
    index = 0

    async def register(http: aiohttp.ClientSession, life: int, writer: int) -> None:
        """As fast as it can, until the registry is gone; now and then it removes one again."""
        for number in range(10_000):
            id = f"L{life}-{writer}-{number}"
            body = {"Name": "classify", "ID": id, "Port": 9001, "Check": {"TTL": "1h", "Status": "passing"}}
            async with http.put("/v1/agent/service/register", json=body) as answer:
                assert answer.status == 200
            acknowledged.add(id)
            if number % 7 == 0:
                acknowledged.discard(id)  # from here to the answer, either is right
                async with http.put(f"/v1/agent/service/deregister/{id}") as answer:
                    assert answer.status == 200
                removed.add(id)

    async def announce(link: Link, life: int) -> None:
        for number in range(10_000):
            id = f"R{life}-{number}"
            await link.announce(Instance(id, "rows", Address("127.0.0.1", 9001)))
            acknowledged.add(id)

    for life in range(LIVES):
        link = Link(Address("127.0.0.1", port))
        with await asyncio.to_thread(start, port, tmp_path) as running:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                async with http.get("/v1/agent/services") as answer:
                    found = set(await answer.json())
                    assert int(answer.headers.get("X-Consul-Index", 0)) >= index
                    index = int(answer.headers.get("X-Consul-Index", 0))
                assert acknowledged <= found, f"lost in life {life}: {sorted(acknowledged - found)[:5]}"
                assert not removed & found, "what was removed stays so"
                await link.start(10)
                tasks = [asyncio.create_task(register(http, life, writer)) for writer in range(4)]
                tasks.append(asyncio.create_task(announce(link, life)))
                await asyncio.wait(tasks, timeout=chance.uniform(0.05, 0.6), return_when=asyncio.FIRST_EXCEPTION)
                running.send(signal.SIGKILL)
                await asyncio.to_thread(running.ended)
                for task in tasks[:-1]:
                    with contextlib.suppress(aiohttp.ClientError):
                        await task
                tasks[-1].cancel()
                with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
                    await tasks[-1]
            await link.close()
        # The link's own rows may be let go once they were neither claimed nor heard of for a TTL; lives are shorter.
    assert len(acknowledged) > LIVES * 10


async def test_after_a_restart_all_are_suspect_until_they_are_heard_of(tmp_path: Path) -> None:
    port = free_port()
    back, dead, reader = (Link(Address("127.0.0.1", port)) for _ in range(3))
    with await asyncio.to_thread(start, port, tmp_path) as running:
        for link in (back, dead, reader):
            await link.start(10)
        await back.announce(Instance("back", "classify", Address("127.0.0.1", 9001)))
        await dead.announce(Instance("dead", "classify", Address("127.0.0.1", 9002)))
        await reader.wait_for(lambda: len(reader.instances()) == 2, 10)
        running.send(signal.SIGKILL)
        await asyncio.to_thread(running.ended)
    await dead.close()
    with await asyncio.to_thread(start, port, tmp_path):
        await reader.wait_for(lambda: [i.id for i in reader.instances() if i.suspect] == ["dead"], 10)
        assert {i.id for i in reader.instances()} == {"back", "dead"}
        await reader.wait_for(lambda: [i.id for i in reader.instances()] == ["back"], 15)
        await back.close()
        await reader.close()
