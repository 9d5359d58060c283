"""The client library against a real proxy and small real workers, in all three manners."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from fairway.client import (
    Busy,
    Client,
    ClientError,
    DeadlineExceeded,
    ImageRefused,
    NoWorker,
    Prediction,
    Unreachable,
    WorkerFailed,
)
from fairway.client.client import Source
from fairway.client.config import Via

from ..proxy.stage import Seen, Worker, cluster, dead_address, image_of, proxy_for, raw_worker, says, url

VIAS: tuple[Via, ...] = ("address", "forward", "redirect")
EXPECTED = Prediction((("daisy", 0.9), ("tulips", 0.1)))
NAME = re.compile(rb'filename="([^"]*)"')


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("kind", ["text", "path", "bytes"])
async def test_classify(via: Via, kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'my "daisy".jpg'
    path.write_bytes(b"\xff\xd8 an image\r\n")
    images: dict[str, Source] = {"text": str(path), "path": path, "bytes": path.read_bytes()}
    image = images[kind]
    async with cluster() as (proxy, workers), Client(url(proxy), via=via) as client:
        for _ in range(4):
            assert await client.classify(image) == EXPECTED
        assert [len(worker.requests) for worker in workers] == [2, 2]
        seen = workers[0].requests[0]
        assert (seen.method, seen.target, image_of(seen)) == ("POST", "/", path.read_bytes())
        assert ("Via" in seen.headers) is (via == "forward")  # otherwise straight from us
        named = NAME.search(seen.body.replace(b'\\"', b"'"))
        assert named is not None
        assert named[1] == (b"image" if kind == "bytes" else b"my 'daisy'.jpg")
        await client.classify(image, top=2)
        assert {seen.target for worker in workers for seen in worker.requests} == {"/", "/?top=2"}


@pytest.mark.parametrize("via", VIAS)
async def test_an_image_of_several_megabytes(via: Via) -> None:
    image = bytes(range(256)) * 12_000
    async with cluster() as (proxy, workers), Client(url(proxy), via=via) as client:
        assert await client.classify(image) == EXPECTED
        (seen,) = workers[0].requests + workers[1].requests
        assert image_of(seen) == image


@pytest.mark.parametrize("via", VIAS)
async def test_a_dead_worker_is_passed_by(via: Via) -> None:
    async with Worker() as worker, proxy_for(dead_address(), worker.address) as proxy:
        async with Client(url(proxy), via=via) as client:
            for _ in range(6):
                assert await client.classify(b"image") == EXPECTED
        assert len(worker.requests) == 6


@pytest.mark.parametrize("via", VIAS)
async def test_a_worker_that_resets_is_passed_by(via: Via) -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with raw_worker(resets) as bad, Worker() as worker, proxy_for(bad, worker.address) as proxy:
        async with Client(url(proxy), via=via) as client:
            for _ in range(6):
                assert await client.classify(b"image") == EXPECTED
        assert len(worker.requests) == 6


@pytest.mark.parametrize("via", ["address", "redirect"])
async def test_a_busy_worker_is_passed_by(via: Via) -> None:
    async with cluster(says(429, b"{}"), Worker().answer) as (proxy, (_, free)), Client(url(proxy), via=via) as client:
        for _ in range(4):
            assert await client.classify(b"image") == EXPECTED
        assert len(free.requests) == 4


ERRORS: list[tuple[int, bytes, type[ClientError], str]] = [
    (400, b'{"error": "a broken image"}', ImageRefused, "^a broken image$"),
    (413, b'{"error": "too large"}', ImageRefused, "^too large$"),
    (415, b'{"error": "not an image"}', ImageRefused, "^not an image$"),
    (422, b"plain text", ImageRefused, "^plain text$"),
    (404, b'{"error": "no such service"}', NoWorker, "^no such service$"),
    (429, b'{"error": "the queue is full"}', Busy, "^the queue is full$"),
    (503, b'{"error": "draining"}', NoWorker, "^draining$"),
    (504, b'{"error": "too late"}', DeadlineExceeded, "^too late$"),
    (500, b'{"error": "it fell over"}', WorkerFailed, "answered 500: it fell over"),
    (502, b"", WorkerFailed, "answered 502"),
    (307, b"", WorkerFailed, "307"),
    (200, b"", WorkerFailed, "not with a prediction"),
    (200, b"<html>", WorkerFailed, "not with a prediction"),
    (200, b"[]", WorkerFailed, "not with a prediction"),
    (200, b'{"daisy": 0.9}', WorkerFailed, "not with a prediction"),
    (200, b'[["daisy"]]', WorkerFailed, "not with a prediction"),
    (200, b"\xff\xfe", WorkerFailed, "not with a prediction"),
]


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("status", "body", "error", "text"), ERRORS)
async def test_typed_errors(via: Via, status: int, body: bytes, error: type[ClientError], text: str) -> None:
    # Time enough for all its attempts, or the deadline would end one of them.
    async with cluster(says(status, body)) as (proxy, (worker,)), Client(url(proxy), via=via, timeout=30) as client:
        with pytest.raises(error, match=text) as caught:
            await client.classify(b"image")
        assert type(caught.value) is error
        if error is ImageRefused:
            assert caught.value.status == status
            assert len(worker.requests) == 1  # to try it again would not help


@pytest.mark.parametrize("via", VIAS)
async def test_nobody_at_the_proxys_address(via: Via) -> None:
    address = dead_address()
    async with Client(f"http://{address}", via=via) as client:
        with pytest.raises(Unreachable, match=str(address)):
            await client.classify(b"image")


@pytest.mark.parametrize("via", VIAS)
async def test_no_worker(via: Via) -> None:
    async with proxy_for(wait_seconds=0.05) as proxy, Client(url(proxy), via=via, timeout=0.9) as client:
        with pytest.raises(NoWorker, match="no worker serves 'classify'"):
            await client.classify(b"image")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"9001\n", WorkerFailed),
        (b'{"service": "classify"}', WorkerFailed),
        (b'{"service": "classify", "instances": [], "ttl_seconds": 5}', NoWorker),
    ],
)
async def test_a_door_that_hands_out_no_addresses(body: bytes, error: type[ClientError]) -> None:
    async with Worker(says(200, body)) as door, Client(f"http://{door.address}", timeout=0.5) as client:
        with pytest.raises(error):
            await client.classify(b"image")


@pytest.mark.parametrize("via", VIAS)
async def test_one_deadline_for_all_attempts(via: Via) -> None:
    async def silence(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    loop = asyncio.get_running_loop()
    async with cluster(silence, silence) as (proxy, _), Client(url(proxy), via=via, timeout=0.3) as client:
        began = loop.time()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            await client.classify(b"image")
        assert 0.25 < loop.time() - began < 2


async def test_a_service_by_name() -> None:
    async with cluster() as (proxy, workers):
        async with Client(url(proxy), service="classify", via="forward") as client:
            assert await client.classify(b"image") == EXPECTED
        async with Client(url(proxy), service="pets") as client:
            with pytest.raises(NoWorker, match="no service is called 'pets'"):
                await client.classify(b"image")
        assert sum(len(worker.requests) for worker in workers) == 1


async def test_addresses_are_asked_for_once_in_their_time() -> None:
    lookups = 0

    async def door(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        nonlocal lookups
        lookups += 1
        row = {"id": "w", "host": worker.address.host, "port": worker.address.port}
        return web.json_response({"service": "classify", "instances": [row], "ttl_seconds": 60})

    async with Worker() as worker, Worker(door) as proxy, Client(f"http://{proxy.address}") as client:
        await asyncio.gather(*(client.classify(b"image") for _ in range(20)))
        assert (lookups, len(worker.requests)) == (1, 20)
        assert repr(client) == f"<Client http://{proxy.address} via address [<AddressCache 1 workers>]>"
