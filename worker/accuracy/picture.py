"""A confusion matrix as a picture. matplotlib through its object API: no window, no global state, nothing to close."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from . import Report

NUMBERED = 32  # classes; of more the numbers in the cells could not be read any more
NAMED = 70  # classes; of more the names at the edges could not


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure with its canvas, in inches. Raises ConfigurationError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(f"pictures need matplotlib: pip install 'fairway[pictures]' ({error})") from error
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_confusion(report: Report, path: Path, title: str = "") -> None:
    """Writes a PNG: rows are the truth, columns what it was called; the shade is the share of the row.

    Rows of which there is no photo and columns that nothing was called are left out. Raises ConfigurationError without
    matplotlib, and OSError.
    """
    report = report.occurring()
    counts = np.array(report.confusion, float).reshape(len(report.labels), len(report.labels))
    there = [i for i, one in enumerate(report.classes) if one.total] or list(range(len(report.labels)))
    counts = counts[there]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    high, wide = (min(max(3.0, 0.45 * size), 15.0) for size in counts.shape)
    figure = new_figure(wide + 2.6, high + 1.6)
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, fraction=0.04, label="share of the row")
    axes.set_xlabel("called")
    axes.set_ylabel("truth")
    said = f"{report.correct} of {report.total} right" if report.total else "nothing measured"
    axes.set_title(f"{title}\n{said}" if title else said, fontsize=10, parse_math=False)
    numbered = len(report.labels) <= NUMBERED
    small = 9 if numbered else 6
    columns = [_short(name) for name in report.labels] if len(report.labels) <= NAMED else []
    rows = [_short(report.labels[i]) for i in there] if len(there) <= NAMED else []
    turn = 90 if max(map(len, columns), default=0) > 3 else 0
    axes.xaxis.set_ticks(range(len(columns)), columns, rotation=turn, fontsize=small)
    axes.yaxis.set_ticks(range(len(rows)), rows, fontsize=small)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a class may be called $
    if numbered:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=small)
    figure.savefig(path, format="png")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
