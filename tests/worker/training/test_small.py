"""`fairway train`: the small network from scratch; from folders to a version that is served, interrupted and resumed."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.card import read_card
from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.source import BUNDLED
from fairway.worker.training import from_scratch
from fairway.worker.training.recipe import Recipe
from fairway.worker.training.small import KEPT, TrainSettings, train, train_command
from fairway.worker.training.split import read_split
from fairway.worker.training.stopping import Interrupted

from ...cluster.processes import FAIRWAY, Running

TINY = Recipe(
    epochs=8, batch=8, learning_rate=0.02, warm_up_epochs=1, average_decay=0.8, stored_size=24, train_size=16,
    serve_size=16, widths=(8, 8), blocks=(1, 1), hue=0.0, held_out_percent=20.0,
)  # fmt: skip
LABELS = ("blue", "green", "red")


def paint(path: Path, label: str, rng: Any) -> None:
    """Noise, mostly of one colour."""
    pixels = rng.integers(0, 90, (30, 40, 3))
    pixels[:, :, {"red": 0, "green": 1, "blue": 2}[label]] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures a class, of which a listing keeps four for the test."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(2)
    rows = ["path\tsplit"]
    for label in LABELS:
        for number in range(12):
            name = f"{label}/{label}{number}.png"
            paint(folder / name, label, rng)
            rows.append(f"{name}\t{'val' if number < 4 else 'train'}")
    (folder / "LISTING.tsv").write_text("\n".join(rows) + "\n")
    return folder


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def run_of(folder: Path, kept: Path, recipe: Recipe = TINY, resume: bool = False) -> from_scratch.Run:
    photos = from_scratch.gather(read_split([folder], recipe.held_out_percent), recipe, never)
    return from_scratch.Run(photos, recipe, kept / "checkpoint.npz", resume)


def test_from_folders_to_a_version_that_is_served(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "colours"
    place, report = train([folder], out, TINY)
    assert (place, report.total, report.labels) == (out / "1", 12, LABELS)
    assert report.accuracy > 0.9
    assert sorted(path.name for path in out.iterdir()) == ["1"]  # and no checkpoint any more
    said = capsys.readouterr().out
    assert "12 for the test" in said
    assert "epoch 8/8  loss " in said

    card = read_card(place / "model_card.json")
    assert card.labels == LABELS
    assert (card.input.width, card.input.resize, card.notes["version"]) == (16, "crop", 1)
    assert card.notes["test"]["top_1"] == report.accuracy
    assert card.notes["test"]["on"] == "test"
    assert card.notes["training"].items() >= json.loads(json.dumps(asdict(TINY))).items()
    assert card.notes["data"]["photos"]["red"]["test"] == 4
    assert (place / "labels.txt").read_text().split() == list(LABELS)
    for picture in ("training.png", "confusion.png"):
        with Image.open(place / picture) as image:
            assert image.format == "PNG"

    model = load_model("", 0, str(out), WorkerSettings(runtime="tensorflow"), 1)
    assert model.card is not None, model.reason
    assert (model.name, model.version) == ("colours", 1)
    item = to_item((folder / "green" / "green0.png").read_bytes(), model.card.input)
    scores = model.loaded.run({model.image_input: item[None]}, model.loaded.default)[model.scores][0]
    assert LABELS[scores.argmax()] == "green"
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_the_recipe_is_that_of_the_bundled_model() -> None:
    card = json.loads((BUNDLED / "flowers" / "model_card.json").read_text())
    assert card["training"].items() >= json.loads(json.dumps(asdict(Recipe()))).items()
    assert TrainSettings(image_dir=("flowers",), out="models").recipe() == Recipe()


def test_a_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run_of(folder, tmp_path)
    with pytest.raises(Interrupted, match=r"in epoch 3 of 8, kept in .*checkpoint\.npz"):
        first.fit(after(2 * first.steps + 1))
    second = run_of(folder, tmp_path, resume=True)
    assert (second.step, second.history) == (2 * second.steps + 1, first.history)
    for mine, theirs in zip(second._variables(), first._variables(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
    assert "begins anew" not in caplog.text
    second.fit(never)
    assert [row["epoch"] for row in second.history] == list(range(1, 9))
    # Of sixteen steps the running averages of normalization say little yet: how right it is shows in `finish`, below.
    assert 0 <= second.history[-1]["validation_accuracy"] <= 1
    assert second.history[-1]["cross_entropy"] < second.history[0]["cross_entropy"]
    assert second.minutes > first.seconds / 60
    third = run_of(folder, tmp_path, resume=True)  # interrupted between the last epoch and the test
    third.fit(never)
    assert third.step == second.step
    with pytest.raises(Interrupted, match="before the test"):
        third.finish(lambda: True)
    assert third.finish(never).accuracy > 0.8


def test_a_run_with_other_settings_is_not_gone_on_with(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_of(folder, tmp_path).save()
    with pytest.raises(ConfigurationError, match=r"other settings \(epochs, seed\)"):
        run_of(folder, tmp_path, replace(TINY, epochs=9, seed=8), resume=True)
    assert run_of(folder, tmp_path, replace(TINY, epochs=9)).step == 0
    assert "--resume would go on with it" in caplog.text


@pytest.mark.parametrize("there", [False, True])
def test_without_a_checkpoint_that_can_be_read_it_begins_anew(
    folder: Path, tmp_path: Path, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if there:
        (tmp_path / "checkpoint.npz").write_bytes(b"PK\3\4 half of it")
    run = run_of(folder, tmp_path, resume=True)
    assert (run.step, run.history) == (0, [])
    assert "the run begins anew" in caplog.text


def test_bad_photos_are_named_and_set_aside(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)
    (photos / "red" / "half.png").write_bytes((photos / "red" / "red9.png").read_bytes()[:300])
    (photos / "red" / "text.jpg").write_text("no picture")
    shutil.copy(photos / "blue" / "blue0.png", photos / "blue" / "again.png")  # of the test
    with caplog.at_level(logging.WARNING):
        run = run_of(photos, tmp_path)
    assert {path.name for path in from_scratch.gather(run.split, TINY, never).aside} == set()
    for name, reason in (("half.png", "broken image"), ("text.jpg", "not an image"), ("again.png", "also stands in")):
        assert any(name in record.message and reason in record.message for record in caplog.records), caplog.text
    assert "only 8 photos" in caplog.text or "only 7 photos" in caplog.text or "only 6 photos" in caplog.text
    names = {photo.path.name for photo in run.split.train}
    assert not names & {"half.png", "text.jpg", "again.png"}


def test_very_few_photos_and_none_to_judge_by(tmp_path: Path) -> None:
    """Fewer than a batch, and no test: it is trained and published all the same, and the card claims nothing."""
    rng = np.random.default_rng(0)
    for label in ("red", "blue"):
        paint(tmp_path / "photos" / label / "one.png", label, rng)
    place, report = train([tmp_path / "photos"], tmp_path / "out", replace(TINY, epochs=1, held_out_percent=0.0))
    assert report.total == 0
    card = read_card(place / "model_card.json")
    assert card.notes["test"] == {"photos": 0}
    assert not (place / "confusion.png").exists()
    assert (place / "training.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--image-dir is required"),
        (["--image-dir", "{photos}"], "--out is required"),
        (["--image-dir", "{photos}", "--out", "{tmp}/m", "--epochs", "0"], "--epochs: at least 1"),
        (
            ["--image-dir", "{photos}", "--out", "{tmp}/m", "--architecture", "large"],
            "'large' will not do: one of small",
        ),
        (["--image-dir", "{photos}", "--out", "{tmp}/m", "--validation-percentage", "100"], "nothing to learn from"),
        (["--image-dir", "{tmp}/nowhere", "--out", "{tmp}/m"], "nowhere: no such folder"),
        (["--image-dir", "{photos}/red", "--out", "{tmp}/m"], "at least two sub-folders"),
        (["--image-dir", "{photos}", "--out", "{photos}/LISTING.tsv"], "cannot make the model's folder"),
    ],
)
def test_what_the_user_must_change(folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [argument.format(photos=folder, tmp=tmp_path) for argument in arguments]
    with pytest.raises(ConfigurationError, match=said):
        train_command(given)
    assert not list(tmp_path.glob("m/*"))


def test_the_command_is_interrupted_and_goes_on(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real photos, the real recipe, a real signal."""
    for label in ("daisy", "tulips"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for photo in sorted((shared_data / "flowers_small" / label).glob("*.jpg"))[:5]:
            shutil.copy(photo, tmp_path / "photos" / label)
    out = tmp_path / "models"
    line = [
        "--image-dir",
        str(tmp_path / "photos"),
        "--out",
        str(out),
        "--epochs",
        "8",
        "--validation-percentage",
        "0",
    ]
    with Running([*FAIRWAY, "train", "--architecture", "small", *line], env={"PYTHONUNBUFFERED": "1"}) as process:
        process.line(r"epoch 1/8  loss", 150)
        process.send(signal.SIGINT)
        assert process.ended() == 130, process.said
        assert "--resume goes on" in process.said
        before = epochs(process.said)
    assert [path.name for path in out.iterdir()] == [KEPT]
    assert train_command([*line, "--resume"]) == 0
    said = capsys.readouterr().out
    assert before + epochs(said) == list(range(1, 9))
    assert f"{out / '1'} is ready: fairway worker --model {out}" in said
    assert [path.name for path in out.iterdir()] == ["1"]


def epochs(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"epoch (\d+)/8  loss", said)]
