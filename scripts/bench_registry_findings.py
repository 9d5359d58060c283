"""What the registry's bench found, as tables in Markdown; and what was measured, on what, and how."""

from __future__ import annotations

import os
import platform
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench_registry_contenders import BEAT_SECONDS, TTL, Contender, Fairway, Seaport

SIZES = (10, 100)  # instances of a service that is looked up
CPUINFO = Path("/proc/cpuinfo")
METHOD = """\
Each server, with all its threads, alone on the first core; the load, a single process that speaks each one's wire on bare
sockets, on the last. CPU is utime+stime of the server. When and where instances "live", each has a connection of its own
and a TTL of {ttl:g} s, and says that it lives every {beat:.2f} s, give or take a tenth.

- fairway: `fairway registry --store embedded:DIR` with its defaults otherwise: on disk before it is acknowledged, addresses
  dialled back, a line of log per change. Instances share a listening address, which is dialled once a second, except where
  it says "each address dialled". Registered is what was `accepted` (over HTTP: answered, with a TTL check); what is freed
  is known from a watcher of the service.
- etcd: over its JSON gateway, on disk before it answers. An instance that lives has a lease, a key and a connection, and is
  kept alive by a POST; in the other tables one lease a connection. gRPC would cost it less than the gateway does.
- ZooKeeper: bare frames, on disk before it answers; one session and one ephemeral node an instance, pings; a heap of at
  most 512 MB. A watch fires once and says nothing but "changed": a watcher knows when it has read the children again.
- seaport (npm): a tenth of the instances, since its hub tells everybody everything; in memory only, and it acknowledges
  nothing: registered is what a watcher was told.

Registering: each connection waits for one answer before it says the next. A change's way: from the write of the
registration to its receipt, at each watcher and each change. Cost of a change: registering and freeing from
{load.changers} connections, while the others are connected and silent; what the server says to them by itself is in it.
"""


@dataclass(frozen=True)
class Load:
    instances: int = 10_000
    rounds: int = 3
    seconds: float = 1.0  # one measurement
    settle_seconds: float = 4.0
    warm_seconds: float = 4.0  # before 5, for who compiles what it runs often
    live_seconds: float = 20.0
    owners: int = 64
    changers: int = 16  # in 5
    readers: int = 16
    watchers: int = 200
    changes: int = 60

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many instances of other services there are."""
        return 0, self.instances // 10, self.instances


QUICK = Load(
    instances=40,
    rounds=1,
    seconds=0.1,
    settle_seconds=0.1,
    warm_seconds=0.1,
    live_seconds=1.0,
    owners=4,
    watchers=5,
    changes=5,
)


@dataclass
class Findings:
    """Per section, per line of its table, per column: what each round said."""

    cells: dict[int, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, section: int, line: str, **said: float) -> None:
        for column, value in said.items():
            self.cells.setdefault(section, {}).setdefault(line, {}).setdefault(column, []).append(value)

    def cell(self, section: int, line: str, column: str, digits: int = 0) -> str:
        said = self.cells[section][line].get(column)
        return f"{statistics.median(said):,.{digits}f}" if said else "-"


def table(head: str, lines: Sequence[Sequence[str]]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| | {head} |", "|---|" + "--:|" * columns, *(f"| {' | '.join(line)} |" for line in lines)])


def tables(findings: Findings, load: Load) -> str:
    cell, cells = findings.cell, findings.cells
    parts: list[str] = []
    if 1 in cells:
        lines = [
            [name, *(cell(1, name, c, int(c == "cpu")) for c in ("instances", "lost", "cpu", "rss", "pss", "empty"))]
            for name in cells[1]
        ]
        goal = ["*goal*", "10,000", "0", "< 20", "< 150", "", ""]
        head = "instances | lost | CPU, % of a core | RSS MB | PSS MB | RSS MB when empty"
        parts.append("### Instances that live\n\n" + table(head, [*lines, goal]))
    if 2 in cells:
        lines = [[name, *(cell(2, name, c) for c in ("put", "put_cpu", "remove", "remove_cpu"))] for name in cells[2]]
        goal = ["*goal*", "> 3,000", "", "> 3,000", ""]
        head = "registered/s | CPU µs | deregistered/s | CPU µs"
        parts.append(f"### Registering, from {load.owners} connections\n\n" + table(head, [*lines, goal]))
    if 3 in cells:
        columns = tuple(f"{what}_{size}" for size in SIZES for what in ("rate", "cpu"))
        lines = [[name, *(cell(3, name, c) for c in columns)] for name in cells[3]]
        lines.append([f"{Seaport.name}: every client holds a copy", *("-" * 4)])
        goal = ["*goal*", "> 8,000", "", "", ""]
        head = " | ".join(f"{size} instances: look-ups/s | CPU µs" for size in SIZES)
        parts.append(f"### Look-ups, {load.readers} connections\n\n" + table(head, [*lines, goal]))
    if 4 in cells:
        lines = [
            [name, *(cell(4, name, c, d) for c, d in (("instances", 0), ("watchers", 0), ("median", 1), ("late", 1)))]
            for name in cells[4]
        ]
        goal = ["*goal*", "10,000", "200", "< 50", ""]
        head = "instances of others | watchers | median ms | 99 % ms"
        parts.append(f"### How soon a change is known, {load.changes} changes\n\n" + table(head, [*lines, goal]))
    if 5 in cells:
        lines = [[name, *(cell(5, name, str(size)) for size in load.sizes)] for name in cells[5]]
        head = " | ".join(f"{size:,} others: CPU µs" for size in load.sizes)
        parts.append("### What a change costs beside others\n\n" + table(head, lines))
    return "\n\n".join(parts)


def report(
    findings: Findings, load: Load, kinds: Sequence[type[Contender]], took_seconds: float, others_percent: float
) -> str:
    names = [
        line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if line.startswith("model name")
    ]
    machine = (
        f"{os.cpu_count()} x {names[0] if names else platform.machine()}, Linux {platform.release().partition('-')[0]}"
    )
    own = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("uvloop", "aiohttp"))]
    versions = ", ".join([*own, *(kind.version() for kind in kinds if kind is not Fairway)])
    took = f"Took {took_seconds:.0f} s; other processes used {others_percent:.0f} % of a core meanwhile."
    without = "".join(f"\nWithout {text}." for text in (*findings.left_out, *findings.failures))
    method = METHOD.format(ttl=TTL, beat=BEAT_SECONDS, load=load)
    return f"{machine}; {versions}. {took}{without}\n\n{method}\n{tables(findings, load)}"


def busy_seconds() -> float:
    """User and system time of everybody on this machine."""
    words = Path("/proc/stat").read_text().split()
    return sum(map(int, words[1:4])) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)
