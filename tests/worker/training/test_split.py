"""Which photos training may see: decided by names alone, and nothing that is tested on is learnt from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.dataset.folder import Photo, read_folder
from fairway.worker.errors import ConfigurationError
from fairway.worker.training.split import (
    Split,
    divide,
    percentage,
    read_split,
    warnings,
    without_leaks,
    without_unlearnt,
)

NAMES = [f"{i:04d}.jpg" for i in range(400)]


def photos(names: list[str], label: str = "rose", part: str = "") -> list[Photo]:
    return [Photo(Path(label) / name, label, part) for name in names]


def test_the_hash_is_that_of_retrain_py() -> None:
    # Of "a.jpg": sha1 is 6a1dd0bb...; the formula is retrain.py's, written out.
    number = int(hashlib.sha1(b"a.jpg").hexdigest(), 16) % (2**27 - 1 + 1) * (100.0 / (2**27 - 1))
    assert percentage("a.jpg") == number
    assert 0 <= number <= 100


def test_pictures_of_one_plant_stay_together() -> None:
    assert percentage("plant7_nohash_1.jpg") == percentage("plant7_nohash_22.jpg") == percentage("plant7")
    assert percentage("plant7_nohash_1.jpg") != percentage("plant8_nohash_1.jpg")


def test_about_as_many_as_asked_for() -> None:
    split = divide(photos(NAMES) + photos(NAMES, "tulip"), testing=20, validation=10)
    assert 0.15 < len(split.test) / 800 < 0.25
    assert 0.06 < len(split.held_out) / 800 < 0.14
    assert len(split.train) + len(split.test) + len(split.held_out) == 800
    assert split.labels == ("rose", "tulip")


@given(st.sets(st.integers(0, 399)), st.sets(st.integers(400, 900), max_size=50))
def test_new_photos_move_no_other(kept: set[int], fresh: set[int]) -> None:
    # Photos that are learnt from anyway keep the class from being learnt whole.
    always = [name for name in NAMES if percentage(name) > 90][:1]
    before = photos([*always, *(f"{i:04d}.jpg" for i in kept)])
    after = photos([*always, *(f"{i:04d}.jpg" for i in kept | fresh)])
    first, second = divide(before, 10, 10), divide(after, 10, 10)
    for one, other in ((first.train, second.train), (first.held_out, second.held_out), (first.test, second.test)):
        assert set(one) <= set(other)


def test_a_listing_decides_what_is_tested() -> None:
    listed = photos(NAMES[:5], part="val")
    split = divide([*listed, *photos(NAMES[5:])], testing=50, validation=10)
    assert set(split.test) == set(listed)
    assert split.held_out


def test_a_class_with_one_photo_is_learnt() -> None:
    tested = next(name for name in NAMES if percentage(name) < 5)
    split = divide([*photos(NAMES), *photos([tested], "lone")], testing=10, validation=10)
    assert [photo for photo in split.train if photo.label == "lone"]
    assert not [photo for photo in (*split.held_out, *split.test) if photo.label == "lone"]
    assert warnings([*photos(NAMES), *photos([tested], "lone"), *photos(NAMES[:3], "few")]) == [
        "few: only 3 photos; fewer than 20 hardly make a class",
        "lone: a single photo; it is learnt from, and nothing tells how well",
    ]


def test_what_is_tested_is_not_learnt_under_another_name() -> None:
    a, b, c, d = photos(["a", "b", "c", "d"])
    keys = {a.path: b"1", b.path: b"2", c.path: b"2", d.path: b"1"}
    split, leaks = without_leaks(Split((a, b), (c,), (d,)), keys)
    assert split == Split((), (c,), (d,))
    assert set(leaks) == {a, b}


def test_what_cannot_be_read_is_in_no_part() -> None:
    a, b = photos(["a", "b"])
    assert without_leaks(Split((a, b), (), ()), {b.path: b"2"}) == (Split((b,), (), ()), [])


def test_a_class_without_anything_to_learn_from_is_not_tested() -> None:
    rose, tulip = photos(["a"]), photos(["b"], "tulip", "val")
    split, strange = without_unlearnt(Split(tuple(rose), (), tuple(tulip)))
    assert split == Split(tuple(rose), (), ())
    assert strange == tulip


def test_folders_of_the_same_name_are_one_class(tmp_path: Path) -> None:
    for folder, label, name in (("one", "rose", "a.jpg"), ("two", "rose", "b.jpg"), ("two", "tulip", "c.jpg")):
        (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / label / name).write_bytes(b"")
    split = read_split([tmp_path / "one", tmp_path / "two"], held_out_percent=0)
    assert split.labels == ("rose", "tulip")
    assert len(split.train) == 3


def test_one_class_cannot_be_told_from_anything(tmp_path: Path) -> None:
    (tmp_path / "rose").mkdir()
    with pytest.raises(ConfigurationError, match=r"at least two sub-folders with photos.*there is none"):
        read_split([tmp_path], 0)
    (tmp_path / "rose" / "a.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="only 'rose' has photos"):
        read_split([tmp_path], 0)
    with pytest.raises(ConfigurationError, match="no such folder"):
        read_split([tmp_path / "nowhere"], 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"file\tpart\na\tval\n", "names no column 'path'"), (b"path\tsplit\n\xff\xfe\tval\n", "cannot be read")],
)
def test_a_listing_that_is_none_is_said(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "LISTING.tsv").write_bytes(text)
    with pytest.raises(ConfigurationError, match=said):
        read_folder(tmp_path)


def test_the_rows_of_the_real_listing(shared_data: Path) -> None:
    folders = [shared_data / "flowers", shared_data / "flowers_small"]
    split = divide([photo for folder in folders for photo in read_folder(folder)], 10, 10)
    assert (len(split.train), len(split.held_out), len(split.test)) == (2670, 294, 150)


def folder_of(place: Path, *files: str) -> Path:
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    return place


def test_a_model_that_was_trained_into_the_same_folder_is_no_class(tmp_path: Path) -> None:
    folder_of(tmp_path, "rose/a.jpg", "1/b.jpg", "2/saved_model.pb", "2/training.png", "2/confusion.png")
    assert [photo.label for photo in read_folder(tmp_path)] == ["1", "rose"]


@pytest.mark.parametrize("row", ["rose/a.jpg", "./rose/a.jpg", "rose\\a.jpg", "rose//a.jpg"])
def test_paths_of_a_listing_as_people_write_them(tmp_path: Path, row: str) -> None:
    folder_of(tmp_path, "rose/a.jpg", "rose/b.jpg")
    (tmp_path / "LISTING.tsv").write_text(f"split\tpath\nval\t{row}\n")
    assert [photo.part for photo in read_folder(tmp_path)] == ["val", ""]


def test_a_listing_that_names_no_photo_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "rose/a.jpg")
    (tmp_path / "LISTING.tsv").write_text("split\tpath\nval\tphotos/rose/a.jpg\n")
    with pytest.raises(ConfigurationError, match=r"none of its 1 rows names a photo here: .photos/rose/a.jpg"):
        read_folder(tmp_path)


def test_rows_of_a_listing_that_no_photo_answers_to_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of(tmp_path, "rose/a.jpg")
    (tmp_path / "LISTING.tsv").write_text("split\tpath\nval\trose/a.jpg\nval\trose/gone.jpg\n")
    assert read_folder(tmp_path)[0].part == "val"
    assert "1 of 2 rows name no photo here, such as rose/gone.jpg" in caplog.text


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "avif", "jfif", "ico", "ppm"])
def test_whatever_a_worker_takes_is_a_photo(tmp_path: Path, suffix: str) -> None:
    assert len(read_folder(folder_of(tmp_path, f"rose/a.{suffix}", "rose/notes.txt"))) == 1
