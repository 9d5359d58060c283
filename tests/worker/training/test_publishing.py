"""Versions appear whole, under numbers of their own, whoever publishes at the same time and whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairway.worker.card import read_card
from fairway.worker.errors import ConfigurationError
from fairway.worker.source import numbered
from fairway.worker.training.publishing import check_folder, publish

CARD = {"name": "flowers", "version": None, "input": {"width": 4, "height": 4}, "output": {"labels": ["a", "b"]}}


def write(part: Path) -> None:
    (part / "variables").mkdir()
    (part / "variables" / "weights").write_bytes(b"weights")
    (part / "saved_model.pb").write_bytes(b"graph")


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_numbers_go_up_and_the_card_knows_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "flowers"
    for number in (1, 2):
        assert publish(folder, write, CARD) == (number, folder / str(number))
        card = read_card(folder / str(number) / "model_card.json")
        assert (card.labels, card.notes) == (("a", "b"), {"name": "flowers", "version": number})
        assert (folder / str(number) / "variables" / "weights").read_bytes() == b"weights"
    assert set(numbered(folder)) == {1, 2}
    assert hidden(folder) == []
    assert CARD["version"] is None  # ours is not written to


def test_a_version_of_a_model_that_has_no_card(tmp_path: Path) -> None:
    assert publish(tmp_path, write, None) == (1, tmp_path / "1")
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"saved_model.pb", "variables"}


def test_numbers_are_not_used_twice(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()  # of a version that was deleted by half, or is being copied
    (tmp_path / "9").write_text("a file is no version, but its name is taken")
    (tmp_path / "²").mkdir()
    assert publish(tmp_path, write, CARD)[0] == 10


def test_nothing_is_seen_before_it_is_whole(tmp_path: Path) -> None:
    seen = []

    def watched(part: Path) -> None:
        write(part)
        seen.append((set(numbered(tmp_path)), part.name, part.parent))

    publish(tmp_path, watched, CARD)
    assert seen == [(set(), ".1.part", tmp_path)]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_rubbish(tmp_path: Path, error: BaseException) -> None:
    def failing(part: Path) -> None:
        write(part)
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path, failing, CARD)
    assert list(tmp_path.iterdir()) == []
    assert publish(tmp_path, write, CARD)[0] == 1


def test_runs_at_once_never_collide(tmp_path: Path) -> None:
    """All of them are inside `write` before the first may end."""
    count = 8
    together = threading.Barrier(count, timeout=60)

    def run(index: int) -> tuple[int, Path]:
        def mine(part: Path) -> None:
            write(part)
            (part / "who").write_text(str(index))
            together.wait()

        return publish(tmp_path, mine, CARD)

    with ThreadPoolExecutor(count) as pool:
        published = list(pool.map(run, range(count)))
    assert sorted(number for number, _ in published) == list(range(1, count + 1))
    for index, (number, path) in enumerate(published):
        assert (path / "who").read_text() == str(index)
        assert json.loads((path / "model_card.json").read_text())["version"] == number
    assert hidden(tmp_path) == []


def test_who_ends_last_is_the_newest(tmp_path: Path) -> None:
    def slow(part: Path) -> None:
        write(part)
        assert publish(tmp_path, write, CARD)[0] == 1

    assert publish(tmp_path, slow, CARD)[0] == 2


def test_a_number_that_is_taken_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the numbers and the renaming another run may be faster."""
    rename = Path.rename
    stolen: list[Path] = []

    def late(self: Path, target: Path) -> Path:
        if not stolen:
            stolen.append(target)
            target.mkdir()
            write(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    number, path = publish(tmp_path, write, CARD)
    assert (number, stolen) == (2, [tmp_path / "1"])
    assert json.loads((path / "model_card.json").read_text())["version"] == 2
    assert not (tmp_path / "1" / "model_card.json").exists()


def test_what_a_dead_run_left_is_removed(tmp_path: Path) -> None:
    """A process that dies in the middle, as one that is killed does: nothing of Python's is run."""
    program = f"""
import os
from pathlib import Path
from fairway.worker.training.publishing import publish
def write(part):
    (part / "half").write_text("half")
    os._exit(9)
publish(Path({str(tmp_path)!r}), write, {{}})
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 9
    assert hidden(tmp_path) == [".1.part"]
    (tmp_path / ".5.part").mkdir()
    (tmp_path / ".5.part" / "older").write_text("")
    (tmp_path / ".fairway").mkdir()  # a worker's notes: not ours
    number, path = publish(tmp_path, write, CARD)
    assert number == 1
    assert not (path / "half").exists()
    assert hidden(tmp_path) == [".fairway"]


def test_what_a_living_run_makes_is_left_alone(tmp_path: Path) -> None:
    def slow(part: Path) -> None:
        write(part)
        with pytest.raises(NotADirectoryError):
            publish(tmp_path, lambda other: (part / "saved_model.pb" / "no folder").mkdir(), CARD)
        assert (part / "saved_model.pb").exists()

    assert publish(tmp_path, slow, CARD)[0] == 1


def test_where_nothing_can_be_published(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot make the model's folder .*file"):
        check_folder(tmp_path / "file")
    write(tmp_path)
    with pytest.raises(ConfigurationError, match="is itself a model"):
        publish(tmp_path, write, CARD)
