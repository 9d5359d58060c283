"""Clients that are slow, silent, endless, too large or too many: each has its limit, its status, and gets to hear it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairway.proxy import Proxy

from .letter import Message, read_answers
from .recorder import Recorder, answers, converse, final, problem, says_close
from .stage import HOST, proxy_for, raw_worker, until

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


@asynccontextmanager
async def door(**settings: Any) -> AsyncIterator[tuple[Proxy, Recorder]]:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, **{"mode": "forward", **settings}) as proxy:
        yield proxy, recorder


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def told(reader: asyncio.StreamReader, seconds: float = 5.0) -> Message | None:
    """The one answer before the proxy closes; None if it only closed."""
    async with asyncio.timeout(seconds):
        found, rest = read_answers(await reader.read())
    assert not rest
    assert len(final(found)) <= 1
    return final(found)[0] if final(found) else None


async def drip(writer: asyncio.StreamWriter, data: bytes, seconds: float, gone: Callable[[], bool]) -> None:
    """A byte at a time, for ever, until the proxy has closed its side."""
    at = 0
    while not gone():
        writer.write(data[at % len(data) :][:1])
        at += 1
        await asyncio.sleep(seconds)


# Deadlines of the head.


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /x HTTP/1.1\r\nHost: h\r\n", b"\r\n", b"\r"])
async def test_a_head_that_does_not_come(sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with door(head_seconds=0.3) as (proxy, recorder), client(proxy) as (reader, writer):
        began = loop.time()
        writer.write(sent)
        answer = await told(reader)
        assert 0.25 < loop.time() - began < 2
        if answer is not None:
            assert (answer.status, says_close(answer)) == (408, True)
            assert problem(answer)
        else:
            assert not sent.strip()  # who said nothing need not be told
        assert not recorder.requests


@pytest.mark.parametrize("what", [b"X-A: b\r\n", b"\r\n"])
async def test_a_head_that_drips(what: bytes) -> None:
    """Each byte is in time, the head never is: the time runs from its first byte."""
    async with door(head_seconds=0.4) as (proxy, _), client(proxy) as (reader, writer):
        if what != b"\r\n":
            writer.write(GET[:-2])
        dripping = asyncio.create_task(drip(writer, what, 0.03, reader.at_eof))
        answer = await told(reader, 3)
        assert answer is None or answer.status in (400, 408, 431)
        dripping.cancel()


async def test_a_connection_that_rests() -> None:
    loop = asyncio.get_running_loop()
    async with door(idle_seconds=0.4, head_seconds=5.0) as (proxy, _), client(proxy) as (reader, writer):
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(b"GET /x")
            await asyncio.sleep(0.2)  # less than it may rest
        began = loop.time()
        async with asyncio.timeout(3):
            assert await reader.read() == b""  # closed without a word: nothing was asked
        assert loop.time() - began < 1
        assert not proxy.in_flight


async def test_the_second_head_has_its_own_time() -> None:
    async with door(idle_seconds=5.0, head_seconds=0.3) as (proxy, _), client(proxy) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"GET /x")
        await asyncio.sleep(0.5)  # resting is not being slow
        writer.write(GET[:10])
        answer = await told(reader)
        assert answer is not None
        assert answer.status == 408


# The body's progress.


@pytest.mark.parametrize("framing", [b"Content-Length: 5000", b"Content-Length: 500000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("replay_bytes", [1 << 20, 1])
async def test_a_body_that_stands_still(framing: bytes, replay_bytes: int) -> None:
    async with (
        door(stall_seconds=0.3, replay_bytes=replay_bytes) as (proxy, recorder),
        client(proxy) as (reader, writer),
    ):
        writer.write(POST + framing + b"\r\n\r\n3\r\nabc\r\n")
        answer = await told(reader, 3)
        assert answer is not None
        assert (answer.status, says_close(answer)) == (408, True)
        assert problem(answer)
        await until(lambda: not recorder.open)
        assert not recorder.requests
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert not any(upstream.failures.values())  # the client's fault, not the worker's


@pytest.mark.parametrize("framing", [b"Content-Length: 5000", b"Content-Length: 500000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("replay_bytes", [1 << 20, 1])
async def test_a_body_that_drips(framing: bytes, replay_bytes: int) -> None:
    """Never still for long, and never done: less than a kibibyte a second on average is not an upload."""
    async with (
        door(stall_seconds=0.4, replay_bytes=replay_bytes) as (proxy, recorder),
        client(proxy) as (reader, writer),
    ):
        writer.write(POST + framing + b"\r\n\r\n")
        dripping = asyncio.create_task(drip(writer, b"1\r\nx\r\n", 0.03, reader.at_eof))
        answer = await told(reader, 4)
        assert answer is not None
        assert answer.status == 408
        dripping.cancel()
        await until(lambda: not recorder.open)
        assert not recorder.requests


async def test_a_body_that_is_slow_but_comes() -> None:
    async with door(stall_seconds=0.3) as (proxy, recorder), client(proxy) as (reader, writer):
        writer.write(POST + b"Content-Length: 10000\r\nConnection: close\r\n\r\n")
        for _ in range(10):  # in all longer than it may stand still
            await asyncio.sleep(0.06)
            writer.write(bytes(1000))
        answer = await told(reader)
        assert answer is not None
        assert answer.status == 200
        assert recorder.seen == [(b"POST /x", bytes(10_000))]


async def test_one_that_drips_keeps_nobody_waiting() -> None:
    async with door() as (proxy, _), client(proxy) as (reader, writer):
        writer.write(POST + b"Content-Length: 500000\r\n\r\n")
        dripping = asyncio.create_task(drip(writer, b"x", 0.001, reader.at_eof))
        for _ in range(50):
            (answer,) = await answers(proxy, LAST, seconds=1)
            assert answer.status == 200
        dripping.cancel()


# Sizes.


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 8186 + b" HTTP/1.1\r\nHost: h\r\n", None),
        (b"GET /" + b"a" * 8300 + b" HTTP/1.1\r\nHost: h\r\n", 414),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16_000 + b"\r\n", None),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16_500 + b"\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 98, None),
        (b"GET /x HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 101, 431),
    ],
)
async def test_heads_up_to_their_limits(head: bytes, status: int | None) -> None:
    async with door() as (proxy, recorder):
        (answer,) = await answers(proxy, head + b"Connection: close\r\n\r\n")
        assert (answer.status, len(recorder.requests)) == (status or 200, 0 if status else 1)
        if status:
            assert problem(answer)
            assert says_close(answer)


async def test_a_head_without_an_end_is_refused_before_its_end() -> None:
    async with door() as (proxy, _), client(proxy) as (reader, writer):
        writer.write(GET[:-2] + b"X-A: " + b"a" * 20_000)  # and no more
        answer = await told(reader, 3)
        assert answer is not None
        assert answer.status == 431


@pytest.mark.parametrize("replay_bytes", [1 << 20, 1])
async def test_bodies_up_to_their_limit(replay_bytes: int) -> None:
    async with door(max_body=300_000, replay_bytes=replay_bytes) as (proxy, recorder):
        for size, status in ((300_000, 200), (300_001, 413)):
            chunked = b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
            for sent in (
                POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size + bytes(size),
                POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked,
            ):
                recorder.forget()
                (answer,) = await answers(proxy, sent)
                assert answer.status == status
                assert [len(body) for _, body in recorder.seen] == ([size] if status == 200 else [])
                if status == 413:
                    assert "300000" in problem(answer)


# The answer is heard, whatever the client is doing.


@pytest.mark.parametrize(
    ("sent", "rest", "status"),
    [
        (b"GET /x HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", bytes(2_000_000), 400),
        (GET[:-2] + b"X: " + b"a" * 20_000, b"a" * 2_000_000, 431),
        (POST + b"Content-Length: 2000000\r\n\r\n", bytes(2_000_000), 413),
        (POST + b"Content-Length: 200000\r\nExpect: magic\r\n\r\n", bytes(200_000), 417),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", bytes(2_000_000), 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", bytes(2_000_000), 400),
    ],
)
async def test_who_reads_only_after_sending_all_gets_the_answer(sent: bytes, rest: bytes, status: int) -> None:
    """No reset overtakes it: a blocking client that has filled the wire finds the answer behind it (RFC 9112 9.6)."""
    async with door(max_body=1_000_000) as (proxy, recorder):

        def blocking() -> bytes:
            with socket.create_connection((HOST, proxy.port), timeout=5) as sock:
                sock.sendall(sent)
                for at in range(0, len(rest), 100_000):
                    sock.sendall(rest[at : at + 100_000])
                came = b""
                while piece := sock.recv(65_536):
                    came += piece
                return came

        found, left = read_answers(await asyncio.to_thread(blocking))
        assert not left
        (answer,) = final(found)
        assert (answer.status, says_close(answer)) == (status, True)
        assert problem(answer)
        assert not recorder.requests


async def test_a_client_that_sends_for_ever_after_an_error_is_left_at_last() -> None:
    async with door() as (proxy, _), client(proxy) as (reader, writer):
        writer.write(b"GET / HTTP/9.9\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).split()[1] in (b"400", b"505")

        async def flood() -> None:
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                await flood()
        await until(lambda: not proxy.in_flight)


# Too many.


async def test_too_many_connections() -> None:
    async with door(max_connections=3) as (proxy, _):
        held = [await asyncio.open_connection(HOST, proxy.port) for _ in range(3)]
        for reader, writer in held:
            writer.write(GET)
            await reader.readuntil(b"GET /x")
        found = final(await answers(proxy, GET))
        assert [answer.status for answer in found] == [503]
        assert found[0].one(b"retry-after")
        assert says_close(found[0])
        assert problem(found[0])
        for reader, writer in held:  # those who are in are served
            writer.write(GET)
            await reader.readuntil(b"GET /x")
        for _, writer in held:
            writer.close()
        for _ in range(100):
            if (await answers(proxy, LAST))[-1].status == 200:
                break
        else:
            pytest.fail("there is room again, and nobody is let in")


async def test_too_many_at_once() -> None:
    """503 before the body is asked for, while those in flight are finished."""
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_worker(script) as address, proxy_for(address, mode="forward", max_in_flight=2) as proxy:
        waiting = [asyncio.create_task(answers(proxy, LAST)) for _ in range(2)]
        await until(lambda: proxy.in_flight == 2)
        async with client(proxy) as (reader, writer):
            writer.write(POST + b"Content-Length: 500000\r\nExpect: 100-continue\r\n\r\n")
            answer = await told(reader)
            assert answer is not None
            assert answer.status == 503  # and no 100 before it, or `told` would not have been alone
            assert answer.one(b"retry-after")
        release.set()
        assert [(await one)[0].status for one in waiting] == [200, 200]
        assert (await answers(proxy, LAST))[0].status == 200


async def test_who_was_refused_and_stays_takes_nobodys_place() -> None:
    """Waiting for a client to take its error is no request that is worked on: it fills no room, and holds up no end."""
    async with door(max_in_flight=2, finish_seconds=5.0) as (proxy, _):
        staying = [await asyncio.open_connection(HOST, proxy.port) for _ in range(4)]
        for reader, writer in staying:
            writer.write(b"GET / HTTP/9.9\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        assert (await answers(proxy, LAST))[0].status == 200
        began = asyncio.get_running_loop().time()
        await proxy.close()
        assert asyncio.get_running_loop().time() - began < 1
        for _, writer in staying:
            writer.transport.abort()
            writer.close()


async def test_one_that_pipelines_without_end_keeps_nobody_waiting() -> None:
    """It always has another request there, and takes every answer: the others have their turns all the same."""
    recorder, over = Recorder(), threading.Event()
    async with raw_worker(recorder) as address, proxy_for(address, mode="auto") as proxy:

        def flood() -> None:
            with socket.create_connection((HOST, proxy.port)) as sock:
                sock.setblocking(False)
                requests = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 1000
                while not over.is_set():
                    for action in (lambda: sock.send(requests), lambda: sock.recv(1 << 20)):
                        try:
                            action()
                        except BlockingIOError:
                            pass
                        except OSError:
                            return

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            slowest = 0.0
            for _ in range(20):
                began = asyncio.get_running_loop().time()
                (answer,) = await answers(proxy, LAST, seconds=5)
                assert answer.status == 200
                slowest = max(slowest, asyncio.get_running_loop().time() - began)
            assert slowest < 1
        finally:
            over.set()
            await asyncio.to_thread(thread.join)


# What a value costs to read.


@pytest.mark.parametrize(
    "line",
    [
        b"X: " + b"a" * 15_000 + b"\0",
        b"X: " + b"a " * 7000 + b"\0",
        b"X: " + b" \t" * 7000 + b"\0",
        b"X:" + b" " * 15_000 + b"\0",
        b"X" * 15_000 + b" : y",
        b"Host: " + b"a" * 15_000 + b"@",
        b"Connection: " + b"a," * 7000 + b"\0",
        b"Content-Length: " + b"1" * 15_000,
        b"Transfer-Encoding: " + b"chunked, " * 1600,
        b"Content-Type: " + b"a/b;" * 3500 + b"\x01",
    ],
)
async def test_no_line_takes_long_to_refuse(line: bytes) -> None:
    """Patterns that backtrack take seconds for 25 bytes, and ages for a head: one request would stop the house."""
    loop = asyncio.get_running_loop()
    host = b"" if line.startswith(b"Host") else b"Host: h\r\n"
    async with door() as (proxy, recorder):
        for short in (line[:30] + line[-1:], line):
            began = loop.time()
            (answer,) = await answers(proxy, b"GET /x HTTP/1.1\r\n" + host + short + b"\r\n\r\n")
            assert answer.status in (400, 413, 431, 501)
            assert loop.time() - began < 0.5
        assert not recorder.requests


async def test_plain_words_for_what_is_no_http() -> None:
    for sent in (
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n",
        b"EHLO x\r\n\r\n",
        b"{}\n\r\n\r\n",
    ):
        async with door() as (proxy, _):
            found, rest = read_answers(await converse(proxy, [sent]))
            assert not rest
            assert (found[0].status, says_close(found[0])) == (400, True)
            assert problem(found[0])
