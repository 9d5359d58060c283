"""A confusion matrix as a picture. matplotlib through its object API: no window, no global state, nothing to close."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from . import Report

NUMBERED = 24  # classes; of more the numbers in the cells could not be read any more
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

    Classes that neither occur nor are named are left out. Raises ConfigurationError without matplotlib, and OSError.
    """
    report = report.occurring()
    counts = np.array(report.confusion, float).reshape(len(report.labels), len(report.labels))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    count = len(report.labels)
    side = min(max(4.0, 1.6 + 0.45 * count), 16.0)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, fraction=0.04, label="share of the row")
    axes.set_xlabel("called")
    axes.set_ylabel("truth")
    said = f"{report.correct} of {report.total} right" if report.total else "nothing measured"
    axes.set_title(f"{title}\n{said}" if title else said, fontsize=10, parse_math=False)
    small = 9 if count <= NUMBERED else 6
    shown = report.labels if count <= NAMED else ()
    for axis, turn in ((axes.xaxis, 90 if count > 3 else 0), (axes.yaxis, 0)):
        axis.set_ticks(range(len(shown)), [_short(name) for name in shown], rotation=turn, fontsize=small)
        for text in axis.get_ticklabels():
            text.set_parse_math(False)  # a class may be called $
    if count <= NUMBERED:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=small)
    figure.savefig(path, format="png")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
