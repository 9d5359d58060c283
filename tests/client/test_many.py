"""Many images at once, and the client without `await`: order, bounds, bad ones among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from fairway.client import Client, ImageRefused, NoWorker, Prediction, SyncClient
from fairway.client.client import Source
from fairway.client.config import Via

from ..proxy.stage import Seen, Worker, cluster, image_of, says, url

VIAS: tuple[Via, ...] = ("address", "forward", "redirect")
EXPECTED = Prediction((("daisy", 0.9), ("tulips", 0.1)))


async def echo(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Says the image's own bytes as the label; `bad` is refused. Those first to come are last to be answered."""
    text = image_of(seen).decode()
    await asyncio.sleep(0.02 * (5 - int(text[-1]) % 5) if text[-1].isdigit() else 0)
    if text.startswith("bad"):
        return web.json_response({"error": "not an image"}, status=415)
    return web.json_response([[text, 1.0]])


@pytest.mark.parametrize("via", VIAS)
async def test_many_keep_their_order_and_survive_the_bad_ones(via: Via, tmp_path: Path) -> None:
    images: list[Source] = [f"image{i}".encode() for i in range(12)]
    images[3], images[7], images[9] = b"bad3", tmp_path / "missing.jpg", "no\0file.jpg"
    async with cluster(echo, echo) as (proxy, _), Client(url(proxy), via=via) as client:
        found = [pair async for pair in client.classify_many(images, concurrency=4)]
    assert [image for image, _ in found] == images
    for i, (image, answer) in enumerate(found):
        if i == 3:
            assert isinstance(answer, ImageRefused)
        elif i in (7, 9):
            assert isinstance(answer, FileNotFoundError)
        else:
            assert isinstance(answer, Prediction)
            assert answer.label.encode() == image


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_at_most_so_many_at_once_and_little_read_ahead(concurrency: int) -> None:
    running = most = read = 0
    reached = asyncio.Event()

    async def counted(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == concurrency:
            reached.set()
        await reached.wait()  # nobody is answered before as many are there as may be
        await asyncio.sleep(0)
        running -= 1
        return web.json_response([["x", 1.0]])

    def images() -> Iterator[Source]:
        nonlocal read
        for _ in range(30):
            read += 1
            yield b"image"

    async with cluster(counted) as (proxy, _), Client(url(proxy)) as client:
        done = 0
        async for _ in client.classify_many(images(), concurrency=concurrency):
            done += 1
            assert read - done <= 4 * concurrency + 1
    assert (done, most) == (30, concurrency)


async def test_many_from_a_source_that_is_slow_to_come() -> None:
    """An answer is handed on as soon as it is there, not when the next name is."""
    more = asyncio.Event()

    async def names() -> AsyncIterator[Source]:
        yield b"first"
        await more.wait()
        yield b"second"

    async with cluster() as (proxy, _), Client(url(proxy)) as client, asyncio.timeout(5):
        answers = client.classify_many(names())
        assert (await anext(answers))[0] == b"first"
        more.set()
        assert [image async for image, _ in answers] == [b"second"]


async def test_many_can_be_left_in_the_middle() -> None:
    async with cluster() as (proxy, _), Client(url(proxy)) as client:
        answers = client.classify_many(b"image" for _ in range(100))
        await anext(answers)
        await answers.aclose()
        assert await client.classify(b"image") == EXPECTED


def use_sync(base: str, via: Via) -> None:
    with SyncClient(base, via=via) as client:
        assert client.classify(b"image") == EXPECTED
        found = list(client.classify_many([b"a", b"b", "/nowhere.jpg"], concurrency=2))
        assert [image for image, _ in found] == [b"a", b"b", "/nowhere.jpg"]
        assert [answer for _, answer in found[:2]] == [EXPECTED, EXPECTED]
        assert isinstance(found[2][1], FileNotFoundError)
        answers = iter(client.classify_many(b"x" for _ in range(50)))
        next(answers)  # and no more of them
    client.close()


@pytest.mark.parametrize("via", VIAS)
async def test_sync_client_in_a_plain_thread(via: Via) -> None:
    async with cluster() as (proxy, _):
        await asyncio.to_thread(use_sync, url(proxy), via)


async def test_sync_client_inside_a_running_loop() -> None:
    """As in a notebook: the caller's own loop is running, and blocked while it waits."""
    async with cluster() as (proxy, _):
        base = url(proxy)

        async def cell() -> None:
            use_sync(base, "address")

        await asyncio.to_thread(asyncio.run, cell())


async def test_sync_client_raises_the_same_errors() -> None:
    async with cluster(says(415, b'{"error": "not an image"}')) as (proxy, _):
        with SyncClient(url(proxy)) as client, pytest.raises(ImageRefused, match="not an image"):
            await asyncio.to_thread(client.classify, b"text")


async def test_a_look_up_is_shared_by_all_who_need_it() -> None:
    asked = 0

    async def nobody(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return web.json_response({"error": "no worker"}, status=503)

    async with Worker(nobody) as door, Client(f"http://{door.address}", timeout=0.5) as client:
        found = [answer async for _, answer in client.classify_many([b"image"] * 8, concurrency=8)]
    assert all(isinstance(answer, NoWorker) for answer in found)
    assert 1 < asked <= 4  # 0.05 s each, and 0.1 s between two
