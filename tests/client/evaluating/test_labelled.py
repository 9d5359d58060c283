"""Labelled sets: what is read, what is drawn from it, and what is said of what will not do."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairway.client.evaluating.endpoint import Input, as_items
from fairway.client.evaluating.labelled import emnist_names, read_labelled, read_names, sample
from fairway.worker.dataset import idx
from fairway.worker.errors import ConfigurationError

from ...conftest import picture
from .standin import digits

NAMES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def a_set(folder: Path, prefix: str = "t10k-", count: int = 30, packed: bool = True) -> Path:
    """-> the file of images."""
    images, numbers = digits(count, 1)
    for array, name in zip((images, numbers.astype(np.uint8)), NAMES, strict=True):
        data = idx.encode(array)
        path = folder / f"{prefix}{name}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return folder / f"{prefix}{NAMES[0]}{'.gz' if packed else ''}"


def photos(folder: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.jpg").write_bytes(picture(number, (32, 24)))
    return folder


def test_a_sample_is_the_same_for_the_same_seed_and_holds_nothing_twice(tmp_path: Path) -> None:
    data = read_labelled(str(a_set(tmp_path)))
    drawn = [example.name for example in sample(data, 20, 42)]
    assert drawn == [example.name for example in sample(data, 20, 42)]
    assert drawn != [example.name for example in sample(data, 20, 43)]
    assert len(set(drawn)) == 20
    # As the EMNIST post draws: its loader's numbers, chosen without replacement after np.random.seed(42).
    np.random.seed(42)
    assert drawn == [f"#{i}" for i in np.random.choice(np.arange(30), 20, replace=False)]
    assert len({example.name for example in sample(data, 1000, 42)}) == 30


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_as_named_or_by_their_folder(tmp_path: Path, packed: bool) -> None:
    images, numbers = digits(30, 1)
    first = a_set(tmp_path, packed=packed)
    for given in (str(first), str(tmp_path), f"{first},{str(first).replace('images-idx3', 'labels-idx1')}"):
        data = read_labelled(given)
        assert (len(data), data.classes) == (30, tuple("0123456789"))
        assert [data[i].truth for i in range(30)] == [str(number) for number in numbers]
        np.testing.assert_array_equal(data[7].pixels, images[7])
    with Image.open(io.BytesIO(data[7].picture())) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), images[7])
    turned = read_labelled(str(first), transpose=True)
    np.testing.assert_array_equal(turned[7].pixels, images[7].T)


def test_of_a_folder_of_several_sets_the_part_decides(tmp_path: Path) -> None:
    a_set(tmp_path, "t10k-", 10)
    a_set(tmp_path, "train-", 20)
    assert [len(read_labelled(str(tmp_path), part)) for part in ("train", "val", "")] == [20, 10, 10]
    a_set(tmp_path, "emnist-letters-test-", 5)
    with pytest.raises(ConfigurationError, match="which one"):
        read_labelled(str(tmp_path))


def test_a_folder_of_photos_and_its_parts(tmp_path: Path) -> None:
    photos(tmp_path, daisy=3, roses=1)
    data = read_labelled(str(tmp_path))
    assert (len(data), data.classes, data.part) == (4, ("daisy", "roses"), "all")
    rows = "\n".join(["path\tsplit", "daisy/0.jpg\ttrain", "daisy/1.jpg\tval", "daisy/2.jpg\ttrain"])
    (tmp_path / "LISTING.tsv").write_text(rows, "utf-8")
    assert [example.name for example in sample(read_labelled(str(tmp_path)), 9, 0)] == ["daisy/1.jpg"]
    assert [len(read_labelled(str(tmp_path), part)) for part in ("train", "val", "all")] == [2, 1, 4]
    assert read_labelled(str(tmp_path), "val").classes == ("daisy", "roses")  # they may be called so all the same
    with pytest.raises(ConfigurationError, match=r"no pictures of part 'test'; its LISTING.tsv knows train, val"):
        read_labelled(str(tmp_path), "test")
    (tmp_path / "LISTING.tsv").write_text("file,part\n", "utf-8")
    (tmp_path / "LISTING.tsv").write_text("file\tpart\na\tb\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"names no column .path.; path and split are needed"):
        read_labelled(str(tmp_path))


def test_what_is_no_set(tmp_path: Path) -> None:
    images = a_set(tmp_path)
    labels = tmp_path / f"t10k-{NAMES[1]}.gz"
    short = tmp_path / "short.gz"
    short.write_bytes(gzip.compress(idx.encode(np.zeros(7, np.uint8))))
    cut = tmp_path / "cut-images-idx3.gz"
    cut.write_bytes(images.read_bytes()[:200])
    floats = tmp_path / "floats"
    floats.write_bytes(idx.encode(np.zeros((2, 3, 4), np.float32)))
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "names.txt").write_text("a\nb\n")
    for given, reason in (
        ("/nowhere", "no such file or folder"),
        (str(empty), "no pictures in it; expected one sub-folder a class"),
        (str(labels), "10000|30 of uint8; expected pictures"),
        (f"{images},{short}", "7 labels for the 30 pictures"),
        (f"{images},{tmp_path / 'none'}", "No such file"),
        (str(cut), "Compressed file ended|cut short"),
        (str(floats), "2x3x4 of float32"),
        (str(tmp_path / "names.txt"), "not an idx file"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            read_labelled(given)
    with pytest.raises(ConfigurationError, match=r"names\.txt: 2 names, but there are class numbers up to 9"):
        read_labelled(str(images), data_labels=str(tmp_path / "names.txt"))
    (tmp_path / "names.txt").write_bytes(b"\n \n")
    with pytest.raises(ConfigurationError, match="no names"):
        read_names(tmp_path / "names.txt")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_names(tmp_path)


def test_what_class_numbers_mean() -> None:
    assert "".join(emnist_names("t10k-images-idx3-ubyte.gz", 9)) == "0123456789"
    by_class = emnist_names("emnist-byclass-test-images-idx3-ubyte.gz", 61)
    assert (len(by_class), by_class[10], by_class[36]) == (62, "A", "a")
    balanced = emnist_names("emnist-balanced-test-images-idx3-ubyte.gz", 46)
    assert (len(balanced), balanced[36], balanced[38]) == (47, "a", "d")
    assert emnist_names("emnist-letters-test-images-idx3-ubyte.gz", 26)[1] == "A"
    assert emnist_names("t10k-images-idx3-ubyte", 99)[99] == "99"


def test_pixels_as_a_model_takes_them() -> None:
    pictures = np.arange(2 * 28 * 28, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
    for shape, expected in (
        (None, (784,)),
        ((784,), (784,)),
        ((28, 28, 1), (28, 28, 1)),
        ((None, None, 1), (28, 28, 1)),
        ((None, None), (28, 28)),
        ((None, 28), (28, 28)),
    ):
        items = as_items(pictures, Input("x", "float32", shape))
        assert items.shape[1:] == expected
        assert items.dtype == np.float32
        assert items.max() == 1
        np.testing.assert_array_equal(items.reshape(2, -1), pictures.reshape(2, -1) / np.float32(255))
    assert as_items(pictures, Input("x", "uint8", (784,))).max() == 255
    assert as_items(pictures, Input(), "-1..1").min() == -1
    assert as_items(pictures, Input(), "0..255").max() == 255
    with pytest.raises(ConfigurationError, match="takes 28x28x3, and the pictures are 28x28"):
        as_items(pictures, Input("x", "float32", (None, None, 3)))
