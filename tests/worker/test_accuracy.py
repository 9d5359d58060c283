"""Reports of accuracy: what is counted, how sure it is, and how it is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairway.worker.accuracy import Report, score, tally, wilson
from fairway.worker.accuracy.picture import draw_confusion

LABELS = ("daisy", "roses", "tulips")
REPORT = Report(LABELS, ((8, 1, 1), (0, 5, 5), (0, 0, 0)))


def test_accuracy_and_each_class() -> None:
    assert (REPORT.total, REPORT.correct, REPORT.accuracy) == (20, 13, 0.65)
    daisy, roses, tulips = REPORT.classes
    assert (daisy.total, daisy.correct, daisy.recall, daisy.precision) == (10, 8, 0.8, 1.0)
    assert (roses.recall, roses.precision) == (0.5, 5 / 6)
    assert (tulips.total, tulips.recall, tulips.precision) == (0, None, 0.0)
    assert REPORT.mistakes() == [("roses", "tulips", 5), ("daisy", "roses", 1), ("daisy", "tulips", 1)]


def test_scores_are_counted_with_the_five_best() -> None:
    labels = tuple("abcdefgh")
    scores = np.eye(8, dtype=np.float32)[[0, 0, 7]] + np.linspace(0.5, 0, 8, dtype=np.float32)
    report = score(scores, np.array([0, 5, 7]), labels)  # the second's truth is only sixth
    assert (report.correct, report.top_5) == (2, 2)
    assert report.confusion[5][0] == 1
    assert score(scores[:, :3], np.array([0, 1, 2]), labels[:3]).top_5 is None


def test_names_that_nobody_expected_follow() -> None:
    report = tally([("a", "a"), ("a", "zebra"), ("b", "a")], ("b", "a"))
    assert report.labels == ("b", "a", "zebra")
    assert report.confusion == ((0, 1, 0), (0, 1, 1), (0, 0, 0))


def test_what_does_not_occur_is_left_out() -> None:
    report = Report(("a", "b", "c"), ((2, 0, 1), (0, 0, 0), (0, 0, 0)), 3)
    assert report.occurring() == Report(("a", "c"), ((2, 1), (0, 0)), 3)
    assert Report(("a",), ((0,),)).occurring().labels == ("a",)


def test_a_card_says_what_cards_said_before() -> None:
    card = REPORT.as_card()
    assert list(card) == ["photos", "top_1", "interval_95", "confusion_rows_are_truth"]
    assert card["interval_95"] == [0.4329, 0.8188]
    assert card["confusion_rows_are_truth"]["roses"] == {"daisy": 0, "roses": 5, "tulips": 5}


def test_the_interval_of_wilson() -> None:
    # The figures of Wilson's interval for 8 of 10 and 0 of 10, as statsmodels' proportion_confint gives them.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=2e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Report((), ()).accuracy)


@pytest.mark.parametrize("labels", [LABELS, tuple(f"class ${i}^" for i in range(40)), tuple(map(str, range(90)))])
def test_a_confusion_matrix_is_drawn(labels: tuple[str, ...], tmp_path: Path) -> None:
    numbers = np.arange(len(labels))
    report = score(np.eye(len(labels), dtype=np.float32)[numbers], numbers[::-1], labels)
    draw_confusion(report, tmp_path / "confusion.png", "flowers, version $2")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 300
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height) or ()) > 10


def test_an_empty_report_is_drawn_too(tmp_path: Path) -> None:
    draw_confusion(Report(("a", "b"), ((0, 0), (0, 0))), tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
