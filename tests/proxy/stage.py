"""What proxies and clients are tested against: small real servers on loopback, and a real proxy in front of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from fairway.client.resolver import Resolver
from fairway.proxy import Proxy, ProxySettings
from fairway.registry.instance import Address

HOST = "127.0.0.1"
DAISY = b'[["daisy", 0.9], ["tulips", 0.1]]\n'


BIG = os.urandom(5_000_000)  # several times what is held for a replay


async def pieces() -> AsyncIterator[bytes]:
    """BIG, a piece at a time: sent in chunks, unless a length is given."""
    for at in range(0, len(BIG), 100_000):
        yield BIG[at : at + 100_000]


@dataclass(frozen=True)
class Seen:
    """One request as a worker saw it. `complete`: its body came to its end."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes
    complete: bool = True


Answer = Callable[[web.BaseRequest, Seen], Awaitable[web.StreamResponse]]


async def daisy(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    return web.Response(body=DAISY, content_type="application/json")


def says(status: int, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


class Worker:
    """Reads each request to its end, records it, and answers. `began` is set when the first head is there."""

    def __init__(self, answer: Answer = daisy) -> None:
        self.answer = answer
        self.requests: list[Seen] = []
        self.began, self.broken = asyncio.Event(), asyncio.Event()
        self._runner = web.ServerRunner(
            web.Server(self._handle, auto_decompress=False, access_log=None), shutdown_timeout=0.1
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.began.set()
        body = bytearray()
        try:
            async for chunk in request.content.iter_any():
                body += chunk
        except (aiohttp.ClientError, ConnectionError):
            self.requests.append(Seen(request.method, request.raw_path, request.headers, bytes(body), complete=False))
            self.broken.set()
            raise
        seen = Seen(request.method, request.raw_path, request.headers, bytes(body))
        self.requests.append(seen)
        return await self.answer(request, seen)

    @property
    def address(self) -> Address:
        return Address(HOST, int(self._runner.addresses[0][1]))

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_worker(script: Script) -> AsyncIterator[Address]:
    """A TCP server that does on each connection what `script` says, however wrong; at its end the connection closes."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy hung up: for some scripts that is the point
        finally:
            writer.close()
            talks.discard(task)

    server = await asyncio.start_server(talk, HOST, 0)
    try:
        yield Address(HOST, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        waiting = list(talks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One request off the wire, as (head, body); the framing is taken at its word."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
    if b"transfer-encoding" not in fields:
        return head, await reader.readexactly(int(fields.get(b"content-length", b"0")))
    body = b""
    while size := int(await reader.readuntil(b"\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return head, body


def dead_address() -> Address:
    """Nobody listens there: the port was bound a moment ago, and is closed."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return Address(HOST, probe.getsockname()[1])


@asynccontextmanager
async def proxy_for(*workers: Address, resolver: Resolver | None = None, **settings: Any) -> AsyncIterator[Proxy]:
    """A proxy in front of `workers`; short waits, so that a mistake does not cost a minute."""
    defaults: dict[str, Any] = {"port": 0, "wait_seconds": 0.2, "deadline_seconds": 10.0, "finish_seconds": 0.2}
    proxy = Proxy(ProxySettings(**{**defaults, **settings}), resolver or Resolver(static=workers))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()


@asynccontextmanager
async def session_to(proxy: Proxy, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(f"http://{HOST}:{proxy.port}", timeout=timeout, **options) as session:
        yield session


async def exchange(proxy: Proxy, sent: bytes, seconds: float = 10.0) -> bytes:
    """Raw bytes in, all that comes back until the proxy closes the connection."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(seconds):
            return await reader.read()
    finally:
        writer.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """For the few things that nobody announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def url(proxy: Proxy) -> str:
    return f"http://{HOST}:{proxy.port}"


def image_of(seen: Seen) -> bytes:
    return seen.body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]


@asynccontextmanager
async def cluster(*answers: Answer) -> AsyncIterator[tuple[Proxy, list[Worker]]]:
    """A proxy in front of a worker for each of `answers`; two that say daisy if there are none."""
    workers = [Worker(answer) for answer in answers] or [Worker(), Worker()]
    for worker in workers:
        await worker.__aenter__()
    async with proxy_for(*(worker.address for worker in workers)) as proxy:
        yield proxy, workers
    for worker in workers:
        await worker.__aexit__(None, None, None)
