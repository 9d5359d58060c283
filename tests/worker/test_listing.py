"""What lies in a model's folder, and whether somebody is still copying it. Time is moved by hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.listing import Folder, Listing

SETTLE = 1.0


def publish(folder: Path, content: str = "model") -> Path:
    """What passes for a SavedModel, as far as names go."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index")
    return folder


class Looked:
    """A folder, looked at by a clock that only moves when it is told to."""

    def __init__(self, path: Path | str, wall: float = 0.0, start: bool = False) -> None:
        self.folder = Folder(str(path), WorkerSettings(), SETTLE, start)
        self.now, self.wall = 100.0, wall

    def look(self, seconds: float = 0.0, *watched: int) -> list[int]:
        """-> which versions are ready to be loaded, `seconds` after the last look."""
        self.now += seconds
        self.folder.look(self.now, self.wall, watched)
        return sorted(number for number in self.folder.versions if self.folder.ready(number))


def test_a_version_is_ready_when_it_has_stood_still(tmp_path: Path) -> None:
    publish(tmp_path / "7")
    looked = Looked(tmp_path)
    assert looked.look() == []
    assert looked.folder.unsettled
    assert looked.look(0.9) == []
    assert looked.look(0.2) == [7]
    assert not looked.folder.unsettled
    assert looked.folder.versions[7].path == str(tmp_path / "7")


@pytest.mark.parametrize("change", ["grow", "add", "add deep", "remove", "touch"])
def test_whatever_changes_begins_the_wait_anew(tmp_path: Path, change: str) -> None:
    version = publish(tmp_path / "7")
    looked = Looked(tmp_path)
    looked.look()
    match change:
        case "grow":
            (version / "saved_model.pb").write_text("model and more")
        case "add":
            (version / "labels.txt").write_text("daisy")
        case "add deep":
            (version / "assets" / "deep").mkdir(parents=True)
        case "remove":
            (version / "variables" / "variables.index").unlink()
        case "touch":
            os.utime(version / "variables" / "variables.index", (1, 1))
    assert looked.look(1.1) == []
    assert looked.look(1.1) == [7]


def test_a_finished_folder_that_is_renamed_into_place(tmp_path: Path) -> None:
    publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    assert looked.look(1.1) == [1]
    publish(tmp_path / ".new-2").rename(tmp_path / "2")
    assert looked.look() == [1]
    assert looked.look(1.1) == [1, 2]


def test_at_the_start_the_file_system_tells_what_has_stood_still_before(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    written = max(path.stat().st_ctime for path in [version, *version.rglob("*")])
    assert Looked(tmp_path, written + 1.1, start=True).look() == [1]
    assert Looked(tmp_path, written + 0.5, start=True).look() == []
    assert Looked(tmp_path, written - 5.0, start=True).look() == [], "its clock goes ahead of ours"
    assert Looked(tmp_path, written + 1.1).look() == [], "somebody has just brought it"


def test_times_of_change_that_were_copied_along_do_not_count_at_the_start(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    for path in [version, *version.rglob("*")]:
        os.utime(path, (1, 1))
    assert Looked(tmp_path, version.stat().st_ctime + 0.5, start=True).look() == []


def test_a_number_without_a_model_is_no_version_and_is_named(tmp_path: Path) -> None:
    publish(tmp_path / "1")
    (tmp_path / "2").mkdir()
    looked = Looked(tmp_path)
    looked.look()
    assert looked.look(1.1) == [1]
    assert looked.folder.trouble == f"{tmp_path}: no model, or more than one, in 2"
    (tmp_path / "2" / "model.tflite").write_bytes(b"TFL3")
    assert looked.look(5.0) == [1]
    assert looked.folder.trouble == ""
    assert looked.look(1.1) == [1, 2]


def test_names_that_are_no_numbers_are_no_versions(tmp_path: Path) -> None:
    for name in ("1", "new", "2.tmp", ".3", "²", "-4", "+5", "6 "):
        publish(tmp_path / name)
    (tmp_path / "8").write_text("a file")
    looked = Looked(tmp_path)
    looked.look()
    assert looked.look(1.1) == [1]


def test_leading_zeros_are_read_as_what_they_count(tmp_path: Path) -> None:
    publish(tmp_path / "0012")
    looked = Looked(tmp_path)
    looked.look()
    assert looked.look(1.1) == [12]
    assert looked.folder.versions[12].path.endswith("/0012")


def test_what_is_being_changed_in_place_stays_a_version_that_is_not_to_be_loaded(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    looked.look(1.1)
    before = looked.folder.versions[1].listing
    (version / "saved_model.pb").unlink()
    assert looked.look(0.1, 1) == []
    assert list(looked.folder.versions) == [1]
    (version / "saved_model.pb").write_text("other model")
    assert looked.look(0.9, 1) == []
    assert list(looked.folder.versions) == [1]
    assert looked.look(1.1, 1) == [1]
    assert looked.folder.versions[1].listing != before


def test_what_nobody_watches_is_not_looked_into_again(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    looked.look(1.1)
    (version / "saved_model.pb").write_text("other model")
    assert looked.look(1.1) == [1]


def test_a_version_whose_model_is_taken_out_for_good_is_none_any_more(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    looked.look(1.1)
    (version / "saved_model.pb").unlink()
    looked.look(0.1, 1)
    looked.look(1.1, 1)
    assert looked.folder.versions == {}


def test_a_folder_that_cannot_be_read_any_more_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path / "models" / "1")
    looked = Looked(tmp_path / "models")
    looked.look()
    assert looked.look(1.1) == [1]
    (tmp_path / "models").rename(tmp_path / "away")
    assert looked.look(1.1) == [1]
    assert "no such model" in looked.folder.trouble
    (tmp_path / "away").rename(tmp_path / "models")
    assert looked.look(1.1) == [1]
    assert looked.folder.trouble == ""


def test_a_model_without_versions_is_version_1(tmp_path: Path) -> None:
    looked = Looked(publish(tmp_path / "flowers"))
    looked.look()
    assert looked.look(1.1) == [1]


def test_one_of_the_numbered_folders_is_the_version_that_its_name_says(tmp_path: Path) -> None:
    looked = Looked(publish(tmp_path / "flowers" / "12"))
    looked.look()
    assert looked.look(1.1) == [12]


def test_a_file_and_what_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    looked = Looked(tmp_path / "net.onnx")
    looked.look()
    assert looked.look(1.1) == [1]
    (tmp_path / "net.onnx.data").write_bytes(b"other weights")
    (tmp_path / "notes.txt").write_text("nobody's")
    assert looked.look(0.1, 1) == []
    assert looked.look(1.1, 1) == [1]


@pytest.mark.parametrize("name", ["keras:MobileNetV2", "python:some.module:factory"])
def test_what_has_no_files_is_there_at_once(name: str) -> None:
    assert Looked(name).look() == [1]


def test_the_bundled_model_by_its_name() -> None:
    looked = Looked("flowers", wall=1e12, start=True)
    assert looked.look() == [1]


def test_hidden_files_and_caches_are_nobodys_model(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    looked.look(1.1)
    before = Listing.read(str(version))
    (version / ".fairway").mkdir()
    (version / ".fairway" / "choice.json").write_text("{}")
    (version / "__pycache__").mkdir()
    assert looked.look(0.1, 1) == [1]
    assert looked.folder.versions[1].listing == before


def test_files_that_bear_no_time(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    for path in version.rglob("*"):
        os.utime(path, (0, 0))
    looked = Looked(tmp_path)
    looked.look()
    assert looked.look(1.1) == [1]
    (version / "saved_model.pb").write_text("other and longer")
    os.utime(version / "saved_model.pb", (0, 0))
    assert looked.look(0.1, 1) == []


def test_what_vanishes_while_a_served_version_is_read_again_makes_it_no_less_one(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    looked = Looked(tmp_path)
    looked.look()
    looked.look(1.1)
    (version / "gone").symlink_to(tmp_path / "nowhere")
    assert looked.look(1.1, 1) == []
    assert looked.look(1.1, 1) == []
    assert list(looked.folder.versions) == [1]


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    publish(tmp_path / "releases" / "a")
    (tmp_path / "releases" / "a" / "up").symlink_to("..")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1").symlink_to(tmp_path / "releases" / "a")
    looked = Looked(tmp_path / "m")
    looked.look()
    assert looked.look(1.1) == [1]


def test_a_version_that_vanishes_while_it_is_read_is_none(tmp_path: Path) -> None:
    version = publish(tmp_path / "1")
    (version / "gone").symlink_to(tmp_path / "nowhere")
    looked = Looked(tmp_path)
    assert looked.look() == []
    (version / "gone").unlink()
    looked.look()
    assert looked.look(1.1) == [1]
    publish(tmp_path / "2")
    shutil.rmtree(version)
    assert looked.look() == []
    assert looked.look(1.1) == [2]
