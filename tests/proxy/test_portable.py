"""Where there is no epoll: the same proxy, on the events that any loop has; bodies are copied."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys

import aiohttp

from ..cluster.processes import Running
from .stage import DAISY, HOST, Worker, dead_address

WITHOUT_EPOLL = "import select, sys; del select.epoll; from fairway.__main__ import main; sys.exit(main(sys.argv[1:]))"


async def test_uploads_of_all_sizes_without_epoll() -> None:
    async with Worker() as worker:
        command = [
            sys.executable,
            "-c",
            WITHOUT_EPOLL,
            "proxy",
            "--port=0",
            f"--static={dead_address()},{worker.address}",
        ]
        with Running(command, env={"PYTHONPATH": os.environ.get("PYTHONPATH", "src")}) as proxy:
            found = await asyncio.to_thread(proxy.line, r"listening on http://127\.0\.0\.1:(\d+)/")
            bodies = [os.urandom(size) for size in (0, 1, 20_000, 100_000, 1_000_000, 3_000_000)]
            async with aiohttp.ClientSession(f"http://{HOST}:{found[1]}") as session:
                for body in bodies * 2:
                    async with session.post("/x", data=io.BytesIO(body)) as said:
                        assert (said.status, await said.read()) == (200, DAISY)
                together = [session.post("/x", data=io.BytesIO(bodies[3])) for _ in range(20)]
                for answer in await asyncio.gather(*together):
                    assert await answer.read() == DAISY
                    answer.release()
            proxy.send(signal.SIGTERM)
            assert await asyncio.to_thread(proxy.ended) == 0
        assert [seen.body for seen in worker.requests] == bodies * 2 + [bodies[3]] * 20
