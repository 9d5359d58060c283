"""A registry that was stopped for a while is not to take its own absence for that of everybody else."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL
from pathlib import Path

from fairway.registry.ports import free_port
from fairway.registry.wire import Accepted, Heartbeat, Hello, Register

from .peers import PATIENCE, greeted, row

SOURCES = str(Path(__file__).parents[2] / "src")


async def test_who_spoke_while_the_registry_was_stopped_is_not_given_up() -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fairway", "registry", f"--port={port}", "--store=embedded:", "--no-dial-back",
        env={"PYTHONPATH": SOURCES}, stdin=DEVNULL, stderr=DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(3 * PATIENCE):
            await listening(port)
            async with greeted(port) as watcher, greeted(port, Hello(services=())) as worker:
                worker.say(row("A", ttl_seconds=1))
                assert await worker.next() == Accepted("A")
                assert isinstance(await watcher.next(), Register)
                process.send_signal(signal.SIGSTOP)
                for _ in range(20):
                    worker.say(Heartbeat())
                    await asyncio.sleep(0.1)
                process.send_signal(signal.SIGCONT)
                worker.say(row("A", ttl_seconds=1, words="still here"))
                assert await worker.next() == Accepted("A")
                told = await watcher.next()
                assert isinstance(told, Register)
                assert told.meta.get("words") == "still here", "and was not ill in between"
    finally:
        process.kill()
        await process.wait()


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
