"""Examples as a picture: what each shows, its label, and what it was called, in red where that is wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...worker.accuracy.picture import new_figure
from .evaluation import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .labelled import Example

COLUMNS = 5
SIDE = 256  # pixels; larger pictures are drawn smaller
SHADES = " ░▒▓█"


def draw_examples(outcomes: Sequence[Outcome], path: Path, title: str = "") -> None:
    """Writes a PNG. Raises ConfigurationError without matplotlib, OSError for the path."""
    columns = max(1, min(COLUMNS, len(outcomes)))
    rows = max(1, -(-len(outcomes) // columns))
    figure = new_figure(2.2 * columns, 2.5 * rows + (0.4 if title else 0.0))
    for place, outcome in enumerate(outcomes):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_axis_off()
        pixels = _pixels(outcome.example)
        if pixels is not None:
            axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=255)
        if outcome.prediction is None:
            called, colour = outcome.kind, "tab:orange"
        else:
            called = f"called {outcome.prediction.label} {outcome.prediction.score:.2f}"
            colour = "black" if outcome.right else "red"
        axes.set_title(f"{outcome.example.truth}\n{called}", fontsize=9, color=colour, parse_math=False)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    figure.savefig(path, format="png")


def in_characters(pixels: NDArray[np.uint8]) -> str:
    """(rows, columns) of gray as text, two characters a pixel; for terminals."""
    levels = pixels.astype(int) * len(SHADES) // 256
    return "\n".join("".join(SHADES[level] * 2 for level in row).rstrip() for row in levels.tolist())


def _pixels(example: Example) -> NDArray[Any] | None:
    """None for a file that cannot be drawn: then it is shown without a picture."""
    if example.pixels is not None:
        return example.pixels
    from PIL import Image

    try:
        with Image.open(io.BytesIO(example.picture())) as picture:
            picture.draft("RGB", (SIDE, SIDE))
            picture.thumbnail((SIDE, SIDE))
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
