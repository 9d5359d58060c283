"""Clients that leave, stall or read nothing are not the worker's fault; and a door that closes finishes its work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairway.registry.instance import Address

from .stage import DAISY, HOST, Seen, Worker, proxy_for, raw_worker, read_request, session_to, until


@pytest.mark.parametrize("framing", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
async def test_a_client_gone_in_the_middle_of_its_upload(framing: bytes) -> None:
    async with Worker() as worker, proxy_for(worker.address, replay_bytes=1000) as proxy:
        _, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n")
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        async with asyncio.timeout(5):
            await worker.began.wait()
            assert proxy.in_flight == 1
            writer.transport.abort()
            await worker.broken.wait()
        await until(lambda: proxy.in_flight == 0)
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert (upstream.in_flight, any(upstream.failures.values())) == (0, False)


async def test_a_client_that_leaves_while_the_worker_thinks() -> None:
    thinking, hung_up = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        thinking.set()
        await reader.read()  # its end: the proxy hung up
        hung_up.set()

    async with raw_worker(script) as address, proxy_for(address) as proxy, session_to(proxy) as session:
        upload = asyncio.create_task(session.post("/", data=b"x"))
        async with asyncio.timeout(5):
            await thinking.wait()
            upload.cancel()
            await hung_up.wait()
        await until(lambda: proxy.in_flight == 0)
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert (upstream.in_flight, any(upstream.failures.values())) == (0, False)


async def endless(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(100_000))


@pytest.mark.parametrize("manner", ["leaves", "reads nothing"])
async def test_a_client_that_does_not_take_its_answer_is_not_the_workers_fault(manner: str) -> None:
    async with Worker(endless) as worker, proxy_for(worker.address, stall_seconds=0.3) as proxy:
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        for _ in range(4):  # one more than ejects
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
            await reader.readexactly(10_000)
            if manner == "leaves":
                writer.transport.abort()
            await until(lambda: proxy.in_flight == 0)
            writer.transport.abort()
        assert (upstream.in_flight, any(upstream.failures.values())) == (0, False)


async def test_a_slow_upload_uses_up_its_own_time_not_the_workers() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(2000)
            await asyncio.sleep(0.1)  # a slow line is what this is about

    async with Worker() as worker, proxy_for(worker.address, replay_bytes=1000, deadline_seconds=0.4) as proxy:
        async with session_to(proxy) as session, session.post("/", data=slowly()) as said:
            assert said.status == 200
        assert len(worker.requests[0].body) == 16_000


@pytest.mark.parametrize("replay_bytes", [1000, 1_000_000])
async def test_an_upload_that_stands_still_is_given_up(replay_bytes: int) -> None:
    async with Worker() as worker, proxy_for(worker.address, stall_seconds=0.3, replay_bytes=replay_bytes) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n" + bytes(5000))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 408 ")
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert not any(upstream.failures.values())


async def test_what_is_in_flight_is_finished_before_the_door_closes() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        began.set()
        await go.wait()
        return web.Response(body=DAISY)

    async with (
        Worker(answer) as worker,
        proxy_for(worker.address, finish_seconds=10.0) as proxy,
        session_to(proxy) as session,
    ):
        upload: asyncio.Task[Any] = asyncio.create_task(session.post("/", data=b"x"))
        await began.wait()
        closing = asyncio.create_task(proxy.close())
        await until(lambda: proxy.draining)
        go.set()
        async with await upload as said:
            assert await said.read() == DAISY
        await closing
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post("/", data=b"x")


async def test_repr_is_a_dashboard_line() -> None:
    async with proxy_for(Address(HOST, 9001)) as proxy:
        assert repr(proxy) == (
            "<Proxy auto [0 in flight | <Resolver up {'classify': <Pool [1 workers, 0 ejected | 0 in flight]>}>]>"
        )
        async with session_to(proxy) as session, session.get("/-/workers") as said:
            assert [row["port"] for row in (await said.json())["services"]["classify"]] == [9001]


async def test_a_slow_reader_keeps_no_worker_and_breaks_nobodys_answer() -> None:
    """Its answer is whole in our hands: the worker's connection is free for others while the client takes its time."""
    body, asked = b"x" * 60_000, list[bytes]()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, sent = await read_request(reader)
            if sent == b"next":
                asked.append(sent)
                await asyncio.sleep(0.2)  # meanwhile the first client reads on
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with raw_worker(script) as address, proxy_for(address) as proxy, session_to(proxy) as session:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, (HOST, proxy.port))
            for _ in range(60):  # more answers than the kernel holds
                await loop.sock_sendall(slow, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
            (upstream,) = proxy.resolver.services()["classify"].upstreams
            await until(lambda: proxy.in_flight == 1 and upstream.in_flight == 0)
            other = asyncio.create_task(session.post("/x", data=b"next"))
            await until(lambda: upstream.in_flight == 1)
            while not other.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):  # it was sent all there is
                        await loop.sock_recv(slow, 1 << 20)
            async with await other as said:
                assert (said.status, await said.read()) == (200, body)
            assert asked == [b"next"]  # once: nothing had to be repaired by a retry
