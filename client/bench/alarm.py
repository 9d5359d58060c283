"""Wakes a coroutine at a time, to some ten microseconds: an event loop's own timers are a millisecond coarse.

Of a request that is sent late the lateness is part of its latency, so it had better be small: where Linux has it a timerfd
is watched by the loop; elsewhere it is the loop's timer, and `client` in the figures says what that costs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from time import monotonic
from types import TracebackType
from typing import Self

CLOCK_MONOTONIC, ABSOLUTE = 1, 1  # linux/time.h, sys/timerfd.h
IN_A_ROW = 64  # times that were over already: who is late must be able to catch up, and not alone
FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class Alarm:
    """A context manager, for one waiter."""

    def __init__(self) -> None:
        self._rung: asyncio.Future[None] | None = None
        self._in_a_row = 0
        self._file = -1
        try:
            self._library = ctypes.CDLL(None, use_errno=True)
            self._file = self._library.timerfd_create(CLOCK_MONOTONIC, FLAGS)
        except (OSError, AttributeError, TypeError):  # no such call on this platform
            pass

    def __enter__(self) -> Self:
        if self._file >= 0:
            asyncio.get_running_loop().add_reader(self._file, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    async def until(self, when: float) -> None:
        """`when`: by `time.monotonic`. Returns at once if that is over; but now and then others have their turn."""
        self._in_a_row = self._in_a_row + 1 if when <= monotonic() else 0
        if self._in_a_row and self._in_a_row % IN_A_ROW:
            return
        if self._in_a_row or not self._set(when):
            await asyncio.sleep(0)
            while (left := when - monotonic()) > 0:  # noqa: ASYNC110 (uvloop rounds, also to too early)
                await asyncio.sleep(left)
            return
        self._rung = asyncio.get_running_loop().create_future()
        await self._rung

    def _set(self, when: float) -> bool:
        if self._file < 0:
            return False
        seconds, rest = divmod(when, 1.0)
        # struct itimerspec: an interval of none, and the time
        spec = (ctypes.c_long * 4)(0, 0, int(seconds), int(rest * 1e9))
        return not self._library.timerfd_settime(self._file, ABSOLUTE, ctypes.byref(spec), None)

    def _ring(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)
