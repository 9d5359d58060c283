"""Latency against throughput, the picture that a load test is read by: where the line turns upwards is the knee."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.ticker import NullFormatter, StrMethodFormatter

from ...worker.accuracy.picture import new_figure

if TYPE_CHECKING:
    from .course import Level

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's: told apart by all
LINES = {"p50": "-", "p99": "--"}


def draw(levels: Sequence[Level], file: Path) -> None:
    """A line for each way, loop and percentile. Closed loop: filled discs, the numbers of clients beside them; open loop:
    empty triangles. Raises OSError.
    """
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    ways = list(dict.fromkeys(level.way.name for level in levels))
    for place, name in enumerate(ways):
        colour = COLOURS[place % len(COLOURS)]
        for loop, marker in (("closed", "o"), ("open", "^")):
            mine = [(one, one.figures()) for one in levels if one.way.name == name and one.demand.loop == loop]
            mine = [(one, found) for one, found in mine if found.latency]
            if not mine:
                continue
            for percentile, style in LINES.items():
                axes.plot(
                    [found.rate for _, found in mine],
                    [found.latency[percentile] * 1000 for _, found in mine],
                    style,
                    color=colour,
                    marker=marker,
                    markerfacecolor=colour if loop == "closed" else "white",
                    label=f"{name}, {loop} loop, {percentile}",
                )
            if loop == "closed":
                for one, found in mine:
                    at = (found.rate, found.latency["p50"] * 1000)
                    axes.annotate(
                        f"{one.demand.size:g}",
                        at,
                        (0, -12),
                        textcoords="offset points",
                        ha="center",
                        color=colour,
                        fontsize=8,
                    )
    axes.set_xlabel("answers a second")
    axes.set_ylabel("latency, ms")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    low, high = axes.get_ylim()
    if high / low < 10:  # less than a decade: its one label, or none, would tell nothing
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="both", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=max(2, len(ways)), fontsize=8)
    figure.savefig(file, dpi=120)
