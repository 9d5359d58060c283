"""What the proxy's bench found, as tables in Markdown, beside what is aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

OURS = "fairway"
SIZES = (1_000, 20_000, 100_000, 1_000_000, 10_000_000)
# CPU per request, theirs / ours, one process, 16 connections: at least so much.
GOALS: dict[str, Sequence[float]] = {
    "haproxy": (0.58, 0.85, 1.4, 2.3, 1.2),
    "nginx-tuned": (0.58, 0.62, 1.05, 1.8, 1.0),
    "nginx": (0.58, 2.2, 4.5, 7, 3),
    "node": (15, 20, 12, 6, 2),
}
ADDRESS_GOALS = {
    ("nginx-return", "keep"): 0.85,
    ("nginx-return", "new"): 0.7,
    ("node-p2p", "keep"): 3.0,
    ("node-p2p", "new"): 3.0,
}
LATENCY_GOALS = {1_000: 25.0, 100_000: 40.0}  # microseconds added
MEMORY_GOALS = (32.0, 10.0)  # MB at most, and growing by
OVERLOAD_GOAL = 90.0  # % of the peak


@dataclass
class Findings:
    """Per section, per contender, per column: what each round said."""

    names: dict[str, str]  # of contenders, by key
    cells: dict[str, dict[str, dict[str, dict[int, float]]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, section: str, key: str, turn: int, **said: float) -> None:
        for column, value in said.items():
            self.cells.setdefault(section, {}).setdefault(key, {}).setdefault(column, {})[turn] = value

    def median(self, section: str, key: str, column: str) -> float | None:
        said = self.cells.get(section, {}).get(key, {}).get(column)
        return statistics.median(said.values()) if said else None

    def paired(
        self, section: str, key: str, column: str, how: Callable[[float, float], float], base: str = OURS
    ) -> float | None:
        """The median over the rounds of how(theirs, base's): both are from the same round."""
        theirs = self.cells.get(section, {}).get(key, {}).get(column, {})
        ours = self.cells.get(section, {}).get(base, {}).get(column, {})
        both = [how(theirs[turn], ours[turn]) for turn in theirs if ours.get(turn)]
        return statistics.median(both) if both else None

    def lines(self, section: str, cells: Callable[[str], Iterable[str]], but: Sequence[str] = ()) -> list[list[str]]:
        found = self.cells.get(section, {})
        return [[name, *cells(key)] for key, name in self.names.items() if key in found and key not in but]


def shown(value: float | None, digits: int | None = None) -> str:
    """With as many digits as say something, unless it is told how many."""
    if value is None:
        return "-"
    return f"{value:,.{(value < 100) + (value < 10) if digits is None else digits}f}"


def beside(value: float | None, goal: float | None, least: bool = True) -> str:
    """A figure with its goal, bold where it falls short."""
    if value is None or goal is None:
        return shown(value)
    met = value >= goal if least else value <= goal
    return f"{shown(value) if met else f'**{shown(value)}**'} ({'≥' if least else '≤'} {goal:g})"


def size_name(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1_000} KB"


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = [f"| | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def ratio(theirs: float, ours: float) -> float:
    return theirs / ours


def forward(findings: Findings, sizes: Sequence[int]) -> str:
    def goal(key: str, size: int) -> float | None:
        return GOALS[key][SIZES.index(size)] if key in GOALS and size in SIZES else None

    def cpu(key: str) -> list[str]:
        return [shown(findings.median("forward", key, f"cpu_{size}")) for size in sizes]

    def ratios(key: str) -> list[str]:
        return [beside(findings.paired("forward", key, f"cpu_{size}", ratio), goal(key, size)) for size in sizes]

    def rates(key: str) -> list[str]:
        return [shown(findings.median("forward", key, f"rate_{size}"), 0) for size in sizes]

    columns = [size_name(size) for size in sizes]
    parts = [
        ("CPU of the proxy per upload, µs", table(columns, findings.lines("forward", cpu, but=("direct",)))),
        (
            "The same, theirs / ours, and what is aimed at",
            table(columns, findings.lines("forward", ratios, but=(OURS, "direct"))),
        ),
        ("Uploads a second, client and workers on one core", table(columns, findings.lines("forward", rates))),
    ]
    return "\n\n".join(f"#### {head}\n\n{text}" for head, text in parts)


def address(findings: Findings) -> str:
    def cells(key: str) -> list[str]:
        said: list[str] = []
        for way in ("keep", "new"):
            said.append(shown(findings.median("address", key, f"rate_{way}"), 0))
            said.append(shown(findings.median("address", key, f"cpu_{way}")))
            said.append(beside(findings.paired("address", key, f"cpu_{way}", ratio), ADDRESS_GOALS.get((key, way))))
        return said

    columns = [f"{way}: {what}" for way in ("kept", "new") for what in ("a second", "CPU µs", "CPU, theirs / ours")]
    return table(columns, findings.lines("address", cells))


def latency(findings: Findings, sizes: Sequence[int]) -> str:
    def cells(key: str) -> list[str]:
        said: list[str] = []
        for size in sizes:
            column = f"median_{size}"
            added = findings.paired("latency", key, column, lambda theirs, direct: theirs - direct, "direct")
            goal = LATENCY_GOALS.get(size) if key == OURS else None
            said.append(shown(findings.median("latency", key, column), 1))
            said.append("" if key == "direct" else beside(added, goal, least=False))
        return said

    columns = [f"{size_name(size)}: {what}" for size in sizes for what in ("median µs", "added")]
    return table(columns, findings.lines("latency", cells))


def memory(findings: Findings) -> str:
    def cells(key: str) -> list[str]:
        small, large = (findings.median("memory", key, column) for column in ("small", "large"))
        grown = large - small if large is not None and small is not None else None
        most, growth = MEMORY_GOALS if key == OURS else (None, None)
        return [shown(small, 1), beside(large, most, least=False), beside(grown, growth, least=False)]

    return table(["1 KB, 1 connection: MB", "10 MB, 64 connections: MB", "grown by"], findings.lines("memory", cells))


def overload(findings: Findings) -> str:
    def cells(key: str) -> list[str]:
        peak, offered, good, refused = (
            findings.median("overload", key, column) for column in ("peak", "offered", "good", "refused")
        )
        kept = findings.paired("overload", key, "kept", lambda theirs, _: theirs, key)
        figures = [shown(each, 0) for each in (peak, offered, good, refused)]
        return [*figures, beside(kept, OVERLOAD_GOAL if key == OURS else None)]

    columns = ["peak, answered/s", "offered/s", "answered/s", "429 or 503/s", "% of the peak"]
    return table(columns, findings.lines("overload", cells))


def scale(findings: Findings, images: Sequence[int], workers: int) -> str:
    """Bytes are those for each image at the most workers, where they differ least from what one would expect."""
    columns = [f"{count} worker{'s' * (count > 1)}" for count in range(1, workers + 1)]
    lines = []
    for size in images:
        for way in ("forwarded", "by address"):
            key = f"{size} {way}"
            rates = [shown(findings.median("scale", key, f"rate_{count}"), 0) for count in range(1, workers + 1)]
            through = shown(findings.median("scale", key, f"through_{workers}"), 0)
            lines.append([f"{size_name(size)}, {way}", *rates, through])
    return table([*columns, "bytes through the proxy, each"], lines)
