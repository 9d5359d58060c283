"""Closed and open loop against small real servers; above all, that a stall is charged to all who were due meanwhile."""

from __future__ import annotations

import asyncio
from random import Random
from time import monotonic

import pytest

from fairway.client.bench.arrivals import poisson
from fairway.client.bench.loops import closed_loop, open_loop
from fairway.client.bench.tally import CONNECT, CUT_OFF, NOT_SENT, PERCENTILES, Tally
from fairway.client.bench.uploads import turns

from ...proxy.stage import Worker, dead_address
from .stage import Stalling, upload, way_to

STALL = 0.5  # seconds


async def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile() -> None:
    """Coordinated omission: a client that waits for the stalled server would send nothing, and notice one slow answer."""
    stalling = Stalling(after=40, seconds=STALL)
    async with Worker(stalling) as worker, way_to(worker.address) as way:
        begin = monotonic()
        tally = Tally(begin, begin + 2.0)
        due = list(poisson(200.0, begin, tally.end, Random(7).random))
        await open_loop(way, due, turns([upload()]), tally, 10_000)
    found = tally.figures()
    assert (found.sent, found.answered, found.errors) == (len(due), len(due), {})  # nobody is left out
    # What each must have waited at least, whatever else this machine did.
    waited = sorted(max(0.0, stalling.ended - at) if at >= stalling.began else 0.0 for at in due)
    assert sum(wait > 0 for wait in waited) > 50
    assert waited[-1] > 0.9 * STALL
    for name, percent in PERCENTILES.items():
        least = waited[max(int(percent * len(waited) / 100 + 0.5), 1) - 1]
        assert found.latency[name] >= least - 0.001


async def test_above_the_most_in_flight_nobody_is_sent_and_that_is_told() -> None:
    stalling = Stalling(after=1, seconds=STALL)
    async with Worker(stalling) as worker, way_to(worker.address) as way:
        begin = monotonic()
        tally = Tally(begin, begin + 0.4)
        due = list(poisson(200.0, begin, tally.end, Random(7).random))
        await open_loop(way, due, turns([upload()]), tally, 10)
    found = tally.figures()
    assert stalling.count == found.sent == found.answered == 10
    assert found.errors == {NOT_SENT: len(due) - 10}
    assert found.examples == {NOT_SENT: "10 in flight"}


async def test_who_is_late_sends_them_all_and_says_how_late() -> None:
    async with Worker() as worker, way_to(worker.address) as way:
        now = monotonic()
        tally = Tally(now - 10, now + 10)
        await open_loop(way, [now - 2.0] * 100, turns([upload()]), tally, 10_000)
    found = tally.figures()
    assert found.answered == len(worker.requests) == 100
    assert found.parts["client"][0] >= 2.0
    assert found.latency["p50"] >= 2.0


async def test_so_many_clients_and_no_more() -> None:
    most = 0

    class Counting(Stalling):
        async def __call__(self, request, seen):  # type: ignore[no-untyped-def]
            nonlocal most
            self.flying = getattr(self, "flying", 0) + 1
            most = max(most, self.flying)
            await asyncio.sleep(0.002)
            self.flying -= 1
            return await super().__call__(request, seen)

    async with Worker(Counting(10**9, 0)) as worker, way_to(worker.address) as way:
        begin = monotonic()
        tally = Tally(begin, begin + 0.4)
        await closed_loop(way, 5, turns([upload(), upload("other.jpg")]), tally)
    assert most == 5
    found = tally.figures()
    assert found.sent == found.answered == len(worker.requests)
    assert found.parts["client"] == (0.0, 0.0)


async def test_clients_whom_nobody_answers_do_not_spin() -> None:
    async with way_to(dead_address()) as way:
        begin = monotonic()
        tally = Tally(begin, begin + 0.35)
        await closed_loop(way, 4, turns([upload()]), tally)
    assert 4 <= tally.errors[CONNECT] <= 4 * 4
    assert tally.failures == tally.errors[CONNECT]


@pytest.mark.parametrize("loop", ["open", "closed"])
async def test_given_up_it_leaves_nobody_behind(loop: str) -> None:
    before = asyncio.all_tasks()
    stalling = Stalling(after=1, seconds=60)
    async with Worker(stalling) as worker, way_to(worker.address) as way:
        now = monotonic()
        tally, uploads = Tally(now, now + 60), turns([upload()])
        work = (
            open_loop(way, [now, now, now + 50], uploads, tally, 10)
            if loop == "open"
            else closed_loop(way, 2, uploads, tally)
        )
        task = asyncio.create_task(work)
        await worker.began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert tally.figures().errors == {CUT_OFF: 2}
        ours = {t for t in asyncio.all_tasks() - before if "loops" in repr(t.get_coro())}
        assert not ours
