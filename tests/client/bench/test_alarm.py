"""Never too early, in order, and fair to others: on both event loops, with the kernel's timer and without."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
import uvloop

from fairway.client.bench.alarm import IN_A_ROW, Alarm

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runs(main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await main()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return runs


@pytest.fixture(params=["timerfd", "loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":  # as where there is no such call
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    return str(request.param)


def test_not_before_its_time(run: Run, kind: str) -> None:
    async def main() -> None:
        with Alarm() as alarm:
            assert (alarm._file >= 0) is (kind == "timerfd")
            for wait in (0.02, 0.0004, *(0.002 + i / 10_000 for i in range(12)), 0.0):  # uvloop rounds to milliseconds
                when = monotonic() + wait
                await alarm.until(when)
                assert monotonic() >= when - 1e-6
            await alarm.until(monotonic() - 5)

    run(main)


def test_who_is_late_lets_others_have_their_turn(run: Run, kind: str) -> None:
    async def main() -> None:
        other = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(other.set_result, None)
        with Alarm() as alarm:
            for _ in range(IN_A_ROW + 1):
                await alarm.until(0.0)
        assert other.done()

    run(main)


def test_it_can_be_given_up_and_set_again(run: Run, kind: str) -> None:
    async def main() -> None:
        with Alarm() as alarm:
            waiting = asyncio.create_task(alarm.until(monotonic() + 3600))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await alarm.until(monotonic() + 0.01)
            file = alarm._file
        if kind == "timerfd":
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(file)

    run(main)
