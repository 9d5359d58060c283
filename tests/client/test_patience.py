"""What a client does when an upload fails: on another worker at once, with the same one after a pause, within bounds."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from aiohttp import web

from fairway.client import Busy, Client, DeadlineExceeded, NoWorker, Prediction, Unreachable, WorkerFailed
from fairway.client.config import Via
from fairway.client.retry import ATTEMPTS, FIRST_ATTEMPTS, Budget
from fairway.registry.instance import Address
from fairway.registry.ports import free_port

from ..proxy.stage import (
    BIG,
    DAISY,
    Answer,
    Script,
    Seen,
    Worker,
    cluster,
    dead_address,
    image_of,
    proxy_for,
    raw_worker,
    read_request,
    says,
    url,
)

VIAS: tuple[Via, ...] = ("address", "forward", "redirect")
EXPECTED = Prediction((("daisy", 0.9), ("tulips", 0.1)))
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(DAISY), DAISY)


def first(times: int, status: int, headers: dict[str, str]) -> Answer:
    """The first so many are told `status`, all others that it is a daisy."""
    left = times

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        nonlocal left
        left -= 1
        if left >= 0:
            return web.json_response({"error": "not now"}, status=status, headers=headers)
        return web.Response(body=DAISY)

    return answer


async def silence(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def door(asked: list[float], *workers: Address, ttl: float = 60.0) -> Answer:
    """What hands out `workers`, and notes when it was asked."""

    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        asked.append(asyncio.get_running_loop().time())
        rows = [{"id": str(at), "host": at.host, "port": at.port} for at in workers]
        return web.json_response({"service": "classify", "instances": rows, "ttl_seconds": ttl})

    return answer


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_only_worker_is_asked_again_when_it_said_so(via: Via, status: int) -> None:
    loop = asyncio.get_running_loop()
    async with (
        cluster(first(1, status, {"Retry-After": "1"})) as (proxy, (worker,)),
        Client(url(proxy), via=via) as client,
    ):
        began = loop.time()
        assert await client.classify(b"image") == EXPECTED
        assert 1.0 <= loop.time() - began < 3.0
        assert len(worker.requests) == 2


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("status", "error"), [(429, Busy), (503, NoWorker)])
async def test_a_time_beyond_the_deadline_is_not_waited_for(via: Via, status: int, error: type[Exception]) -> None:
    loop = asyncio.get_running_loop()
    answer = says(status, b'{"error": "not now"}', {"Retry-After": "60"})
    async with cluster(answer) as (proxy, (worker,)), Client(url(proxy), via=via) as client:
        began = loop.time()
        with pytest.raises(error, match="not now"):
            await client.classify(b"image")
        assert loop.time() - began < 2.0
        assert len(worker.requests) == 1


@pytest.mark.parametrize("via", VIAS)
async def test_a_frozen_worker_costs_one_attempt_not_the_image(via: Via) -> None:
    async with (
        cluster(silence, Worker().answer) as (proxy, (frozen, worker)),
        Client(url(proxy), via=via, attempt_timeout=0.3, timeout=10) as client,
    ):
        found = [answer async for _, answer in client.classify_many([b"image"] * 12, concurrency=4)]
        assert found == [EXPECTED] * 12
        assert len(worker.requests) == 12
        if via != "forward":  # by forward it is for the proxy to judge
            assert 1 <= len(frozen.requests) < 8  # those under way when it was not yet known, and a turn of bad luck


@pytest.mark.parametrize("via", VIAS)
async def test_a_slow_upload_is_no_frozen_worker(via: Via) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while length:
            length -= len(await reader.readexactly(min(length, 1_000_000)))
            await asyncio.sleep(0.05)  # a slow line is what this is about
        writer.write(OK)
        await writer.drain()

    async with (
        raw_worker(script) as worker,
        proxy_for(worker, replay_bytes=1000) as proxy,
        Client(url(proxy), via=via, attempt_timeout=1.0) as client,
    ):
        assert await client.classify(bytes(30_000_000)) == EXPECTED


@pytest.mark.parametrize("via", ["forward", "redirect"])
async def test_a_proxy_that_is_away_for_a_moment(via: Via) -> None:
    port = free_port()
    async with Worker() as worker, Client(f"http://127.0.0.1:{port}", via=via) as client:
        async with proxy_for(worker.address, port=port):
            assert await client.classify(b"image") == EXPECTED
        uploads = [asyncio.create_task(client.classify(b"image")) for _ in range(8)]
        await asyncio.sleep(0.3)  # how long a restart takes is what this is about
        assert not any(upload.done() for upload in uploads)
        async with proxy_for(worker.address, port=port):
            assert await asyncio.gather(*uploads) == [EXPECTED] * 8


async def test_a_proxy_that_is_gone_is_not_missed_by_who_knows_the_workers() -> None:
    port = free_port()
    async with Worker() as worker, Client(f"http://127.0.0.1:{port}") as client:
        async with proxy_for(worker.address, port=port, address_ttl_seconds=0.0):
            assert await client.classify(b"image") == EXPECTED
        for _ in range(8):
            assert await client.classify(b"image") == EXPECTED


@pytest.mark.parametrize("via", VIAS)
async def test_a_long_image_is_held_here_when_the_proxy_cannot(via: Via) -> None:
    """Too long for the proxy to send again: it says 502, and the client has it still."""
    resets = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal resets
        await reader.readexactly(1_000_000)
        resets += 1
        writer.transport.abort()

    async with (
        raw_worker(script) as bad,
        Worker() as worker,
        proxy_for(bad, worker.address, replay_bytes=1000) as proxy,
        Client(url(proxy), via=via) as client,
    ):
        for _ in range(4):
            assert await client.classify(BIG) == EXPECTED
        assert [image_of(seen) == BIG for seen in worker.requests if seen.complete] == [True] * 4
        assert 1 <= resets <= 3


@pytest.mark.parametrize("via", VIAS)
async def test_an_exhausted_budget_is_the_error_itself(via: Via) -> None:
    async with cluster(says(503, b'{"error": "leaving"}')) as (proxy, (worker,)), Client(url(proxy), via=via) as client:
        client._budget = Budget(share=0.0, per_second=0.0)
        with pytest.raises(NoWorker, match="leaving"):
            await client.classify(b"image")
        assert len(worker.requests) == 1


@pytest.mark.parametrize("met", [False, True])
async def test_so_many_attempts_and_no_more(met: bool) -> None:
    """More patience where a worker has answered before."""
    count = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await read_request(reader)
        count += 1
        if met and count == 1:
            writer.write(OK)

    asked: list[float] = []
    async with (
        raw_worker(script) as worker,
        Worker(door(asked, worker)) as proxy,
        Client(f"http://{proxy.address}") as client,
    ):
        if met:
            assert await client.classify(b"image") == EXPECTED
        with pytest.raises(WorkerFailed, match="broke the connection"):
            await client.classify(b"image")
    assert count == (1 + ATTEMPTS if met else FIRST_ATTEMPTS)
    assert len(asked) <= ATTEMPTS + 1


async def test_addresses_are_not_asked_for_in_a_tight_loop() -> None:
    """Hundreds of uploads that fail at the only worker there is: a few look-ups a second."""
    loop, asked = asyncio.get_running_loop(), list[float]()
    async with Worker(door(asked, dead_address())) as proxy, Client(f"http://{proxy.address}", timeout=0.9) as client:
        began = loop.time()
        found = [answer async for _, answer in client.classify_many([b"image"] * 200, concurrency=32)]
        assert {type(answer) for answer in found} == {Unreachable}
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        assert all(gap > 0.2 for gap in gaps)
        assert len(asked) <= 2 + (loop.time() - began) / 0.2


async def test_a_redirect_to_one_who_has_just_failed_is_asked_for_once_more() -> None:
    """The proxy that redirects does not see that its worker is dead; who was sent there does."""
    dead = dead_address()
    asked: list[str] = []
    async with Worker() as worker:

        async def redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            to = worker.address if len(asked) % 2 else dead
            asked.append(str(to))
            writer.write(f"HTTP/1.1 307 .\r\nLocation: http://{to}/\r\nConnection: close\r\n\r\n".encode())

        async with raw_worker(redirects) as proxy, Client(f"http://{proxy}", via="redirect") as client:
            assert await client.classify(b"image") == EXPECTED
            assert asked == [str(dead), str(worker.address)]
            for _ in range(3):
                assert await client.classify(b"image") == EXPECTED
            assert len(asked) == 2 + 3 * 2  # asked twice each, uploaded once each
            assert len(worker.requests) == 4


async def test_the_deadline_tells_what_came_before() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with raw_worker(script) as resets, Worker(silence) as frozen:
        asked: list[float] = []
        async with (
            Worker(door(asked, resets, frozen.address)) as proxy,
            Client(f"http://{proxy.address}", timeout=0.5, attempt_timeout=5) as client,
        ):
            with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s; before that: .*broke the connection"):
                await client.classify(b"image")


async def answers_in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(OK[:-10])


@pytest.mark.parametrize("script", [answers_in_pieces])
@pytest.mark.parametrize("via", VIAS)
async def test_half_an_answer_is_no_answer(via: Via, script: Script) -> None:
    async with (
        raw_worker(script) as bad,
        Worker() as worker,
        proxy_for(bad, worker.address) as proxy,
        Client(url(proxy), via=via) as client,
    ):
        for _ in range(4):
            assert await client.classify(b"image") == EXPECTED
        assert json.loads(DAISY) == [list(pair) for pair in EXPECTED]
