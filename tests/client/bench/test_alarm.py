"""Never too early, in order, and fair to others."""

from __future__ import annotations

import asyncio
import ctypes
import os
from time import monotonic

import pytest

from fairway.client.bench import alarm as module
from fairway.client.bench.alarm import IN_A_ROW, Alarm


@pytest.fixture(params=["timerfd", "loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":  # as where there is no such call
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    return str(request.param)


async def test_not_before_its_time(kind: str) -> None:
    with Alarm() as alarm:
        assert (alarm._file >= 0) is (kind == "timerfd")
        for wait in (0.02, 0.0004, 0.005, 0.0):
            when = monotonic() + wait
            await alarm.until(when)
            assert monotonic() >= when - 1e-6
        await alarm.until(monotonic() - 5)


async def test_who_is_late_lets_others_have_their_turn(kind: str) -> None:
    other = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(other.set_result, None)
    with Alarm() as alarm:
        for _ in range(IN_A_ROW + 1):
            await alarm.until(0.0)
    assert other.done()


async def test_it_can_be_given_up_and_set_again(kind: str) -> None:
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


def test_it_is_there_on_linux() -> None:
    alarm = module.Alarm()
    assert alarm._file >= 0
    os.close(alarm._file)
