"""A worker's life as a process: ready, changed, hung, stopped."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.registry.instance import Address, Query
from fairway.registry.link import Link

from ..cluster.processes import FAIRWAY, Running
from ..conftest import ROOT
from .colours import plain

ENVIRONMENT = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
MOODY = ("--model=python:tests.worker.odd_model:Moody", "--batching=off", "--threads=2")
PATIENCE = 60.0
GRAY, BLACK = plain("#808080"), plain("black")


def worker(*options: str, registry: str = "none") -> Running:
    return Running([*FAIRWAY, "worker", f"--registry={registry}", "--drain-seconds=0", *options], env=ENVIRONMENT)


def serving(running: Running) -> int:
    return int(running.line(r"serving .* on http://127\.0\.0\.1:(\d+)/")[1])


def ask(port: int, method: str, path: str = "/", body: bytes = b"") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


@pytest.fixture
def moody() -> Iterator[Running]:
    with worker(*MOODY, "--hang-seconds=1") as running:
        yield running


def test_a_worker_whose_model_hangs_ends_to_be_started_anew(moody: Running) -> None:
    port = serving(moody)
    assert ask(port, "POST", body=GRAY)[1][0][0] == "bright"
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(port, "POST", body=BLACK)))
    asking.start()
    assert moody.ended(20) == 70
    asking.join()
    ((status, body),) = answers  # who waited is told, and may ask elsewhere
    assert (status, "hangs" in body["error"]) == (503, True)
    assert "a model hangs" in moody.said


def test_the_supervisor_replaces_it() -> None:
    options = ("--model=python:tests.worker.odd_model:Moody", "--batching=off", "--workers=1", "--registry-port=0")
    command = [*FAIRWAY, "launch", *options, "--proxy-port=0", "--", "--hang-seconds=1"]
    with Running(command, env=ENVIRONMENT) as launch:
        launch.line(r"^Ready\.")
        proxy = int(launch.line(r"^ +proxy +http://127\.0\.0\.1:(\d+)/")[1])
        ask(proxy, "POST", body=BLACK)  # whatever is said to it: there is no other worker
        launch.line("worker 1 exited with status 70; starting it again")
        launch.line("passing classify")
        assert ask(proxy, "POST", body=GRAY)[1][0][0] == "bright"


def test_sigterm_while_it_loads_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow_model.py").write_text("import threading, sys\nthreading.Event().wait()\n")
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    command = [*FAIRWAY, "worker", "--registry=none", "--model=python:slow_model:Model"]
    with Running(command, env=environment) as running:
        running.line("loading")
        running.send(signal.SIGTERM)
        assert running.ended(10) == 0


async def test_sighup_looks_for_new_versions_and_the_registry_is_told(tmp_path: Path) -> None:
    bundled, folder = ROOT / "worker" / "models" / "flowers", tmp_path / "flowers"
    shutil.copytree(bundled / "1", folder / "1")
    options = (
        f"--model={folder}",
        "--poll-seconds=0",
        "--runtime=tensorflow",
        "--batching=off",
        "--version-policy=all",
    )
    with Running([*FAIRWAY, "registry", "--port=0", "--store=embedded:"]) as registry:
        address = Address.parse(registry.line(r"(127\.0\.0\.1:\d+)")[1])
        link = Link(address)
        await link.start()

        def told() -> list[tuple[str, ...]]:
            return [instance.models for instance in link.query(Query("classify"))]

        try:
            with worker(*options, registry=str(address)) as running:
                port = await asyncio.to_thread(serving, running)
                await link.wait_for(lambda: told() == [("flowers/1",)], PATIENCE)
                shutil.copytree(bundled / "1", folder / "2")
                running.send(signal.SIGHUP)
                await link.wait_for(lambda: told() == [("flowers/1", "flowers/2")], PATIENCE)
                (model,) = (await asyncio.to_thread(ask, port, "GET", "/models"))[1]["models"]
                assert [version["version"] for version in model["versions"]] == [2, 1]
        finally:
            await link.close()
