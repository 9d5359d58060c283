"""The course of a bench: level after level, at each the ways in turn, a window of one and then of the next.

What is compared is so measured in the same minutes of the same machine; every other round goes backwards, and each way is
sent the same pictures, in the open loop at the same times. Whatever ends it early, what was measured until then is kept.
"""

from __future__ import annotations

import asyncio
import gc
import random
import resource
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic, time

from ...registry.process import allow_files
from .arrivals import poisson
from .config import LoadSettings
from .demand import Demand, of_peak
from .loops import closed_loop, open_loop
from .progress import Progress
from .stability import LAST, MOST, Window, stable
from .tally import Figures, Tally, figures
from .trial import tried
from .uploads import Upload, turns
from .way import Way

TICK_SECONDS = 0.25
GONE_SECONDS, GONE_FAILURES = 3.0, 10  # for so long, and so often in a row, nobody answered: nobody will
LEAD = 0.1  # of a window's length is not counted before those that are not a level's first
INTERRUPTED = "interrupted"


@dataclass
class Level:
    """One demand, made by one way. `stable`: whether its windows agree; None if that was not asked for."""

    way: Way
    demand: Demand
    windows: list[Tally] = field(default_factory=list)
    stable: bool | None = None

    def figures(self) -> Figures:
        """Of the last windows, where they were to be stable; else of all."""
        return figures(self.windows if self.stable is None else self.windows[-LAST:])

    def judge(self) -> bool:
        self.stable = stable([Window(window.rate, window.median) for window in self.windows])
        return self.stable


@dataclass
class Result:
    """`ended`: why before its time; empty if it was not. `set_aside`: pictures that were not sent, and why."""

    started: float  # seconds since 1970
    levels: list[Level] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)
    pictures: int = 0
    ended: str = ""


class Course:
    def __init__(self, settings: LoadSettings, ways: Sequence[Way], uploads: list[Upload]) -> None:
        self._settings, self._ways, self._uploads = settings, ways, uploads
        self.result = Result(time())
        self._windows = LAST if settings.repeat_until_stable else 1
        levels = len(settings.clients) + len(settings.rates)
        self._progress = Progress(levels * self._level_seconds)

    @property
    def _level_seconds(self) -> float:
        more = (self._windows - 1) * self._window_seconds
        return len(self._ways) * (self._settings.warm_up + self._settings.seconds + more)

    @property
    def _window_seconds(self) -> float:
        return self._settings.seconds + self._lead(1)

    def _lead(self, number: int) -> float:
        warm_up = self._settings.warm_up
        return warm_up if number == 0 else min(warm_up, LEAD * self._settings.seconds)

    async def run(self, stop: asyncio.Event) -> Result:
        """Raises Unfit before anything is measured. `stop`: it ends as soon as can be."""
        settings, result = self._settings, self.result
        stopping = asyncio.create_task(stop.wait())
        async with AsyncExitStack() as stack:
            stack.callback(self._progress.close)
            stack.callback(stopping.cancel)
            for way in self._ways:
                await stack.enter_async_context(way)
            most = max([demand.size for demand in settings.clients], default=0)
            allow_files(int(max(most, settings.max_in_flight)))
            self._progress.begin(f"trying {len(self._uploads)} pictures")
            trial = asyncio.create_task(tried(self._ways, self._uploads))
            if await self._interrupted(trial, stopping):
                return result
            self._uploads, refused = trial.result()
            result.set_aside.update(refused)
            result.pictures = len(self._uploads)
            gc.collect()
            gc.freeze()  # bodies and modules stay: they need not be looked at again and again while it is measured
            stack.callback(gc.unfreeze)
            for demand in settings.clients:
                await self._level(demand, stopping)
            rates = settings.rates
            if settings.to_peak and not result.ended:
                rates = of_peak([self._peak(way) for way in self._ways])
                self._progress.longer(len(rates) * self._level_seconds)
            for demand in rates:
                await self._level(demand, stopping)
        return result

    def _peak(self, way: Way) -> float:
        return max((level.figures().rate for level in self.result.levels if level.way is way), default=0.0)

    async def _level(self, demand: Demand, stopping: asyncio.Task[bool]) -> None:
        levels = [Level(way, demand) for way in self._ways]
        number = 0
        while not self.result.ended:
            for level in levels if number % 2 == 0 else levels[::-1]:
                if number == 0:
                    self.result.levels.append(level)
                elif number >= self._windows:
                    self._progress.longer(self._window_seconds)
                await self._window(level, number, stopping)
                if self.result.ended:
                    break
            number += 1
            judged = [level.judge() for level in levels] if self._settings.repeat_until_stable else [True]
            if number >= MOST or all(judged):
                break

    async def _window(self, level: Level, number: int, stopping: asyncio.Task[bool]) -> None:
        way, demand, settings = level.way, level.demand, self._settings
        before = await way.served() if way.via == "forward" else {}
        start = monotonic()
        begin = start + self._lead(number)
        tally = Tally(begin, begin + settings.seconds)
        level.windows.append(tally)
        self._progress.begin(f"{way.name}, {demand}" + (f", window {number + 1}" if self._windows > 1 else ""))
        uploads = turns(self._uploads)
        if demand.loop == "closed":
            work = asyncio.create_task(closed_loop(way, int(demand.size), uploads, tally))
        else:
            source = random.Random(f"{settings.seed} {demand} {number}")  # the same for every way
            due = poisson(demand.size, start, tally.end, source.random)
            work = asyncio.create_task(open_loop(way, due, uploads, tally, settings.max_in_flight))
        watch = asyncio.create_task(self._watch(tally, work))
        if await self._interrupted(work, stopping):
            tally.cut(monotonic(), wanted=True)
        elif work.cancelled():
            tally.cut(monotonic())
            self.result.ended = f"nobody answers any more at {way.url}: {tally.failure}"
        else:
            work.result()
        await watch
        tally.settle()
        self._progress.end(tally)
        if not self.result.ended and not tally.heard and tally.examples:
            self.result.ended = f"nothing was answered at {way.url}: {next(iter(tally.examples.values()), '')}"
        if way.via == "forward" and self.result.ended != INTERRUPTED:
            after = await way.served()
            told = {} if after is None or before is None else after
            counts = {place: count - (before or {}).get(place, 0) for place, count in told.items()}
            tally.workers = Counter({place: count for place, count in counts.items() if count > 0})
            if after is None and tally.answered:
                tally.workers = Counter({way.at: tally.answered})

    async def _interrupted(self, work: asyncio.Task[object], stopping: asyncio.Task[bool]) -> bool:
        """Waits for `work`, or ends it if somebody wants to go first."""
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return False
        work.cancel()
        await asyncio.wait((work,))
        self.result.ended = INTERRUPTED
        return True

    async def _watch(self, tally: Tally, work: asyncio.Task[None]) -> None:
        """Beside a window: shows it, counts what it costs us, and ends it if nobody is there any more."""
        cpu: float | None = None  # when the window began
        over, heard = False, monotonic()
        while not work.done():
            now = monotonic()
            if cpu is None and now >= tally.begin:
                cpu = _cpu_seconds()
            if cpu is not None and not over and now >= tally.end:
                tally.client_cpu, over = _cpu_seconds() - cpu, True
            marks = (tally.begin, tally.end, now + TICK_SECONDS)
            await asyncio.wait((work,), timeout=min(mark for mark in marks if mark > now) - now)
            self._progress.tick(tally)
            if not tally.failures:
                heard = monotonic()
            elif tally.failures >= GONE_FAILURES and monotonic() - heard >= GONE_SECONDS:
                work.cancel()
        if cpu is not None and not over:
            tally.client_cpu = _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """User and system time of this process."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime
