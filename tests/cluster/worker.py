"""A light worker, as a process of its own: real registration and drain, and for an answer the digest of the image.

    worker.py --registry HOST:PORT [--service NAME] [--manner MANNER] ...

The answer `[["SHA-256 of the image", 1.0]]` can be checked against its image, and is a prediction to the client library.
Each carries `X-Worker: PID`. `GET /large` is an answer of 30 MB; `GET /count` tells how many uploads were begun.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import socket
from dataclasses import replace

from aiohttp import hdrs, web

from fairway.registry.instance import Address, Instance
from fairway.registry.process import run
from fairway.registry.store import new_id, open_store
from fairway.registry.threaded import ThreadedStore
from fairway.worker.wire import multipart

# honest   answers rightly
# ill      500 to everything
# silent   takes an upload, and never answers
# half     closes after half an answer
MANNERS = ("honest", "ill", "silent", "half")
LARGE = 30_000_000


class Work:
    """`limit`: uploads at work at once; `waiting`: further ones that may wait; others get 429."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.manner, self.seconds = given.manner, given.seconds
        self._room = asyncio.Semaphore(given.limit)
        self._most = given.limit + given.waiting
        self.in_flight = self.begun = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.leaving = False

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/large":
            return await _large(request)
        if request.method == "GET":
            return web.json_response({"begun": self.begun, "in_flight": self.in_flight})
        self.begun += 1
        self.in_flight += 1
        self.idle.clear()
        try:
            response = await self._upload(request)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()
        if self.leaving:
            response.force_close()
        return response

    async def _upload(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"X-Worker": str(os.getpid())}
        body = b"".join([piece async for piece in request.content.iter_any()])  # `read()` has a limit
        if self.in_flight > self._most:
            return web.json_response({"error": "full"}, status=429, headers={**headers, "Retry-After": "1"})
        async with self._room:
            await asyncio.sleep(self.seconds)
        if self.manner == "silent":
            await asyncio.Event().wait()
        if self.manner == "ill":
            return web.json_response({"error": "it fell over"}, status=500, headers=headers)
        kind = request.headers.get(hdrs.CONTENT_TYPE, "")
        image = multipart.parse(body, kind)[0].data if kind.startswith("multipart/form-data") else body
        response = web.json_response([[hashlib.sha256(image).hexdigest(), 1.0]], headers=headers)
        if self.manner != "half":
            return response
        assert isinstance(response.body, bytes)
        part = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: str(len(response.body)), **headers})
        await part.prepare(request)
        await part.write(response.body[: len(response.body) // 2])
        assert request.transport is not None
        request.transport.close()
        return part


async def _large(request: web.BaseRequest) -> web.StreamResponse:
    response, piece = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: str(LARGE)}), bytes(100_000)
    await response.prepare(request)
    for _ in range(LARGE // len(piece)):
        await response.write(piece)
    return response


async def serve(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """In the order of docs/house.md: listen, register; at the end say so, serve on for a while, finish, go."""
    work = Work(given)
    bound = socket.create_server((given.host, given.port), backlog=1024)
    runner = web.ServerRunner(
        web.Server(work.serve, access_log=None, keepalive_timeout=120), shutdown_timeout=1, handler_cancellation=True
    )
    await runner.setup()
    site = web.SockSite(runner, bound, backlog=1024)
    await site.start()
    listening = Address(*bound.getsockname()[:2])
    at = Address.parse(given.advertise, given.host) if given.advertise else listening
    me = Instance(new_id(), given.service, at, meta={"pid": os.getpid()})
    store = ThreadedStore(lambda: open_store(given.registry, services=()))
    await store.start()
    await store.announce(me)
    print(f"worker {os.getpid()} at {listening}", flush=True)
    await stop.wait()
    saying = asyncio.create_task(store.announce(replace(me, state="draining")))
    await asyncio.sleep(given.drain_seconds)
    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    await store.close()
    work.leaving = True
    await site.stop()
    async with asyncio.timeout(30):
        await work.idle.wait()
    await runner.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", required=True)
    parser.add_argument("--service", default="classify")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--advertise", default="", help="where others are told to find it: in front of a relay")
    parser.add_argument("--manner", choices=MANNERS, default="honest")
    parser.add_argument("--seconds", type=float, default=0.005, help="that an upload takes")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--drain-seconds", type=float, default=0.5)
    given = parser.parse_args()
    return run(lambda stop: serve(given, stop))


if __name__ == "__main__":
    raise SystemExit(main())
