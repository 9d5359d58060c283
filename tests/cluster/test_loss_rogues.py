"""One of three workers does not do what it should, or the line to it does not. The others' uploads do not suffer."""

from __future__ import annotations

import pytest

from fairway.client.config import Via
from fairway.registry.ports import free_port

from .fleet import Door, Fleet, Worker
from .toxic import Toxin, toxic
from .uploads import CONCURRENCY, UPLOADS, Load, by_library, plainly

DEADLINE = 1.0  # seconds that the proxy gives a worker


def with_a_rogue(fleet: Fleet, hub: int, manner: str, *flags: str) -> tuple[Door, Worker, list[Worker]]:
    """-> a proxy, the rogue, two honest ones."""
    service = fleet.service()
    honest = fleet.workers(2, hub, service)
    (rogue,) = fleet.workers(1, hub, service, f"--manner={manner}")
    door = fleet.proxy(hub, service, f"--deadline-seconds={DEADLINE}", "--slow-start-seconds=0", *flags)
    door.wait_for([worker.port for worker in (rogue, *honest)])
    return door, rogue, honest


async def test_500_to_everything_is_passed_on_and_ejects_nobody(fleet: Fleet, hub: int) -> None:
    """It may be the images: what was said is what is passed on, once, and nobody else is troubled with them."""
    door, rogue, honest = with_a_rogue(fleet, hub, "ill")
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert len(load.said) == UPLOADS
    assert {(said.status, said.worker) for said in load.failed} == {(500, rogue.id)}
    assert rogue.begun() == len(load.failed)
    assert 130 < len(load.failed) < 200  # a third
    assert sum(worker.begun() for worker in honest) == UPLOADS - len(load.failed)


async def test_a_worker_that_never_answers_costs_what_it_was_sent(fleet: Fleet, hub: int) -> None:
    door, rogue, _ = with_a_rogue(fleet, hub, "silent")
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert len(load.said) == UPLOADS
    assert {said.status for said in load.failed} == {504}
    assert len(load.failed) == rogue.begun() <= CONCURRENCY + 1  # those sent before the first deadline, and one probe
    assert max(said.seconds for said in load.said) < DEADLINE + 2.0


async def test_half_an_answer_is_never_taken_for_a_whole_one(fleet: Fleet, hub: int) -> None:
    """What has gone to the client cannot be taken back: it is broken off, visibly, and soon nobody is sent there."""
    door, rogue, _ = with_a_rogue(fleet, hub, "half")
    async with plainly(door.url) as send, Load(send) as load:
        pass
    assert len(load.said) == UPLOADS
    assert {said.status for said in load.failed} == {0}
    assert all("ClientPayloadError" in said.text for said in load.failed)
    assert len(load.failed) == rogue.begun() <= CONCURRENCY + 1


@pytest.mark.parametrize("via", ["address", "forward", "redirect"])
@pytest.mark.parametrize("manner", ["silent", "half"])
async def test_the_library_loses_nothing_by_it(fleet: Fleet, hub: int, manner: str, via: Via) -> None:
    door, _, _ = with_a_rogue(fleet, hub, manner)
    patience = DEADLINE * 2 if via == "forward" else DEADLINE
    async with by_library(door.url, via, attempt_timeout=patience) as send, Load(send) as load:
        pass
    assert load.failed == []
    assert len(load.said) == UPLOADS


@pytest.mark.parametrize(
    ("toxin", "each"), [("reset", 5), ("half-close", 5), ("drip", 1), ("delay", 1), ("reset", 1), ("half-close", 1)]
)
async def test_a_bad_line_to_a_worker_costs_nobody_an_upload(fleet: Fleet, hub: int, toxin: Toxin, each: int) -> None:
    """Now and then, and at every answer."""
    service = fleet.service()
    with toxic(toxin, each) as line:
        line.target = free_port()
        behind = f"--advertise=127.0.0.1:{line.port}"
        (worker,) = fleet.workers(1, hub, service, f"--port={line.target}", behind)
        others = fleet.workers(2, hub, service)
        door = fleet.proxy(hub, service, "--slow-start-seconds=0")
        door.wait_for([line.port, *(other.port for other in others)])
        async with plainly(door.url) as send, Load(send) as load:
            pass
        assert load.failed == []
        assert len(load.said) == UPLOADS
        assert worker.begun() > 0
        assert line.times >= 3
        if each == 1 and toxin in ("reset", "half-close"):
            assert line.times <= CONCURRENCY + 3  # and out
