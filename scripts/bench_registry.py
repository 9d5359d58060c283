"""Usage: scripts/bench registry [--instances 10000] [--rounds 3] [--only 1,2,3,4,5] [--quick]

The registry beside etcd, ZooKeeper and npm's seaport hub, where they are installed, in one run:

    1  what instances cost that do nothing but live: CPU and memory
    2  registering and deregistering, from 64 connections
    3  look-ups, over 16 connections
    4  how soon 200 watchers know of a change, while all the others live
    5  whether a change costs more the more instances of other services there are

Each server alone on the first core, all its threads; the load on the last. In 2 and 3 all take turns in every round, and
the figures are medians over the rounds; for 1, 4 and 5 each has the machine for itself. CPU is utime+stime of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from bench_registry_contenders import Contender, Fairway, Owner, Seaport
from bench_registry_findings import QUICK, SIZES, Findings, Load, busy_seconds, own_seconds, report
from bench_registry_foreign import Etcd, ZooKeeper
from bench_registry_wires import Wire

T = TypeVar("T")
Turn = Callable[[int], Awaitable[None]]  # of which round

LOAD_CORE = (os.cpu_count() or 1) - 1
CONTENDERS: tuple[type[Contender], ...] = (Fairway, Etcd, ZooKeeper, Seaport)
SEAPORT = "seaport@2.0.9"
STEP_SECONDS = 60.0  # after which a step has failed


class Meter:
    """CPU and wall time since it was made."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._cpu, self._wall = contender.cpu(), time.monotonic()

    def read(self) -> tuple[float, float]:
        return self._contender.cpu() - self._cpu, time.monotonic() - self._wall


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def step(what: Awaitable[T], seconds: float = STEP_SECONDS) -> T:
    """What goes wrong within a protocol, where nobody awaits, goes wrong here."""
    problems: list[str] = []
    task = asyncio.ensure_future(what)

    def problem(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        problems.append(str(context.get("exception") or context["message"]))
        task.cancel()

    asyncio.get_running_loop().set_exception_handler(problem)
    try:
        async with asyncio.timeout(seconds):
            return await task
    except asyncio.CancelledError:
        task.cancel()
        if not problems:
            raise
        raise RuntimeError(problems[0]) from None
    except TimeoutError:
        raise RuntimeError(f"it took longer than {seconds:g} s") from None


async def until_ended(what: Awaitable[T]) -> T:
    """SIGTERM ends it as SIGINT does: with all that it started."""
    task = asyncio.ensure_future(what)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


class Bench:
    def __init__(self, load: Load, only: Sequence[int], folder: Path) -> None:
        self.load, self.only, self.folder = load, only, folder
        self.findings = Findings()
        self.kinds: list[type[Contender]] = []
        for kind in CONTENDERS:
            if reason := missing(kind, folder):
                self.findings.left_out.append(f"{kind.name}: {reason}")
                say(f"left out: {reason}")
            else:
                self.kinds.append(kind)

    async def run(self) -> None:
        gc.disable()  # of the load only: a pause of ours would be taken for one of theirs
        if {1, 4, 5} & set(self.only):
            for kind in self.kinds:
                await self._alone(kind)
        if {2, 3} & set(self.only):
            await self._in_turns()

    def _failed(self, contender: Contender, error: Exception, what: str = "") -> None:
        self.findings.failures.append(f"{contender.name}{what and ': ' + what}: {error}")
        say(f"failed: {self.findings.failures[-1]}")

    # -- 1, 4, 5: with a crowd -------------------------------------------------------------------------------------

    async def _alone(self, kind: type[Contender]) -> None:
        contender = kind(self.folder)
        try:
            await step(contender.start())
            await asyncio.sleep(min(2.0, self.load.settle_seconds))
            empty, _ = contender.memory()
            owners: list[Owner] = []
            if 5 in self.only:
                owners = await step(contender.owners(self.load.changers))
                await self._changes_for(self.load.warm_seconds, owners)
            for size in self.load.sizes:
                if size > self.load.instances // kind.share:
                    break
                began = time.monotonic()
                await step(contender.join(size))
                if size:
                    say(f"{kind.name}: {size:,} instances, joined in {time.monotonic() - began:.1f} s")
                    await asyncio.sleep(self.load.settle_seconds)
                if size == self.load.instances // kind.share and 1 in self.only:
                    await self._live(contender, empty)
                if 5 in self.only:
                    await self._cost(contender, owners, size)
            if 4 in self.only:
                await step(self._propagate(contender))
        except (RuntimeError, OSError) as error:
            self._failed(contender, error)
        finally:
            contender.end()

    async def _live(self, contender: Contender, empty: float) -> None:
        meter = Meter(contender)
        await asyncio.sleep(self.load.live_seconds)
        spent, wall = meter.read()
        rss, pss = contender.memory()
        said = {"instances": len(contender.crowd), "lost": contender.lost, "cpu": spent / wall * 100}
        self.findings.add(1, contender.name, **said, rss=rss, pss=pss, empty=empty)
        say(f"{contender.name}: lives at {spent / wall * 100:.1f} % of a core, {rss:.0f} MB; {contender.lost} lost")

    async def _cost(self, contender: Contender, owners: Sequence[Owner], size: int) -> None:
        """The others keep silent meanwhile, for less than makes them suspect: theirs is another cost."""
        Wire.silent = True
        meter = Meter(contender)
        changes = await self._changes_for(2 * self.load.seconds, owners)
        spent, wall = meter.read()
        Wire.silent = False
        micros = spent / changes * 1e6
        self.findings.add(5, contender.name, **{str(size): micros})
        say(f"{contender.name}: {changes:,} changes beside {size:,} instances in {wall:.1f} s, {micros:.0f} µs each")

    async def _changes_for(self, seconds: float, owners: Sequence[Owner]) -> int:
        """-> how many: each registration is one, and each end of one."""
        until = time.monotonic() + seconds

        async def one(number: int, owner: Owner) -> int:
            count = 0
            while time.monotonic() < until:
                await owner.put(f"cost-{number}-{count}")
                await owner.remove(f"cost-{number}-{count}")
                count += 1
            return 2 * count

        return sum(await step(asyncio.gather(*(one(number, owner) for number, owner in enumerate(owners)))))

    async def _propagate(self, contender: Contender) -> None:
        load, told = self.load, list[float]()
        current, heard, began = "", 0, 0.0
        everybody = asyncio.Event()

        def hear(id: str) -> None:
            nonlocal heard
            if id == current:
                told.append(time.perf_counter() - began)
                heard += 1
                if heard == load.watchers:
                    everybody.set()

        [owner] = await contender.owners(1)
        await contender.watch(load.watchers, hear)
        for change in range(load.changes + 1):  # the first is a warm-up
            current, heard = f"change-{change}", 0
            everybody.clear()
            began = time.perf_counter()
            done = owner.put(current)
            await everybody.wait()
            await done
            await owner.remove(current)
            if not change:
                told.clear()
            await asyncio.sleep(0.02)
        median, late = statistics.median(told) * 1000, statistics.quantiles(told, n=100)[98] * 1000
        said = {"instances": len(contender.crowd), "lost": contender.lost, "watchers": load.watchers}
        self.findings.add(4, contender.name, **said, median=median, late=late)
        say(f"{contender.name}: {load.watchers} watchers know in {median:.1f} ms (median), {late:.1f} ms (99 %)")

    # -- 2, 3: in turns --------------------------------------------------------------------------------------------

    async def _in_turns(self) -> None:
        contenders: list[Contender] = []
        try:
            turns: list[tuple[Contender, str, Turn]] = []
            for kind in self.kinds:
                contenders.append(contender := kind(self.folder))
                try:
                    await step(contender.start())
                    if 2 in self.only:
                        for way in contender.changers:
                            owners = await step(contender.owners(self.load.owners, way))
                            turns.append((contender, f"{way}, changes", self._changes(contender, way, owners)))
                    if 3 in self.only:
                        for way in contender.lookups:
                            for size in SIZES:
                                measure = await step(self._looks(contender, way, size))
                                turns.append((contender, f"{way}, look-ups of {size}", measure))
                except (RuntimeError, OSError) as error:
                    self._failed(contender, error)
            for turn in range(self.load.rounds + 1):  # the first is a warm-up
                say(f"round {turn} of {self.load.rounds}")
                for contender, what, measure in list(turns):
                    try:
                        await step(measure(turn))
                    except (RuntimeError, OSError) as error:
                        self._failed(contender, error, what)
                        turns.remove((contender, what, measure))
        finally:
            for contender in contenders:
                contender.end()

    def _changes(self, contender: Contender, way: str, owners: Sequence[Owner]) -> Turn:
        async def measure(turn: int) -> None:
            meter, until = Meter(contender), time.monotonic() + self.load.seconds
            made: list[list[str]] = [[] for _ in owners]

            async def put(number: int, owner: Owner) -> None:
                while time.monotonic() < until:
                    id = f"{way[:2]}{len(way)}-{turn}-{number}-{len(made[number])}".replace(" ", "")
                    await owner.put(id)
                    made[number].append(id)

            async def remove(number: int, owner: Owner) -> None:
                for id in made[number]:
                    await owner.remove(id)

            said: dict[str, float] = {}
            for name, act in (("put", put), ("remove", remove)):
                meter = Meter(contender)
                await asyncio.gather(*(act(number, owner) for number, owner in enumerate(owners)))
                (spent, wall), count = meter.read(), sum(map(len, made))
                said |= {name: count / wall, f"{name}_cpu": spent / count * 1e6}
            if turn:
                self.findings.add(2, f"{contender.name}: {way}", **said)

        return measure

    async def _looks(self, contender: Contender, way: str, size: int) -> Turn:
        service = f"look-{size}"
        if service not in contender.populated:
            contender.populated.add(service)
            [owner] = await contender.owners(1, service=service)
            for number in range(size):
                await owner.put(f"{service}-{number}")
        readers = await contender.readers(self.load.readers, way, service, size)

        async def measure(turn: int) -> None:
            meter, until = Meter(contender), time.monotonic() + self.load.seconds
            count = sum(await asyncio.gather(*(read(until) for read in readers)))
            spent, wall = meter.read()
            if turn:
                said = {f"rate_{size}": count / wall, f"cpu_{size}": spent / count * 1e6}
                self.findings.add(3, f"{contender.name}: {way}", **said)

        return measure


def missing(kind: type[Contender], folder: Path) -> str:
    """Why it is left out; empty if it can be had. npm's seaport is installed into `folder`, unless NODE_PATH is set."""
    if lacking := [name for name in kind.needs if not kind.has(name)]:
        return f"not installed: {', '.join(lacking)}"
    if kind is Seaport and "NODE_PATH" not in os.environ:
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", SEAPORT]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            return f"npm could not install {SEAPORT}"
        os.environ["NODE_PATH"] = str(folder / "node_modules")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=Load.instances, help="how many live (seaport: a tenth)")
    parser.add_argument("--rounds", type=int, default=Load.rounds, help="of 2 and 3")
    parser.add_argument("--only", default="1,2,3,4,5", help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="tiny numbers, which say nothing but that it works")
    given = parser.parse_args()
    load = QUICK if given.quick else Load(given.instances, given.rounds)
    only = [section for section in range(1, 6) if str(section) in given.only.split(",")]
    if not only:
        parser.error(f"--only {given.only}: expected some of 1,2,3,4,5")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < load.instances + 5_000:
        parser.error(f"{load.instances} instances want {load.instances + 5_000} open files; the limit is {hard}")
    os.sched_setaffinity(0, {LOAD_CORE})
    busy, own, began = busy_seconds(), own_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(load, only, Path(folder))
        uvloop.run(until_ended(bench.run()))
    took = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / took * 100
    print(report(bench.findings, load, bench.kinds, took, others))
    return 1 if bench.findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
