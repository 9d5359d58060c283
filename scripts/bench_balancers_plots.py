"""What `scripts/bench balancers` found, as a plot. matplotlib is asked for only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench_balancers_cluster import ONE_QUEUE, Case, Result

STYLES = {  # colour, line
    ONE_QUEUE: ("#999999", ":"),
    "random": ("#999999", "-"),
    "round-robin": ("#3267a8", "-"),
    "round-robin, weights told": ("#3267a8", "--"),
    "least-loaded": ("#1b7f4d", "-"),
    "least-loaded, weights told": ("#1b7f4d", "--"),
    "peak-ewma": ("#c2571a", "-"),
    "hash:X-Client": ("#a066b8", "-"),
}


def drawn(
    parts: Sequence[tuple[str, Sequence[tuple[str, Case]]]],
    found: Mapping[Case, Result],
    loads: Sequence[float],
    folder: Path,
) -> list[Path]:
    """-> the files written: the 99th percentile, and the imbalance, over the load; none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fairway", "font.size": 9, "axes.grid": True})
    matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.3})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    plots = (
        ("balancers-p99.svg", "p99, ms", "log", {case: 1000 * result.p99 for case, result in found.items()}),
        ("balancers-imbalance.svg", "busiest over mean", "linear", {case: r.imbalance for case, r in found.items()}),
    )
    for name, label, scale, figures in plots:
        figure, fields = pyplot.subplots(1, len(parts), figsize=(10, 3.2), layout="constrained", sharey=True)
        for axes, (heading, lines) in zip(fields, parts, strict=True):
            for said, case in lines:
                if said in STYLES:
                    colour, line = STYLES[said]
                    values = [figures[replace(case, load=load)] for load in loads]
                    axes.plot(loads, values, color=colour, ls=line, marker="o", ms=3, label=said)
            axes.set_title(heading.replace(", ", ",\n"), fontsize=9)
            axes.set_xticks(loads, [f"{load:.0%}" for load in loads])
            axes.legend(fontsize=6.5)
        fields[0].set(ylabel=label, yscale=scale)
        figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        written.append(folder / name)
    return written
