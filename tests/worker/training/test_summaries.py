"""Event files are written without TensorBoard, and read by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.errors import ConfigurationError  # noqa: E402
from fairway.worker.training.summaries import Summaries  # noqa: E402


def read(folder: Path) -> dict[tuple[str, int], Any]:
    """(tag, step) -> the summary's value, from all event files of a folder."""
    found: dict[tuple[str, int], Any] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found |= {(value.tag, event.step): value for value in event.summary.value}
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    summaries = Summaries(tmp_path / "logs")
    summaries.scalars(10, "train", accuracy=0.75, cross_entropy=0.5)
    summaries.scalars(10, "validation", accuracy=0.5)
    summaries.scalars(20, "validation", accuracy=0.625)
    summaries.histograms(10, "train", weights=np.array([[-1.0, 0.0], [1.0, 2.0]], np.float32), biases=np.zeros(3))
    summaries.close()
    return tmp_path / "logs"


def test_each_part_has_its_scalars(written: Path) -> None:
    train, validation = read(written / "train"), read(written / "validation")
    assert train["accuracy", 10].simple_value == 0.75
    assert train["cross_entropy", 10].simple_value == 0.5
    steps = {step: value.simple_value for (tag, step), value in validation.items() if tag == "accuracy"}
    assert steps == {10: 0.5, 20: 0.625}


def test_histograms_hold_all_numbers(written: Path) -> None:
    train = read(written / "train")
    weights = train["weights", 10].histo
    assert (weights.min, weights.max, weights.num, weights.sum) == (-1, 2, 4, 2)
    assert sum(weights.bucket) == 4
    assert len(weights.bucket) == len(weights.bucket_limit)
    figures = {figure: train[f"weights/{figure}", 10].simple_value for figure in ("mean", "max", "min")}
    assert figures == {"mean": 0.5, "max": 2, "min": -1}
    assert train["weights/stddev", 10].simple_value == pytest.approx(np.std([-1, 0, 1, 2]))
    assert sum(train["biases", 10].histo.bucket) == 3  # all equal is no error


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    summaries = Summaries(tmp_path)
    summaries.histograms(1, "train", odd=np.array([np.nan, 1.0, np.inf]), gone=np.array([np.nan]), none=np.zeros(0))
    summaries.close()
    values = read(tmp_path / "train")
    assert values["odd", 1].histo.num == 1
    assert {tag for tag, _ in values} == {"odd", "odd/mean", "odd/stddev", "odd/max", "odd/min"}


def test_earlier_runs_are_cleared_and_nothing_else(written: Path) -> None:
    (written / "train" / "notes.txt").write_text("mine")
    (written / "events.out.tfevents.1.elsewhere").write_text("not of a part")
    Summaries(written).close()
    assert not read(written / "train")
    assert not read(written / "validation")
    assert (written / "train" / "notes.txt").read_text() == "mine"
    assert (written / "events.out.tfevents.1.elsewhere").exists()


def test_a_run_that_goes_on_keeps_them(written: Path) -> None:
    summaries = Summaries(written, resume=True)
    summaries.scalars(30, "train", accuracy=0.9)
    summaries.close()
    assert {step for tag, step in read(written / "train") if tag == "accuracy"} == {10, 30}


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"summaries cannot be written to .*file/train"):
        Summaries(tmp_path / "file")


def test_tensorboard_shows_them(written: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(written / "train"), {"tensors": 0, "scalars": 0, "histograms": 0})
    events.Reload()
    assert events.Scalars("accuracy")[0].value == 0.75
    assert sum(events.Histograms("weights")[0].histogram_value.bucket) == 4


def test_it_is_written_without_tensorboard(tmp_path: Path) -> None:
    """In a process of its own, where nobody can import it."""
    program = f"""
import sys
from pathlib import Path
sys.modules["tensorboard"] = None
from fairway.worker.training.summaries import Summaries
summaries = Summaries(Path({str(tmp_path)!r}))
summaries.scalars(1, "train", accuracy=1.0)
summaries.histograms(1, "train", weights=[1.0, 2.0])
summaries.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert read(tmp_path / "train")["accuracy", 1].simple_value == 1.0
