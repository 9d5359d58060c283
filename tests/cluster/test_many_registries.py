"""Several registries over one etcd: any registry and any member may die in the middle of uploads, and none is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fairway.client import Client
from fairway.registry import Address, Instance, Link, Query
from fairway.registry.ports import free_port
from fairway.registry.store import open_store
from fairway.worker.tensor import Prediction

from ..conformance.etcd import etcd_missing, running_cluster
from ..registry.peers import PATIENCE
from .processes import FAIRWAY, Running

CLASSIFY = Query("classify")


def asked(url: str, method: str = "GET", body: Any = None) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        said = answer.read()
    return json.loads(said) if said else None


@contextmanager
def registry(port: int, store: str) -> Iterator[Running]:
    with Running([*FAIRWAY, "registry", f"--port={port}", f"--store={store}"]) as running:
        running.line("registry listening on")
        yield running


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Asks another process over HTTP, again and again."""

    def poll() -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    await asyncio.to_thread(poll)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_no_upload_fails_when_registries_and_members_die(photos: Path, end: signal.Signals) -> None:
    if missing := etcd_missing():
        pytest.skip(missing)
    one, two, door = free_port(), free_port(), free_port()
    photo = (photos / "daisy.jpg").read_bytes()
    async with running_cluster(3) as etcd:
        store = f"etcd://{etcd.hosts}/uploads"
        with ExitStack() as stack:
            first = stack.enter_context(registry(one, store))
            stack.enter_context(registry(two, store))
            # The workers' first choice is the one that dies; the proxy's, too.
            where = f"--registry=127.0.0.1:{one},127.0.0.1:{two}"
            for _ in range(2):
                stack.enter_context(Running([*FAIRWAY, "worker", where, "--threads=1"]))
            stack.enter_context(Running([*FAIRWAY, "proxy", where, f"--port={door}"])).line("proxy listening on")
            link = Link(f"127.0.0.1:{two}")
            await link.start(PATIENCE)
            await link.wait_for(lambda: len(link.query(CLASSIFY)) == 2, 120)
            ids = {instance.id for instance in link.query(CLASSIFY)}
            answered = 0
            gone: set[str] = set()

            def watch() -> None:
                gone.update(ids - {instance.id for instance in link.query(CLASSIFY) if instance.serving})

            async with Client(f"http://127.0.0.1:{door}", via="forward") as client:
                expected = list(await client.classify(photo))
                async for _, answer in client.classify_many((photo for _ in range(400)), concurrency=8):
                    assert isinstance(answer, Prediction), answer
                    assert list(answer) == expected
                    answered += 1
                    watch()
                    if answered == 50:
                        etcd.members[0].kill()
                    if answered == 150:
                        first.send(end)
                # Longer than the lease under which the dead registry had written the workers' rows.
                for _ in range(5 if end == signal.SIGTERM else 15):
                    assert list(await client.classify(photo)) == expected
                    watch()
                    await asyncio.sleep(1)
            if end == signal.SIGSTOP:
                first.send(signal.SIGKILL)  # it would not hear SIGTERM
            assert answered == 400
            assert not gone, "a registration was lost on the way"
            await link.close()


async def test_what_is_registered_over_http_belongs_to_all_registries() -> None:
    """Registered at one, passed at the other, put into maintenance at the first, deregistered at the other."""
    if missing := etcd_missing():
        pytest.skip(missing)
    one, two = free_port(), free_port()
    a, b = f"http://127.0.0.1:{one}/v1", f"http://127.0.0.1:{two}/v1"

    def statuses(base: str) -> list[str]:
        return [check["Status"] for check in asked(f"{base}/health/checks/classify")]

    def passing(base: str) -> list[str]:
        return [entry["Service"]["ID"] for entry in asked(f"{base}/health/service/classify?passing")]

    async with running_cluster() as etcd:
        store = f"etcd://{etcd.hosts}/shared"
        with registry(one, store) as first, registry(two, store):
            body = {"Name": "classify", "ID": "A1", "Port": 9001, "Check": {"TTL": "6s", "Status": "critical"}}
            asked(f"{a}/agent/service/register", "PUT", body)
            await until(lambda: statuses(b) == ["critical"])
            for turn in range(10):  # longer than a time to live, each time at another one
                asked(f"{(b, a)[turn % 2]}/agent/check/pass/service:A1", "PUT")
                await until(lambda: passing(a) == passing(b) == ["A1"])
                await asyncio.sleep(0.8)
            asked(f"{a}/agent/service/maintenance/A1?enable=true&reason=test", "PUT")
            await until(lambda: passing(b) == [])
            asked(f"{b}/agent/service/maintenance/A1?enable=false", "PUT")
            asked(f"{b}/agent/check/pass/service:A1", "PUT")
            await until(lambda: passing(a) == ["A1"])
            for register, deregister in ((a, b), (b, a)):
                asked(f"{register}/agent/service/register", "PUT", body | {"ID": "A2"})
                await until(lambda: statuses(a) == statuses(b) == ["passing", "critical"])
                asked(f"{deregister}/agent/service/deregister/A2", "PUT")
                await until(lambda: statuses(a) == statuses(b) == ["passing"])
                asked(f"{b}/agent/check/pass/service:A1", "PUT")
            first.send(signal.SIGKILL)
            asked(f"{b}/agent/check/pass/service:A1", "PUT")
            assert passing(b) == ["A1"], "it was not the dead registry's"
            asked(f"{b}/agent/service/deregister/A1", "PUT")
            await until(lambda: asked(f"{b}/health/service/classify") == [])
        with registry(one, store):
            await until(lambda: asked(f"{a}/status/leader") != "")
            assert asked(f"{a}/health/service/classify") == []


async def test_workers_and_readers_need_no_registry_at_all() -> None:
    if missing := etcd_missing():
        pytest.skip(missing)
    async with running_cluster() as etcd:
        url = f"etcd://{etcd.hosts}/direct"
        worker, reader = open_store(url), open_store(url)
        await worker.start()
        await reader.start()
        await worker.announce(Instance("A1", "classify", Address("127.0.0.1", 9001)))
        await reader.wait_for(lambda: [i.id for i in reader.instances()] == ["A1"], PATIENCE)
        with Running([*FAIRWAY, "lookup", "classify", f"--registry={url}"]) as lookup:
            assert lookup.ended() == 0
            assert lookup.said.splitlines()[-1] == "127.0.0.1:9001"
        await worker.close()
        await reader.close()
