"""Workers that end, or freeze, without a word, under load."""

from __future__ import annotations

import json
import signal

import pytest

from fairway.client.config import Via

from .fleet import Fleet
from .uploads import CONCURRENCY, UPLOADS, Load, by_library, plainly

DEADLINE = 1.0  # seconds that the proxy gives a worker


async def test_kill_9_of_one_of_three(fleet: Fleet, hub: int) -> None:
    """The ordinary client has no second try: the proxy has."""
    door, workers = fleet.cluster(3, hub)
    async with plainly(door.url) as send, Load(send) as load:
        await load.answered(150)
        workers[1].send(signal.SIGKILL)
    assert load.failed == []
    assert len(load.said) == UPLOADS
    assert workers[1].id not in load.workers(after=200)


async def test_kill_9_where_uploads_are_longer_than_the_window(fleet: Fleet, hub: int) -> None:
    """What is not held is lost with its worker, and said to be: as 502, with a reason, at the most what was in flight."""
    door, workers = fleet.cluster(3, hub, "--replay-bytes=16384")
    async with plainly(door.url) as send, Load(send, sizes=(300_000,)) as load:
        await load.answered(150)
        workers[1].send(signal.SIGKILL)
    assert len(load.said) == UPLOADS
    assert len(load.failed) <= CONCURRENCY
    for said in load.failed:
        assert (said.status, "worker was lost" in json.loads(said.text)["error"]) == (502, True)


@pytest.mark.parametrize("via", ["address", "forward", "redirect"])
async def test_kill_9_by_the_library_where_uploads_are_longer_than_the_window(fleet: Fleet, hub: int, via: Via) -> None:
    """The library holds its images itself: nothing is lost, long or short."""
    door, workers = fleet.cluster(3, hub, "--replay-bytes=16384")
    async with by_library(door.url, via) as send, Load(send, sizes=(1_000, 300_000)) as load:
        await load.answered(150)
        workers[1].send(signal.SIGKILL)
    assert load.failed == []
    assert len(load.said) == UPLOADS


async def test_a_frozen_worker_costs_what_was_in_flight_and_one_deadline(fleet: Fleet, hub: int) -> None:
    door, workers = fleet.cluster(3, hub, f"--deadline-seconds={DEADLINE}")
    frozen = workers[1]
    try:
        async with plainly(door.url) as send, Load(send, 1000) as load:
            await load.answered(150)
            frozen.send(signal.SIGSTOP)
    finally:
        frozen.send(signal.SIGCONT)
    assert {said.status for said in load.failed} <= {504}
    assert 1 <= len(load.failed) <= CONCURRENCY + 1  # and one probe, should its ejection end meanwhile
    assert max(said.seconds for said in load.said) < DEADLINE + 2.0
    assert frozen.id not in load.workers(after=300)
    assert sum(load.workers(after=300).values()) >= 1000 - 300 - CONCURRENCY - 1


@pytest.mark.parametrize("via", ["address", "forward", "redirect"])
async def test_a_frozen_worker_costs_the_library_nothing(fleet: Fleet, hub: int, via: Via) -> None:
    door, workers = fleet.cluster(3, hub, f"--deadline-seconds={DEADLINE}")
    # By forward the proxy is to be the first to lose patience: who is hung up on learns nothing of the worker.
    patience = 2 * DEADLINE if via == "forward" else DEADLINE
    try:
        async with by_library(door.url, via, attempt_timeout=patience) as send, Load(send) as load:
            await load.answered(150)
            workers[1].send(signal.SIGSTOP)
    finally:
        workers[1].send(signal.SIGCONT)
    assert load.failed == []
    assert len(load.said) == UPLOADS
