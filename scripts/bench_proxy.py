"""Usage: scripts/bench proxy [--only forward,address,latency,memory,scale,overload] [--sizes 1,20,100,1000,10000]
                              [--rounds 5] [--seconds 2] [--against KEY,KEY] [--with "--OPTION ..."] [--json FILE]
                              [--quick]

The proxy beside nginx, haproxy, node http-proxy and aiohttp, where they are installed, in one run:

    forward   CPU of the proxy per upload of each size, 16 connections
    address   the same for handing out an address: 64 connections, kept, and a new one for each
    latency   what a proxy adds to one upload at a time, all on one core
    memory    the most it ever held, from 1 KB over one connection to 10 MB over 64
    scale     client to worker, 1 to 4 workers, each machine on a link of its own: forwarded and by address
    overload  answered while three times as much is asked as the workers can do

One proxy alone on the first core; the load and four workers that throw uploads away on the last. All take turns in every
round; figures are medians over the rounds, ratios are taken within each. CPU is utime+stime of all the proxy's processes.
Each answer is compared with the right one; in the first round, which does not count, the workers compare each upload too.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import bench_proxy_findings as tables
from bench_machine import (
    CONTENDER_CORE,
    LOAD_CORE,
    busy_seconds,
    cpu_seconds,
    described,
    end_on_sigterm,
    free_ports,
    own_seconds,
)
from bench_proxy_contenders import Kind, Running, kinds, running
from bench_proxy_findings import OURS, SIZES, Findings, size_name
from bench_proxy_load import Load, Programs

__all__ = ["cpu_seconds", "free_ports"]  # the registry's bench asks here

FORWARDING = (
    *(OURS, "fairway-copy", "nginx", "nginx-tuned", "haproxy", "haproxy-splice", "node", "node-keepalive", "aiohttp"),
    "direct",
)
ADDRESSING = (OURS, "nginx-return", "node-p2p", "aiohttp")
AT_ONE_CORE = ("direct", OURS, "nginx-tuned", "haproxy", "haproxy-splice")
REMEMBERING = (OURS, "nginx", "nginx-tuned", "haproxy", "node", "node-keepalive", "aiohttp")


@dataclass(frozen=True)
class Scope:
    sizes: Sequence[int] = SIZES
    rounds: int = 5
    seconds: float = 2.0  # one measurement
    connections: int = 16
    askers: int = 64  # in address
    most: tuple[int, int] = (10_000_000, 64)  # in memory: the size, and connections


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
        self.scope, self.programs = scope, programs
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

    def measure(self, contender: Contender, core: int = LOAD_CORE, **options: object) -> tuple[Load, float]:
        """-> what the load said, and microseconds of the proxy's CPU per request."""
        before = contender.cpu()
        said = self.programs.load(contender.port, core, **options)
        return said, (contender.cpu() - before) / said.done * 1e6

    def in_turns(
        self,
        section: str,
        what: str,
        contenders: list[Contender],
        record: str,
        core: int = LOAD_CORE,
        **options: object,
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
                options = {"size": size, "connections": self.scope.connections}
                self.in_turns("forward", size_name(size), contenders, str(size), **options)
        return "### Forwarding, 16 connections\n\n" + tables.forward(self.findings, self.scope.sizes)


SECTIONS: dict[str, Callable[[Bench], str]] = {"forward": Bench.forward}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench proxy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--sizes", default="1,20,100,1000,10000", help="of forwarded uploads, in KB")
    parser.add_argument("--rounds", type=int, default=Scope.rounds)
    parser.add_argument("--seconds", type=float, default=Scope.seconds, help="length of one measurement")
    parser.add_argument(
        "--against", default="", help="contenders beside ours, by their keys; all: " + ", ".join(FORWARDING)
    )
    parser.add_argument("--with", dest="options", default="", help="more options for our proxy")
    parser.add_argument("--json", type=Path, help="file for every round's figures")
    parser.add_argument("--quick", action="store_true", help="tiny numbers, which say nothing but that it works")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := [section for section in only if section not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(SECTIONS)}")
    sizes = tuple(int(float(size) * 1000) for size in given.sizes.split(","))
    scope = Scope(sizes, 1, 0.1, 4, 8, (1_000_000, 8)) if given.quick else Scope(sizes, given.rounds, given.seconds)
    end_on_sigterm()
    os.sched_setaffinity(0, {LOAD_CORE})
    busy, own, began = busy_seconds(), own_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs.made(Path(folder))
        if not programs.compiled:
            say("no C compiler (apt-get install gcc): the load is in Python, and slower than what it measures")
        bench = Bench(scope, programs, [key for key in given.against.split(",") if key], shlex.split(given.options))
        for section in only:
            try:
                print(f"{SECTIONS[section](bench)}\n", flush=True)
            except RuntimeError as error:
                bench.findings.failures.append(f"{section}: {error}")
                say(f"failed: {bench.findings.failures[-1]}")
    took = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / took * 100
    print(f"{described()}. Took {took:.0f} s; other processes used {others:.0f} % of a core meanwhile.")
    for text in (*bench.findings.left_out, *bench.findings.failures):
        print(f"Without {text}.")
    if given.json:
        given.json.write_text(json.dumps({"scope": vars(scope), "cells": bench.findings.cells}, indent=1) + "\n")
    return 1 if bench.findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
