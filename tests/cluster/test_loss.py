"""Nothing is lost, with real models: workers die by kill -9, or leave and come back, in the middle of 500 uploads."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import pytest

from fairway.client import Client
from fairway.client.config import Via
from fairway.registry.instance import Address, Query
from fairway.registry.link import Link
from fairway.worker.tensor import Prediction

from .conftest import WORKERS, Cluster
from .uploads import Image, Load, Said, Send

UPLOADS = 500


@pytest.mark.parametrize("via", ["forward", "address", "redirect"])
async def test_kill_9_of_one_worker_of_three(cluster: Cluster, via: Via) -> None:
    names = sorted(cluster.expected)
    images = [(cluster.photos / name).read_bytes() for name in names]
    link = Link(Address("127.0.0.1", cluster.registry))
    await link.start(wait_seconds=10)
    query = Query("classify")
    await link.wait_for(lambda: len(link.query(query)) == WORKERS, 60)
    victim = link.query(query)[1]
    wrong = []
    answered = 0
    async with Client(cluster.url, via=via) as client:
        uploads = (images[i % len(images)] for i in range(UPLOADS))
        async for image, answer in client.classify_many(uploads, concurrency=16):
            name = names[images.index(image)]  # type: ignore[arg-type]
            if not isinstance(answer, Prediction) or [list(p) for p in answer] != cluster.expected[name]:
                wrong.append((answered, name, answer))
            answered += 1
            if answered == 100:
                os.kill(victim.meta["pid"], signal.SIGKILL)
                # The registry drops it on the lost connection, long before its lease would run out.
                await link.wait_for(lambda: victim not in link.query(query), 1)
    assert answered == UPLOADS
    assert not wrong
    # ... and the supervisor brings another one up.
    await link.wait_for(lambda: len(link.query(query)) == WORKERS, 60)
    await link.close()


@asynccontextmanager
async def photos(cluster: Cluster) -> AsyncIterator[Send]:
    """Sends the album's photo in the place of each image, by an ordinary HTTP client, and checks what it shows."""
    names, turn = sorted(cluster.expected), count()
    album = {name: (cluster.photos / name).read_bytes() for name in names}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def send(_: Image) -> Said:
            name = names[next(turn) % len(names)]
            try:
                async with session.post(f"{cluster.url}/", data=album[name]) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                return Said(0, False, text=f"{type(error).__name__}: {error}")
            right = answer.status == 200 and json.loads(body) == cluster.expected[name]
            return Said(answer.status, right, text=body.decode()[:200])

        yield send


async def replaced(link: Link, query: Query, id: str) -> None:
    """Until `id` is gone, and as many serve as before."""
    await link.wait_for(lambda: id not in {instance.id for instance in link.query(query)}, 30)
    await link.wait_for(lambda: sum(instance.serving for instance in link.query(query)) == WORKERS, 60)


async def test_all_workers_leave_and_come_back_one_after_another(cluster: Cluster) -> None:
    """The first by kill -9, the others as they are asked to; the ordinary client has no second try."""
    link = Link(Address("127.0.0.1", cluster.registry))
    await link.start(wait_seconds=10)
    query = Query("classify")
    await link.wait_for(lambda: len(link.query(query)) == WORKERS, 60)
    before = link.query(query)
    async with photos(cluster) as send, Load(send, concurrency=4, sizes=(10,), pause=0.02) as load:
        load.more()
        for number, worker in zip((signal.SIGKILL, signal.SIGTERM, signal.SIGTERM), before, strict=True):
            await load.answered(50)
            os.kill(worker.meta["pid"], number)
            await replaced(link, query, worker.id)
        await load.answered(50)
        load.enough()
    assert not {i.id for i in before} & {i.id for i in link.query(query)}
    await link.close()
    assert load.failed == []
    assert len(load.said) >= UPLOADS


def test_registry_shows_the_workers_over_http(cluster: Cluster) -> None:
    base = f"http://127.0.0.1:{cluster.registry}"
    with urllib.request.urlopen(f"{base}/v1/catalog/services", timeout=10) as answer:
        assert json.load(answer) == {"classify": []}
    with urllib.request.urlopen(f"{base}/v1/health/service/classify?passing", timeout=10) as answer:
        ports = {entry["Service"]["Port"] for entry in json.load(answer)}
    assert ports == {worker["port"] for worker in cluster.workers()}
