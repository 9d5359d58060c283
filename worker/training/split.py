"""Which photos training may see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset.folder import Photo, read_folder
from ..errors import ConfigurationError


@dataclass(frozen=True)
class Split:
    """`train` fits the weights, `held_out` is only watched while it runs, `test` is looked at once, at the end."""

    train: tuple[Photo, ...]
    held_out: tuple[Photo, ...]
    test: tuple[Photo, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({photo.label for photo in self.train}))


def read_split(folders: Sequence[Path], held_out_percent: float) -> Split:
    """One sub-folder a class. Rows marked `val` in a folder's LISTING.tsv are the test set, whatever else is asked for.

    What is held out is decided by the hash of the file's name, so adding files never moves one across.
    """
    train: list[Photo] = []
    held_out: list[Photo] = []
    test: list[Photo] = []
    for folder in folders:
        for photo in read_folder(folder):
            if photo.part == "val":
                test.append(photo)
            elif _percentile(photo.path.name) < held_out_percent:
                held_out.append(photo)
            else:
                train.append(photo)
    seen = {photo.path.name for photo in (*train, *held_out)}
    if leaked := [photo.path.name for photo in test if photo.path.name in seen]:
        raise ConfigurationError(f"{len(leaked)} test photo(s) also stand in a training folder, e.g. {leaked[0]}")
    split = Split(tuple(train), tuple(held_out), tuple(test))
    if len(split.labels) < 2:
        found = ", ".join(str(folder) for folder in folders)
        raise ConfigurationError(f"{found}: training needs at least two sub-folders with photos, one a class")
    return split


def _percentile(name: str) -> float:
    return int.from_bytes(hashlib.sha1(name.encode()).digest()[:4], "big") / 2**32 * 100
