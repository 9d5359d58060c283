"""Workers that die, refuse, reset, stall or break off, and what the client gets nevertheless."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from socket import SO_LINGER, SOL_SOCKET

import aiohttp
import pytest
from aiohttp import web

from fairway.client.retry import Budget
from fairway.proxy import Proxy

from .stage import (
    BIG,
    DAISY,
    HOST,
    Script,
    Seen,
    Worker,
    dead_address,
    exchange,
    pieces,
    proxy_for,
    raw_worker,
    read_request,
    says,
    session_to,
)


class Rogue:
    """A script for a raw worker: reads a request, counts it, then does something else than answering."""

    def __init__(self, manner: str) -> None:
        self.manner, self.times = manner, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.manner != "closes at once":
            await read_request(reader)
        self.times += 1
        match self.manner:
            case "resets":
                # Lingering for no time at all is how a socket is made to send RST instead of FIN.
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case "half a head":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            case "no HTTP":
                writer.write(b"220 mail.example ESMTP\r\n")
            case "half an answer":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            case "half the chunks":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            case "silence":
                await reader.read()


def failures(proxy: Proxy, at: int) -> int:
    return sum(proxy.resolver.services()["classify"].upstreams[at].failures.values())


async def post(proxy: Proxy, body: bytes | io.BytesIO | AsyncIterator[bytes] = b"image") -> tuple[int, bytes]:
    async with session_to(proxy) as session, session.post("/", data=body) as answer:
        return answer.status, await answer.read()


async def test_a_dead_worker_costs_nobody_an_error() -> None:
    async with Worker() as worker, proxy_for(dead_address(), worker.address) as proxy:
        for _ in range(8):
            assert await post(proxy) == (200, DAISY)
        assert len(worker.requests) == 8
        assert repr(proxy.resolver.services()["classify"]) == "<Pool [2 workers, 1 ejected | 0 in flight]>"


@pytest.mark.parametrize("manner", ["closes at once", "closes after reading", "resets", "half a head", "no HTTP"])
async def test_a_worker_that_breaks_before_it_answers(manner: str) -> None:
    rogue = Rogue(manner)
    async with raw_worker(rogue) as bad, Worker() as worker, proxy_for(bad, worker.address) as proxy:
        for _ in range(8):
            assert await post(proxy) == (200, DAISY)
        assert rogue.times == failures(proxy, 0) == 3  # and out: no upload was tried there twice
        assert [seen.body for seen in worker.requests] == [b"image"] * 8


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_or_draining_worker_is_passed_by(status: int) -> None:
    async with (
        Worker(says(status, b"full")) as busy,
        Worker() as worker,
        proxy_for(busy.address, worker.address) as proxy,
    ):
        for _ in range(12):
            assert await post(proxy) == (200, DAISY)
        assert len(busy.requests) == 1  # it is left alone for the second that it asks for
        assert len(worker.requests) == 12
        assert failures(proxy, 0) == 0  # busy is not ill


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("count", [1, 3])
async def test_when_all_are_busy_their_own_words_are_passed_on(status: int, count: int) -> None:
    answer = says(status, b'{"error": "the queue is full"}', {"Retry-After": "3", "Content-Type": "application/json"})
    async with Worker(answer) as a, Worker(answer) as b, Worker(answer) as c:
        workers = (a, b, c)[:count]
        async with (
            proxy_for(*(worker.address for worker in workers)) as proxy,
            session_to(proxy) as session,
            session.post("/", data=b"image") as said,
        ):
            assert (said.status, said.headers["Retry-After"]) == (status, "3")
            assert await said.json() == {"error": "the queue is full"}
        assert [len(worker.requests) for worker in workers] == [1] * count


async def test_nobody_waits_for_a_cluster_at_its_limit() -> None:
    async with Worker(says(429, b"full")) as busy, proxy_for(busy.address, wait_seconds=30) as proxy:
        async with asyncio.timeout(5):
            assert await post(proxy) == (429, b"full")


@pytest.mark.parametrize("manner", ["half an answer", "half the chunks"])
async def test_half_an_answer_is_never_passed_off_as_a_whole_one(manner: str) -> None:
    rogue = Rogue(manner)
    async with raw_worker(rogue) as bad, Worker() as worker, proxy_for(bad, worker.address) as proxy:
        broken = 0
        for _ in range(2):
            try:
                assert await post(proxy) == (200, DAISY)
            except aiohttp.ClientPayloadError:
                broken += 1
        assert (broken, rogue.times, len(worker.requests)) == (1, 1, 1)
        assert failures(proxy, 0) == 1


async def test_half_an_answer_on_the_wire() -> None:
    async with raw_worker(Rogue("half the chunks")) as bad, proxy_for(bad) as proxy:
        said = await exchange(proxy, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
        assert said.endswith(b"\r\n\r\n4\r\nhalf\r\n")  # no last chunk, and no second answer behind it


async def test_a_worker_that_never_answers_is_504_at_the_deadline() -> None:
    rogue, loop = Rogue("silence"), asyncio.get_running_loop()
    async with raw_worker(rogue) as bad, proxy_for(bad, bad, deadline_seconds=0.4) as proxy:
        began = loop.time()
        status, said = await post(proxy)
        assert (status, b"did not answer in time" in said) == (504, True)
        assert 0.35 < loop.time() - began < 2
        assert rogue.times == 1  # it may still be at work: nobody else is asked


async def test_an_answer_that_stands_still_is_broken_off() -> None:
    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        await asyncio.Event().wait()
        return response

    async with Worker(answer) as worker, proxy_for(worker.address, stall_seconds=0.3) as proxy:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(proxy)


async def test_no_other_worker_is_502_that_says_why() -> None:
    async with raw_worker(Rogue("resets")) as bad, proxy_for(bad) as proxy:
        status, said = await post(proxy)
        assert (status, b"no other one could take the upload" in said) == (502, True)


async def test_an_exhausted_budget_is_502() -> None:
    """With nothing in the budget, even an upload that another worker could take is not tried again."""
    rogue = Rogue("resets")
    async with raw_worker(rogue) as bad, Worker() as worker, proxy_for(bad, worker.address) as proxy:
        proxy.forwarder.budget = Budget(share=0.0, per_second=0.0)
        assert sorted([(await post(proxy))[0], (await post(proxy))[0]]) == [200, 502]
        assert (rogue.times, len(worker.requests)) == (1, 1)


async def test_never_the_same_worker_twice_for_one_upload() -> None:
    rogues = [Rogue("resets") for _ in range(3)]
    async with (
        raw_worker(rogues[0]) as a,
        raw_worker(rogues[1]) as b,
        raw_worker(rogues[2]) as c,
        proxy_for(a, b, c) as proxy,
    ):
        assert (await post(proxy))[0] == 502
        assert [rogue.times for rogue in rogues] == [1, 1, 1]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_streamed_upload_survives_a_worker_that_was_dead_from_the_start(chunked: bool) -> None:
    """Nothing of it was sent, so nothing of it is lost, though it is not held."""
    async with Worker() as worker, proxy_for(dead_address(), worker.address) as proxy:
        for _ in range(4):
            assert await post(proxy, pieces() if chunked else io.BytesIO(BIG)) == (200, DAISY)
        assert [seen.body == BIG for seen in worker.requests] == [True] * 4


async def test_a_streamed_upload_is_lost_with_its_worker_but_never_doubled() -> None:
    rogue = Rogue("resets")
    async with raw_worker(rogue) as bad, Worker() as worker, proxy_for(bad, worker.address) as proxy:
        said = [await post(proxy, pieces()), await post(proxy, pieces())]
        assert sorted(status for status, _ in said) == [200, 502]
        assert [seen.body == BIG for seen in worker.requests] == [True]
        assert failures(proxy, 0) == 1


async def test_a_worker_that_dies_in_the_middle_of_a_streamed_upload() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1_500_000)
        writer.transport.abort()

    async with raw_worker(script) as bad, proxy_for(bad) as proxy:
        status, said = await post(proxy, pieces())
        assert (status, b"the worker was lost" in said) == (502, True)
        assert failures(proxy, 0) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_worker_at_the_end_of_a_streamed_upload(status: int) -> None:
    answer = says(status, b"full", {"Retry-After": "3"})
    async with (
        Worker(answer) as busy,
        proxy_for(busy.address) as proxy,
        session_to(proxy) as session,
        session.post("/", data=pieces()) as said,
    ):
        assert (said.status, said.headers["Retry-After"], await said.read()) == (status, "3", b"full")


def early(answer: bytes) -> Script:
    """Answers when the head is there, and goes on reading until the proxy hangs up."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        while await reader.read(65536):
            pass

    return script


async def test_an_answer_that_comes_before_the_upload_is_over() -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
    async with raw_worker(early(answer)) as bad, proxy_for(bad) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n" + BIG)  # and no more for now
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413 ")
            assert await reader.readexactly(9) == b"too large"
        writer.close()


async def test_no_second_answer_follows_one_that_was_begun() -> None:
    """The upload goes wrong while the answer to it is on its way: it can only be broken off."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with raw_worker(early(answer)) as bad, proxy_for(bad, replay_bytes=1000, stall_seconds=0.3) as proxy:
        said = await exchange(proxy, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" + bytes(5000))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.endswith(b"\r\n\r\nhalf")
        assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("GET", 304)])
async def test_a_connection_is_not_used_again_after_an_answer_without_a_body(method: str, status: int) -> None:
    """A worker that sends a body all the same would answer the next client with it."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 %d Fine\r\nContent-Length: 0\r\n\r\n" % status)

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy, session_to(proxy) as session:
        for _ in range(3):
            async with session.request(method, "/x") as said:
                assert said.status == status
    assert connections == 3
