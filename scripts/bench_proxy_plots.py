"""The proxy's findings as plots. matplotlib is asked for only here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_proxy_findings import OURS, Findings, size_name

COLOURS = {
    **{OURS: "#1b7f4d", "fairway-pure": "#8cc7a6", "nginx": "#e3a04b", "nginx-tuned": "#c2571a", "haproxy": "#3267a8"},
    **{"haproxy-splice": "#8fb4dd", "node": "#888888", "node-keepalive": "#bbbbbb", "aiohttp": "#a066b8"},
}
WAYS = {"forwarded": ("#e3a04b", 4.5), "by address": ("#1b7f4d", 1.5)}  # where they are the same, both are seen


def drawn(findings: Findings, sizes: Sequence[int], images: Sequence[int], workers: int, folder: Path) -> list[Path]:
    """-> the files written: of the sections that were measured, or none where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fairway", "font.size": 9, "axes.grid": True})
    matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.3})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(figure: Any, name: str) -> None:
        figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        written.append(folder / name)

    if "forward" in findings.cells:
        write(cpu(findings, sizes, pyplot.subplots), "proxy-cpu.svg")
    if "scale" in findings.cells:
        write(scale(findings, images, workers, pyplot.subplots), "proxy-scale.svg")
    return written


def cpu(findings: Findings, sizes: Sequence[int], subplots: Callable[..., Any]) -> Any:
    """What each costs beside ours, per size: above 1 it costs more."""
    figure, axes = subplots(figsize=(7, 3.6), layout="constrained")
    for key, colour in COLOURS.items():
        ratios = [findings.paired("forward", key, f"cpu_{size}", lambda theirs, ours: theirs / ours) for size in sizes]
        if any(ratios):
            width = 2.5 if key == OURS else 1.4
            axes.plot(range(len(sizes)), ratios, marker="o", ms=3, lw=width, color=colour, label=findings.names[key])
    axes.set_xticks(range(len(sizes)), [size_name(size) for size in sizes])
    axes.set(yscale="log", xlabel="upload", ylabel="CPU per upload, fairway's = 1")
    axes.legend(fontsize=7, ncols=2)
    return figure


def scale(findings: Findings, images: Sequence[int], workers: int, subplots: Callable[..., Any]) -> Any:
    """Images a second over the number of workers, one field per size."""
    figure, fields = subplots(1, len(images), figsize=(2.2 * len(images), 2.6), layout="constrained", squeeze=False)
    for size, axes in zip(images, fields[0], strict=True):
        for way, (colour, width) in WAYS.items():
            counts = range(1, workers + 1)
            rates = [findings.median("scale", f"{size} {way}", f"rate_{count}") for count in counts]
            axes.plot(counts, rates, marker="o", ms=3, lw=width, color=colour, label=way)
        axes.set(title=size_name(size), xlabel="workers", xlim=(0.7, workers + 0.3), xticks=range(1, workers + 1))
        axes.set_ylim(0, None)
    fields[0][0].set_ylabel("images a second")
    fields[0][0].legend(fontsize=7)
    return figure
