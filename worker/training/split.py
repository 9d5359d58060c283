"""Which photos training may see.

The law: what part a photo belongs to is decided by its own name alone (except of classes with nothing else to learn
from), so that no new photo moves another across; and nothing that is tested on is learnt from, not even under another
name.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset.folder import Photo, read_folder
from ..errors import ConfigurationError

TEST = ("val", "test")  # what a listing calls the photos that only the last test may see
MOST_NAMES = 2**27 - 1  # retrain.py's MAX_NUM_IMAGES_PER_CLASS: how fine its percentages are
FEW = 20  # photos of a class: retrain.py warns below that


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
    """One sub-folder a class. Rows marked `val` or `test` in a folder's LISTING.tsv are the test set, whatever else is
    asked for.

    What is held out is decided by the hash of the file's name, so adding files never moves one across.
    """
    train: list[Photo] = []
    held_out: list[Photo] = []
    test: list[Photo] = []
    for photo in read_folders(folders):
        if photo.part in TEST:
            test.append(photo)
        elif _percentile(photo.path.name) < held_out_percent:
            held_out.append(photo)
        else:
            train.append(photo)
    split = Split(tuple(train), tuple(held_out), tuple(test))
    require_classes(split.labels, folders)
    return split


def read_folders(folders: Sequence[Path]) -> tuple[Photo, ...]:
    """All photos of several folders; classes of the same name are one."""
    return tuple(photo for folder in folders for photo in read_folder(folder))


def require_classes(labels: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises ConfigurationError if there is nothing to tell apart."""
    if len(labels) < 2:
        found = f"only {labels[0]!r} has photos" if labels else "there is none"
        raise ConfigurationError(
            f"{', '.join(map(str, folders))}: training needs at least two sub-folders with photos, one a class; {found}"
        )


def divide(photos: Sequence[Photo], testing: float, validation: float) -> Split:
    """Percentages of the photos, as retrain.py divides them; once a listing names test photos, these are the test set.

    `sha1(name) % 2**27 * 100 / (2**27 - 1)` below `validation` is held out, below `validation + testing` is tested on. Of a
    name, `_nohash_` and what follows does not count: photos of one plant stay together. A class that would have nothing to
    be learnt from is learnt whole, and not tested.
    """
    listed = any(photo.part in TEST for photo in photos)
    parts: dict[str, list[Photo]] = {"train": [], "held_out": [], "test": []}
    for photo in photos:
        percent = percentage(photo.path.name)
        if photo.part in TEST:
            parts["test"].append(photo)
        elif percent < validation:
            parts["held_out"].append(photo)
        elif percent < validation + testing and not listed:
            parts["test"].append(photo)
        else:
            parts["train"].append(photo)
    learnt = {photo.label for photo in parts["train"]}
    for name in ("held_out", "test"):
        lone = {photo for photo in parts[name] if photo.label not in learnt and photo.part not in TEST}
        parts["train"] += [photo for photo in parts[name] if photo in lone]
        parts[name] = [photo for photo in parts[name] if photo not in lone]
    return Split(*(tuple(parts[name]) for name in ("train", "held_out", "test")))


def percentage(name: str) -> float:
    """0..100, always the same for the same name."""
    hashed = hashlib.sha1(re.sub(r"_nohash_.*$", "", name).encode()).hexdigest()
    return int(hashed, 16) % (MOST_NAMES + 1) * (100.0 / MOST_NAMES)


def without_leaks(split: Split, keys: Mapping[Path, bytes]) -> tuple[Split, list[Photo]]:
    """`keys`: content of each photo -> the split without photos that also stand in a part further from training (test,
    then held out), and which those were. What `keys` does not have is left out silently: it cannot be read.
    """
    taken: set[bytes] = set()
    kept: list[tuple[Photo, ...]] = []
    leaks: list[Photo] = []
    for part in (split.test, split.held_out, split.train):
        known = [photo for photo in part if photo.path in keys]
        leaks += [photo for photo in known if keys[photo.path] in taken]
        kept.append(tuple(photo for photo in known if keys[photo.path] not in taken))
        taken |= {keys[photo.path] for photo in known}
    test, held_out, train = kept
    return Split(train, held_out, test), leaks


def without_unlearnt(split: Split) -> tuple[Split, list[Photo]]:
    """The split without photos of classes that training has none of, and which those were."""
    labels = set(split.labels)
    strange = [photo for photo in (*split.held_out, *split.test) if photo.label not in labels]
    held_out, test = (tuple(photo for photo in part if photo.label in labels) for part in (split.held_out, split.test))
    return Split(split.train, held_out, test), strange


def warnings(photos: Sequence[Photo]) -> list[str]:
    """What should be said of so few photos, a sentence a class."""
    counts = Counter(photo.label for photo in photos)
    said = []
    for label, count in sorted(counts.items()):
        if count == 1:
            said.append(f"{label}: a single photo; it is learnt from, and nothing tells how well")
        elif count < FEW:
            said.append(f"{label}: only {count} photos; fewer than {FEW} hardly make a class")
    return said


def _percentile(name: str) -> float:
    return int.from_bytes(hashlib.sha1(name.encode()).digest()[:4], "big") / 2**32 * 100
