"""Nothing is lost: a worker dies by kill -9 in the middle of 500 uploads, and every one is answered correctly."""

from __future__ import annotations

import json
import os
import signal
import urllib.request

import pytest

from fairway.client import Client
from fairway.client.config import Via
from fairway.registry.instance import Address, Query
from fairway.registry.link import Link
from fairway.worker.tensor import Prediction

from .conftest import WORKERS, Cluster

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


def test_registry_shows_the_workers_over_http(cluster: Cluster) -> None:
    base = f"http://127.0.0.1:{cluster.registry}"
    with urllib.request.urlopen(f"{base}/v1/catalog/services", timeout=10) as answer:
        assert json.load(answer) == {"classify": []}
    with urllib.request.urlopen(f"{base}/v1/health/service/classify?passing", timeout=10) as answer:
        ports = {entry["Service"]["Port"] for entry in json.load(answer)}
    assert ports == {worker["port"] for worker in cluster.workers()}
