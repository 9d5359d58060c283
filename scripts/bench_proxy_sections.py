"""The sections of the proxy's bench: what is measured, of whom, in which order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import bench_proxy_findings as tables
import bench_proxy_links
from bench_machine import CONTENDER_CORE, LOAD_CORE
from bench_proxy_contenders import Kind, Running, kinds, running
from bench_proxy_findings import OURS, SIZES, Findings, size_name
from bench_proxy_load import Load, Programs

FORWARDING = (
    *(
        OURS,
        "fairway-pure",
        "fairway-copy",
        "nginx",
        "nginx-tuned",
        "haproxy",
        "haproxy-splice",
        "node",
        "node-keepalive",
        "aiohttp",
    ),
    "direct",
)
ADDRESSING = (OURS, "fairway-pure", "nginx-return", "node-p2p", "aiohttp")
AT_ONE_CORE = ("direct", OURS, "fairway-pure", "nginx-tuned", "haproxy", "haproxy-splice")
LOADED = (OURS, "nginx-tuned", "haproxy")
REMEMBERING = (OURS, "fairway-pure", "nginx", "nginx-tuned", "haproxy", "node", "node-keepalive", "aiohttp")


@dataclass(frozen=True)
class Scope:
    sizes: Sequence[int] = SIZES
    rounds: int = 5
    seconds: float = 2.0  # one measurement
    connections: int = 16
    askers: int = 64  # in address
    most: tuple[int, int] = (10_000_000, 64)  # in memory: the size, and connections
    workers: int = 4  # in scale, at the most
    images: Sequence[int] = (10_000, 100_000, 1_000_000, 10_000_000)
    megabits: float = 1000.0  # a second, of each machine's link there


QUICK = Scope(rounds=1, seconds=0.1, connections=4, askers=8, most=(1_000_000, 8), workers=2, images=(10_000, 100_000))


class Direct:
    """No proxy at all."""

    def __init__(self, kind: Kind, port: int) -> None:
        self.kind, self.port = kind, port

    def cpu(self) -> float:
        return 0.0


Contender = Running | Direct


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, scope: Scope, programs: Programs, wanted: Sequence[str], options: Sequence[str]) -> None:
        self.scope, self.programs, self.options, self.say = scope, programs, options, say
        every = [*kinds(options), Kind("direct", "direct, no proxy", lambda _: [])]
        self.findings = Findings({kind.key: kind.name for kind in every})
        self.kinds: dict[str, Kind] = {}
        for kind in every:
            if wanted and kind.key not in (OURS, *wanted):
                continue
            if reason := kind.missing:
                self.findings.left_out.append(f"{kind.name}: {reason}")
                say(f"left out: {self.findings.left_out[-1]}")
            else:
                self.kinds[kind.key] = kind

    def begin(self, ends: ExitStack, keys: Sequence[str], ports: Sequence[int], core: int) -> list[Contender]:
        contenders: list[Contender] = []
        for kind in (self.kinds[key] for key in keys if key in self.kinds):
            if kind.key == "direct":
                contenders.append(Direct(kind, ports[0]))
                continue
            try:
                contenders.append(ends.enter_context(running(kind, ports, core)))
            except RuntimeError as error:
                self.failed(kind, "", error)
        if not contenders:
            raise RuntimeError("nobody to measure")
        return contenders

    def failed(self, kind: Kind, what: str, error: Exception) -> None:
        self.findings.failures.append(f"{kind.name}{what and f' ({what})'}: {error}")
        say(f"failed: {self.findings.failures[-1]}")

    def measure(self, contender: Contender, core: int = LOAD_CORE, **options: Any) -> tuple[Load, float]:
        """-> what the load said, and microseconds of the proxy's CPU per request."""
        before = contender.cpu()
        said = self.programs.load(contender.port, core, **options)
        return said, (contender.cpu() - before) / max(1, said.done) * 1e6

    def in_turns(
        self,
        section: str,
        what: str,
        contenders: list[Contender],
        record: str,
        core: int = LOAD_CORE,
        **options: Any,
    ) -> None:
        """Who fails is asked no more in this section. `record`: the end of its columns' names."""
        shown = "median" if section == "latency" else "cpu"
        for turn in range(self.scope.rounds + 1):
            heard: list[str] = []
            first = turn % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                kind, seconds = contender.kind, self.scope.seconds if turn else min(1.0, self.scope.seconds)
                try:
                    load, cpu = self.measure(contender, core, seconds=seconds, check=int(not turn), **options)
                except RuntimeError as error:
                    self.failed(kind, what, error)
                    contenders.remove(contender)
                    continue
                said = {"rate": load.rate, "median": load.median, "p99": load.p99}
                if isinstance(contender, Running):
                    said["cpu"] = cpu
                heard.append(f"{kind.key} {said.get(shown, 0):,.1f}")
                if load.failed:
                    self.findings.failures.append(f"{kind.name}, {what}: {load.failed} unanswered: {load.problem}")
                if turn:
                    self.findings.add(section, kind.key, turn, **{f"{name}_{record}": said[name] for name in said})
            say(
                f"{section}, {what}, {f'round {turn} of {self.scope.rounds}' if turn else 'warm-up'}: {', '.join(heard)}"
            )

    def forward(self) -> str:
        with self.programs.sinks() as ports, ExitStack() as ends:
            contenders = self.begin(ends, FORWARDING, ports, CONTENDER_CORE)
            for size in self.scope.sizes:
                options: dict[str, Any] = {"size": size, "connections": self.scope.connections}
                self.in_turns("forward", size_name(size), contenders, str(size), **options)
        return "### Forwarding, 16 connections\n\n" + tables.forward(self.findings, self.scope.sizes)

    def address(self) -> str:
        with self.programs.sinks() as ports, ExitStack() as ends:
            contenders = self.begin(ends, ADDRESSING, ports, CONTENDER_CORE)
            options: dict[str, Any] = {"get": 1, "connections": self.scope.askers, "workers": ",".join(map(str, ports))}
            self.in_turns("address", "connections kept", contenders, "keep", **options)
            self.in_turns("address", "a connection each", contenders, "new", new=1, **options)
        return f"### Handing out addresses, {self.scope.askers} connections\n\n" + tables.address(self.findings)

    def latency(self) -> str:
        with self.programs.sinks(core=CONTENDER_CORE) as ports, ExitStack() as ends:
            contenders = self.begin(ends, AT_ONE_CORE, ports, CONTENDER_CORE)
            for size in tables.LATENCY_GOALS:
                self.in_turns(
                    "latency", size_name(size), contenders, str(size), CONTENDER_CORE, size=size, connections=1
                )
        return "### What is added to one upload at a time, all on one core\n\n" + tables.latency(
            self.findings, tuple(tables.LATENCY_GOALS)
        )

    def memory(self) -> str:
        """Each begins anew: what it once held is never forgotten."""
        size, connections = self.scope.most
        with self.programs.sinks() as ports:
            for key in REMEMBERING:
                with ExitStack() as ends:
                    for contender in self.begin(ends, (key,), ports, CONTENDER_CORE) if key in self.kinds else ():
                        self._remember(contender, size, connections)
        return "### The most memory ever held\n\n" + tables.memory(self.findings)

    def _remember(self, contender: Contender, size: int, connections: int) -> None:
        assert isinstance(contender, Running)
        try:
            self.measure(contender, size=1_000, connections=1, seconds=self.scope.seconds)
            small = contender.peak_memory()
            self.measure(contender, size=size, connections=connections, seconds=2 * self.scope.seconds)
            said = {"small": small, "large": contender.peak_memory()}
        except RuntimeError as error:
            self.failed(contender.kind, "memory", error)
            return
        self.findings.add("memory", contender.kind.key, 1, **said)
        say(f"memory, {contender.kind.key}: {said['small']:.1f} MB, then {said['large']:.1f} MB")

    def overload(self) -> str:
        """Workers of known speed: they take their time, and refuse whoever finds their queue full."""
        workers: dict[str, Any] = {"service_us": 10_000, "slots": 2, "queue": 6}
        with self.programs.sinks(**workers) as ports, ExitStack() as ends:
            for contender in self.begin(ends, LOADED, ports, CONTENDER_CORE):
                try:
                    self._overload(contender)
                except RuntimeError as error:
                    self.failed(contender.kind, "overload", error)
        return "### Three times as much as the workers can do, 20 KB each\n\n" + tables.overload(self.findings)

    def _overload(self, contender: Contender) -> None:
        for turn in range(1, min(3, self.scope.rounds) + 1):
            options: dict[str, Any] = {"size": 20_000, "busy": 1, "seconds": 2 * self.scope.seconds}
            peak, _ = self.measure(contender, connections=16, **options)
            asked, _ = self.measure(contender, connections=1024, rate=3 * peak.rate, **options)
            offered = (asked.done + asked.refused + asked.failed + asked.missed) / asked.seconds
            said = {"peak": peak.rate, "offered": offered, "good": asked.rate, "kept": asked.rate / peak.rate * 100}
            self.findings.add("overload", contender.kind.key, turn, **said, refused=asked.refused / asked.seconds)
            say(
                f"overload, {contender.kind.key}, round {turn}: {asked.rate:,.0f} of {peak.rate:,.0f} a second "
                f"({said['kept']:.0f} %), {asked.refused:,} refused, {asked.failed:,} failed"
            )

    def scale(self) -> str:
        try:
            bench_proxy_links.scale(self)
        except RuntimeError as error:  # what was measured until then is shown
            self.failed(self.kinds[OURS], "scale", error)
        what = f"Client to worker, {self.scope.megabits:g} Mbit/s links, 10 ms of work an image: images a second"
        return f"### {what}\n\n" + tables.scale(self.findings, self.scope.images, self.scope.workers)


SECTIONS: dict[str, Callable[[Bench], str]] = {
    **{"forward": Bench.forward, "address": Bench.address, "latency": Bench.latency, "memory": Bench.memory},
    **{"scale": Bench.scale, "overload": Bench.overload},
}
