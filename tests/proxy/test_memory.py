"""Memory stays bounded, whatever strangers send."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from .recorder import Recorder, turns
from .stage import HOST, raw_worker, until
from .test_limits import GET, LAST, POST, door, told


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


@asynccontextmanager
async def proxy_process(*options: str) -> AsyncIterator[tuple[int, int]]:
    """A proxy in a process of its own: its id, and its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), "src"])
    command = [sys.executable, "-m", "fairway", "proxy", "--port", str(port), *options]
    process = subprocess.Popen(  # noqa: ASYNC220
        command, env={**os.environ, "PYTHONPATH": path}, cwd=Path(__file__).parents[2]
    )
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc what is resident")
async def test_memory_is_bounded_whatever_strangers_send() -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_process("--static", str(address)) as (pid, port):

        async def send(*pieces: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                async with asyncio.timeout(10):
                    return await reader.read(65_536)
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()

        for _ in range(20):
            await send(LAST)
        before = resident(pid)

        endless = GET[:-2] + b"X-A: " + b"a" * 1_000_000
        said = await asyncio.gather(*(send(endless[:500_000], endless[500_000:]) for _ in range(200)))
        assert all(b" 431 " in one[:20] for one in said if one)
        assert resident(pid) - before < 50_000_000, "heads without an end"

        held = [await asyncio.open_connection(HOST, port) for _ in range(200)]
        for _, writer in held:
            writer.write(GET[:-2] + b"X-A: " + b"a" * 12_000)
        assert (await send(LAST)).startswith(b"HTTP/1.1 200 ")
        assert resident(pid) - before < 50_000_000, "heads that wait"
        for _, writer in held:
            writer.transport.abort()

        # What is remembered of one head for the next is bounded in bytes, not only in number.
        for batch in range(30):
            heads = []
            for number in range(100):
                mark = b"%d-%d" % (batch, number)
                host = (mark + b"." + b"h" * 200) if number % 2 else (mark + b"." + b"h" * 14_000)
                heads.append(
                    b"GET /x HTTP/1.1\r\nHost: "
                    + host
                    + b"\r\nX-%b: %b\r\nConnection: close\r\n\r\n" % (mark, mark * 50)
                )
            await asyncio.gather(*map(send, heads))
        assert resident(pid) - before < 60_000_000, "different heads"


async def test_the_held_bytes_are_bounded() -> None:
    """Uploads beyond the room for them go through without being held."""
    async with door(held_bytes=300_000, replay_bytes=200_000) as (proxy, recorder):
        clients = [await asyncio.open_connection(HOST, proxy.port) for _ in range(8)]
        head = POST + b"Content-Length: 190000\r\nConnection: close\r\n\r\n"
        for _, writer in clients:
            writer.write(head + bytes(180_000))
        await turns(50)
        assert proxy.forwarder.holding.held <= 300_000
        for reader, writer in clients:
            writer.write(bytes(10_000))
            answer = await told(reader)
            writer.close()
            assert answer is not None
            assert answer.status == 200
        assert sorted(len(body) for _, body in recorder.seen) == [190_000] * 8
        await until(lambda: not proxy.forwarder.holding.held)
