"""What is no exchange of one request for one answer: WebSockets, events that come one by one, hints before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairway.proxy import Proxy
from fairway.registry.instance import Address

from .letter import read_answers
from .recorder import answers, final, problem, turns
from .stage import HOST, proxy_for, raw_worker, session_to, until

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
ASK = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" + KEY + b"\r\n"
YES = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@asynccontextmanager
async def served(handler: Any, **settings: Any) -> AsyncIterator[Proxy]:
    """A proxy in front of an aiohttp server that does what `handler` says."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        async with proxy_for(Address(HOST, runner.addresses[0][1]), **settings) as proxy:
            yield proxy
    finally:
        await runner.cleanup()


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=("echo",), max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def test_a_websocket_of_real_clients() -> None:
    async with served(echo) as proxy, session_to(proxy) as session:
        async with session.ws_connect("/any/path?at=all", protocols=("echo",), max_msg_size=0) as socket:
            assert socket.protocol == "echo"
            for text in ("a", "é" * 1000):
                await socket.send_str(text)
                assert await socket.receive_str() == text
            for size in (1, 70_000, 3_000_000):
                await socket.send_bytes(bytes(size))
                assert len(await socket.receive_bytes()) == size
            await socket.ping()
            await socket.close()
            assert socket.close_code == 1000
        await until(lambda: not proxy.in_flight)


async def test_many_websockets_at_once() -> None:
    async with served(echo) as proxy, session_to(proxy, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> None:
            async with session.ws_connect("/ws") as socket:
                for turn in range(20):
                    await socket.send_str(f"{number} {turn}")
                    assert await socket.receive_str() == f"{number} {turn}"

        await asyncio.gather(*map(one, range(50)))


async def test_a_websocket_that_rests_is_not_a_stall() -> None:
    """What bounds an answer that stands still does not bound a conversation in which nobody speaks."""
    settings: dict[str, Any] = {"stall_seconds": 0.3, "idle_seconds": 0.3, "deadline_seconds": 0.3}
    async with (
        served(echo, **settings) as proxy,
        session_to(proxy) as session,
        session.ws_connect("/ws") as socket,
    ):
        for text in ("still here", "and again"):
            await asyncio.sleep(0.7)
            await socket.send_str(text)
            assert await socket.receive_str() == text


async def test_a_tunnel_is_bytes_both_ways() -> None:
    """Early bytes behind the request, bytes in the same packet as the 101, and neither is looked at."""
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(YES + b"first\r\n\r\n")
        while data := await reader.read(65_536):
            writer.write(data[::-1])

    early = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    async with raw_worker(script) as address, proxy_for(address) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(ASK + early)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in answer.lower()
            assert await reader.readexactly(9) == b"first\r\n\r\n"
            assert await reader.readexactly(len(early)) == early[::-1]
            writer.write(b"more")
            assert await reader.readexactly(4) == b"erom"
            writer.write_eof()
            assert await reader.read() == b""
        writer.close()
        await until(lambda: not proxy.in_flight)
    assert len(heads) == 1
    head = heads[0].lower()
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert b"\r\nsec-websocket-key: " in head


@pytest.mark.parametrize("who", ["client", "worker"])
async def test_a_tunnel_ends_with_either_side(who: str) -> None:
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(YES)
        if who == "worker":
            writer.write(b"bye")
            return
        await reader.read()
        ended.set()

    async with raw_worker(script) as address, proxy_for(address) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(ASK)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            if who == "client":
                writer.transport.abort()
                await ended.wait()
            else:
                assert await reader.read() == b"bye"
        writer.close()
        await until(lambda: not proxy.in_flight)
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert (upstream.in_flight, any(upstream.failures.values())) == (0, False)


async def test_a_slow_reader_of_a_tunnel_holds_up_the_writer() -> None:
    """Nothing is piled up in between."""
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(YES)
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
            written += 100_000

    async with raw_worker(script) as address, proxy_for(address) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port, limit=1000)
        writer.write(ASK)
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert written < 30_000_000  # the kernel's buffers on both sides
        writer.transport.abort()
        writer.close()
        await until(lambda: not proxy.in_flight)


@pytest.mark.parametrize("status", [200, 400, 426, 503])
async def test_an_upgrade_that_the_worker_declines(status: int) -> None:
    """Then it is an answer like any other, and so is what follows on the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d No\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno" % status)

    async with raw_worker(script) as address, proxy_for(address, wait_seconds=0.01) as proxy:
        last = b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        first, second = await answers(proxy, ASK + last)
        assert (first.status, second.status) == (status, status)
        assert first.body == b"no"


@pytest.mark.parametrize(
    "ask",
    [
        b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        ASK.replace(b"Connection: keep-alive, Upgrade\r\n", b""),
        ASK.replace(b"Upgrade: websocket\r\n", b""),
        ASK.replace(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n"),
        ASK.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 0\r\nHost"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost") + b"0\r\n\r\n",
    ],
)
async def test_nobody_is_switched_who_did_not_ask(ask: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(YES + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")

    async with raw_worker(script) as address, proxy_for(address, wait_seconds=0.01) as proxy:
        found = final(await answers(proxy, ask[:-2] if ask.endswith(b"\r\n\r\n\r\n") else ask))
        assert [answer.status for answer in found] in ([502], [400])
        assert problem(found[0])


async def test_a_worker_that_switches_to_something_else() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(YES.replace(b"Upgrade: websocket", b"Upgrade: h2c"))

    async with raw_worker(script) as address, proxy_for(address, wait_seconds=0.01) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(ASK)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        writer.close()
        assert b" 502 " in answer or b"h2c" not in answer


async def test_events_come_one_by_one() -> None:
    """Each is passed on as it comes, past every deadline but that of standing still."""
    seen = asyncio.Event()

    async def events(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        for number in range(8):
            seen.clear()
            await response.write(f"data: {number}\n\n".encode())
            await seen.wait()  # only when the client has it
            await asyncio.sleep(0.06)
        return response

    settings: dict[str, Any] = {"deadline_seconds": 0.3, "idle_seconds": 0.2, "head_seconds": 0.2, "stall_seconds": 0.3}
    async with (
        served(events, mode="forward", **settings) as proxy,
        session_to(proxy) as session,
        session.get("/events") as answer,
    ):
        assert answer.content_type == "text/event-stream"
        for number in range(8):
            async with asyncio.timeout(2):
                assert await answer.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
            seen.set()
        assert await answer.read() == b""


async def test_hints_are_passed_on_before_the_answer() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-A: b\r\n\r\n")
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            hint = await reader.readuntil(b"\r\n\r\n")
            assert hint.startswith(b"HTTP/1.1 103 ")
            assert b"\r\nLink: </style.css>; rel=preload\r\n" in hint
            release.set()
            found, rest = read_answers(await reader.read())
        writer.close()
        assert (rest, found[0].status, found[0].body) == (b"", 200, b"ok")
        (old,) = await answers(proxy, b"GET /x HTTP/1.0\r\n\r\n")
        assert old.status == 200  # HTTP/1.0 knows no 1xx


async def test_a_client_that_leaves_between_hint_and_answer() -> None:
    """Its leaving is not the worker's failure, and nobody else is asked in its place."""
    asked = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        for _ in range(15):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nX-A: " + b"a" * 1000 + b"\r\n\r\n")
            await writer.drain()
            await turns()
        await reader.read()

    async with raw_worker(script) as one, raw_worker(script) as two, proxy_for(one, two, mode="forward") as proxy:
        for _ in range(5):
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            writer.close()
            await until(lambda: not proxy.in_flight)
        assert asked == 5
        for upstream in proxy.resolver.services()["classify"].upstreams:
            assert (upstream.in_flight, any(upstream.failures.values())) == (0, False)
