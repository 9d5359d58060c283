"""Labelled pictures on disk -> examples: folders of photos, and the idx files of MNIST and EMNIST."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...worker.dataset import idx
from ...worker.dataset.folder import read_folder
from ...worker.errors import BadRequest, ConfigurationError

MAX_BYTES = 2**30  # of an idx file, unpacked; EMNIST's largest has 547 million
DIGITS = tuple("0123456789")
EMNIST = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# EMNIST's "merged" classes: small letters that look like their capitals are one class with them.
MERGED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
LETTERS = ("", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # EMNIST letters: numbered from 1


@dataclass(frozen=True)
class Example:
    """`truth`: its class's name. Either a file, or `pixels`: (rows, columns) or (rows, columns, channels) of uint8."""

    name: str
    truth: str
    path: Path | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, compare=False)

    def picture(self) -> bytes:
        """An image file: as it is, or as PNG. Raises OSError."""
        if self.path is not None:
            return self.path.read_bytes()
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.pixels)).save(out, "PNG")
        return out.getvalue()

    def resized(self, rows: int, columns: int, channels: int) -> NDArray[np.uint8]:
        """A photo squashed to a size, bilinear; (rows, columns, channels), gray or RGB. Raises OSError."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.picture())) as opened:
                picture = opened.convert("L" if channels == 1 else "RGB")
        except (ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise OSError(f"{self.name}: {error}") from error
        if picture.size != (columns, rows):
            picture = picture.resize((columns, rows), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(rows, columns, channels)


class Labelled:
    """A sequence of examples. `classes`: all names, in order; `part`: which part of the set it is, in words."""

    def __init__(self, classes: tuple[str, ...], part: str, of: str) -> None:
        self.classes, self.part, self.of = classes, part, of

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        raise NotImplementedError


class Photos(Labelled):
    def __init__(self, examples: Sequence[Example], classes: tuple[str, ...], part: str, of: str) -> None:
        super().__init__(classes, part, of)
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


class Pixels(Labelled):
    """`images`: (n, rows, columns) of uint8; `labels`: (n,) class numbers, whose names are `classes`."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...], part: str, of: str
    ) -> None:
        super().__init__(classes, part, of)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return Example(f"#{index}", self.classes[self.labels[index]], pixels=self.images[index])


def sample(labelled: Labelled, n: int, seed: int) -> list[Example]:
    """`n` of them without replacement, or all in another order if there are fewer.

    NumPy's legacy generator, which keeps its stream for good: what the EMNIST post drew with the same seed, it draws too.
    """
    drawn = np.random.RandomState(seed).choice(len(labelled), min(n, len(labelled)), replace=False)
    return [labelled[int(index)] for index in drawn]


def read_labelled(data: str, part: str = "", data_labels: str = "", transpose: bool = False) -> Labelled:
    """What --data names. Raises ConfigurationError."""
    first = Path(data)
    if first.is_dir():
        found = _idx_file(first, part)
        return _pixels(found, None, part, data_labels, transpose) if found else _photos(first, part)
    images, comma, labels = (data, "", "") if first.is_file() else data.partition(",")
    if not Path(images).is_file():
        raise ConfigurationError(f"{images}: no such file or folder")
    return _pixels(Path(images), Path(labels) if comma else None, part, data_labels, transpose)


def read_names(path: str | Path) -> tuple[str, ...]:
    """A labels file: one name a line, empty lines at the end not counted. Raises ConfigurationError."""
    try:
        names = tuple(line.strip() for line in Path(path).read_text("utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not names:
        raise ConfigurationError(f"{path}: no names in it")
    return names


def read_idx(path: Path, dimensions: int, what: str) -> NDArray[Any]:
    """One file, gzipped or not, of whole numbers. Raises ConfigurationError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == idx.GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigurationError(f"{path}: more than {MAX_BYTES} bytes, unpacked")
        array = idx.decode(data)
    except (BadRequest, OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if array.ndim != dimensions or array.dtype != np.uint8:
        sizes = "x".join(map(str, array.shape))
        raise ConfigurationError(f"{path}: {sizes} of {array.dtype}; expected {what}")
    return array


def read_pair(images: Path, labels: Path | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """-> (n, rows, columns) of uint8, (n,) of class numbers. `labels`: else the file beside. Raises ConfigurationError."""
    pictures = read_idx(images, 3, "pictures: bytes of three dimensions")
    labels = labels or labels_beside(images)
    numbers = read_idx(labels, 1, "labels: bytes of one dimension")
    if len(pictures) != len(numbers):
        raise ConfigurationError(f"{labels}: {len(numbers)} labels for the {len(pictures)} pictures of {images.name}")
    if not len(pictures):
        raise ConfigurationError(f"{images}: no pictures in it")
    return pictures, numbers.astype(np.int64)


def labels_beside(images: Path) -> Path:
    """`…-labels-idx1-ubyte.gz` of `…-images-idx3-ubyte.gz`. Raises ConfigurationError if there is no such file."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    found = images.with_name(name)
    if name == images.name or not found.is_file():
        raise ConfigurationError(f"{images}: where are its labels? Say --data {images},LABELS")
    return found


def emnist_names(file: str, most: int) -> tuple[str, ...]:
    """What class numbers up to `most` mean in a file of this name: digits, or one of EMNIST's alphabets."""
    name = file.lower()
    if "letters" in name:
        names = LETTERS
    elif "balanced" in name or "bymerge" in name:
        names = MERGED
    else:
        names = DIGITS if most < len(DIGITS) else EMNIST
    return names if most < len(names) else tuple(map(str, range(most + 1)))


def _photos(folder: Path, part: str) -> Photos:
    photos = read_folder(folder)
    if not photos:
        raise ConfigurationError(f"{folder}: no pictures in it; expected one sub-folder a class, with pictures in them")
    classes = tuple(sorted({photo.label for photo in photos}))
    parts = sorted({photo.part for photo in photos if photo.part})
    wanted = part or ("val" if "val" in parts else "all")
    if wanted != "all":
        photos = tuple(photo for photo in photos if photo.part == wanted)
        if not photos:
            known = f"its LISTING.tsv knows {', '.join(parts)}" if parts else "it has no LISTING.tsv that says so"
            raise ConfigurationError(f"{folder}: no pictures of part {wanted!r}; {known}")
    examples = [Example(f"{photo.label}/{photo.path.name}", photo.label, photo.path) for photo in photos]
    return Photos(examples, classes, wanted, str(folder))


def _pixels(images: Path, labels: Path | None, part: str, data_labels: str, transpose: bool) -> Pixels:
    pictures, numbers = read_pair(images, labels)
    most = int(numbers.max())
    names = read_names(data_labels) if data_labels else emnist_names(images.name, most)
    if most >= len(names):
        raise ConfigurationError(f"{data_labels}: {len(names)} names, but there are class numbers up to {most}")
    turned = pictures.transpose(0, 2, 1) if transpose else pictures
    return Pixels(turned, numbers, names, part or "all", str(images))


def _idx_file(folder: Path, part: str) -> Path | None:
    """Of a folder of MNIST's files the images for `part`; None if there are none."""
    images = sorted(path for path in folder.iterdir() if "images" in path.name and "idx3" in path.name)
    if len(images) > 1:
        train = [path for path in images if "train" in path.name]
        images = train if part == "train" else [path for path in images if path not in train]
    if len(images) > 1:
        raise ConfigurationError(f"{folder}: {', '.join(p.name for p in images)}: which one? Say --data FILE")
    return images[0] if images else None
