"""Usage: aiohttp_proxy.py PORT WORKER_PORT_0,WORKER_PORT_1,...

The proxy one writes first with aiohttp, on uvloop: GET / hands out an address, uploads are streamed to the next worker. No
limits, no retries, no health.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import aiohttp
import uvloop
from aiohttp import web

SKIPPED = frozenset(("connection", "keep-alive", "transfer-encoding", "host"))


async def main(port: int, workers: list[str]) -> None:
    turns = itertools.cycle(workers)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            worker = f"127.0.0.1:{next(turns)}"
            if request.method == "GET" and request.path == "/":
                return web.Response(text=worker + "\n")
            headers = [(name, value) for name, value in request.headers.items() if name.lower() not in SKIPPED]
            headers += [("X-Forwarded-For", request.remote or ""), ("Via", "1.1 aiohttp")]
            url = f"http://{worker}{request.raw_path}"
            async with session.request(request.method, url, headers=headers, data=request.content) as answer:
                body = await answer.read()
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in SKIPPED]
                return web.Response(status=answer.status, headers=dict(kept), body=body)

        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2].split(",")))
