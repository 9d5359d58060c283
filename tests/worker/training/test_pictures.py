"""The picture of the curves is there, says what it shows, and does without what was not measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from fairway.worker.errors import ConfigurationError
from fairway.worker.training.pictures import COLOURS, draw_curves


def amount(path: Path, part: str) -> int:
    """How many pixels have the colour of a part's curve."""
    colour = [int(COLOURS[part][i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 800
        return int((np.asarray(image.convert("RGB")) == colour).all(axis=2).sum())


def test_both_parts_are_drawn(tmp_path: Path) -> None:
    history = [
        {
            "step": step,
            "train_accuracy": 1 - 1 / (step + 2),
            "validation_accuracy": 0.9 - 1 / (step + 2),
            "cross_entropy": 1 / (step + 1),
            "validation_cross_entropy": 0.2 + 1 / (step + 1),
        }
        for step in range(0, 500, 10)
    ]
    draw_curves(history, tmp_path / "curves.png")
    assert amount(tmp_path / "curves.png", "train") > 300
    assert amount(tmp_path / "curves.png", "validation") > 300


@pytest.mark.parametrize(
    ("history", "validation"),
    [
        ([], False),
        ([{"epoch": 1, "cross_entropy": 1.0}], False),
        ([{"epoch": n, "cross_entropy": 1.0} for n in range(9)] + [{"epoch": 9, "validation_accuracy": 0.5}], True),
        ([{"step": 1, "cross_entropy": float("nan"), "validation_accuracy": 0.5}], True),
    ],
)
def test_what_was_not_measured_is_left_out(tmp_path: Path, history: list[dict[str, float]], validation: bool) -> None:
    draw_curves(history, tmp_path / "curves.png")
    assert (amount(tmp_path / "curves.png", "validation") > 0) is validation


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fairway\[pictures\]'"):
        draw_curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []
