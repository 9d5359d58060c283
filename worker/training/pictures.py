"""How a run went, as a picture: accuracy and cross entropy over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ..accuracy.picture import new_figure

# Of retrain.py's summaries: orange for train, blue for validation, as TensorBoard drew the first two runs.
COLOURS = {"train": "#e8710a", "validation": "#1a73e8"}
PANELS = (
    ("accuracy", {"train": "train_accuracy", "validation": "validation_accuracy"}),
    ("cross entropy", {"train": "cross_entropy", "validation": "validation_cross_entropy"}),
)


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """A PNG of two panels. Rows: `step` (or `epoch`), `train_accuracy` and `validation_accuracy` (0..1),
    `cross_entropy` and `validation_cross_entropy` (nats); what a row lacks is left out of its curve.

    Raises ConfigurationError without matplotlib (`fairway[pictures]`).
    """
    figure = new_figure(11, 4.2)
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    across = "epoch" if history and "epoch" in history[0] else "step"
    for axes, (title, keys) in zip(figure.subplots(1, 2), PANELS, strict=True):
        drawn = [_draw(axes, history, across, key, part) for part, key in keys.items()]
        axes.set_xlabel(across)
        axes.set_ylabel(title if title == "accuracy" else f"{title} (nats)")
        axes.set_title(title.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#e0e0e0", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        if title == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.set_ylim(bottom=0)
        if any(drawn):
            axes.legend(frameon=False)
    figure.savefig(path, format="png")


def _draw(axes: Any, history: Sequence[Mapping[str, float]], across: str, key: str, part: str) -> bool:
    rows = [row for row in history if isfinite(row.get(key, float("nan")))]
    if not rows:
        return False
    x, y = [row[across] for row in rows], [row[key] for row in rows]
    axes.plot(x, y, color=COLOURS[part], linewidth=1.6, marker="o" if len(rows) < 30 else None, ms=3, label=part)
    axes.annotate(
        f"{y[-1]:.1%}" if "accuracy" in key else f"{y[-1]:.2f}",
        (x[-1], y[-1]),
        xytext=(5, 0),
        textcoords="offset points",
        color=COLOURS[part],
        va="center",
        annotation_clip=False,
    )
    return True
