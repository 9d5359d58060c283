"""Folders -> photos that can be learnt from, in their parts, with their features; and what had to be set aside, and why.

One bad photo is no reason to stop: it is named, counted, and left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset.folder import LISTING, Photo
from .backbone import Backbone
from .bottlenecks import Bottlenecks
from .config import RetrainSettings, limit
from .features import MIRRORED, PLAIN, compute, hashed, rendering
from .split import (
    TEST,
    Split,
    divide,
    read_folders,
    require_classes,
    warnings,
    without_leaks,
    without_unlearnt,
)

log = logging.getLogger("fairway.training")

NAMED = 100  # photos that were set aside, named in the model card; of more only the number is kept


@dataclass(frozen=True)
class Gathered:
    """`keys`: content of each photo, by its path. `aside`: photos that are not used, with the reason."""

    split: Split
    keys: Mapping[Path, bytes]
    aside: Mapping[Path, str]
    computed: int

    @property
    def labels(self) -> tuple[str, ...]:
        return self.split.labels

    def keys_of(self, photos: Sequence[Photo]) -> list[bytes]:
        return [self.keys[photo.path] for photo in photos]

    def as_card(self, folders: Sequence[Path]) -> dict[str, Any]:
        """What the model card says of the data."""
        parts = {"train": self.split.train, "validation": self.split.held_out, "test": self.split.test}
        counts = {name: Counter(photo.label for photo in part) for name, part in parts.items()}
        aside = [f"{path.parent.name}/{path.name}: {reason}" for path, reason in sorted(self.aside.items())]
        return {
            "folders": [folder.absolute().name for folder in folders],
            "photos": {label: {name: count[label] for name, count in counts.items()} for label in self.labels},
            "set_aside": len(aside),
            "set_aside_because": aside[:NAMED],
        }


def read(settings: RetrainSettings) -> Split:
    """The photos that there are, not yet opened. Raises ConfigurationError if there are not two classes of them."""
    folders = [Path(folder) for folder in settings.image_dir]
    photos = read_folders(folders)
    require_classes(sorted({photo.label for photo in photos}), folders)
    for text in warnings(photos):
        log.warning("%s", text)
    return divide(photos, settings.testing_percentage, settings.validation_percentage)


def split_as_card(split: Split, settings: RetrainSettings) -> dict[str, Any]:
    """How the parts came about."""
    listed = any(photo.part in TEST for photo in split.test)
    rule: dict[str, Any] = {
        "test": f"{'/'.join(TEST)} rows of {LISTING}" if listed else "hash of the name",
        "validation": "hash of the name",
        "validation_percentage": settings.validation_percentage,
    }
    return rule if listed else rule | {"testing_percentage": settings.testing_percentage}


def gather(
    split: Split, settings: RetrainSettings, backbone: Backbone, kept: Bottlenecks, stop: Callable[[], bool]
) -> Gathered:
    """Opens each photo once, if its features are not in `kept` yet. Raises Interrupted, and ConfigurationError if what is
    left cannot be learnt from.
    """
    photos = (*split.train, *split.held_out, *split.test)
    keys, unread = hashed(photos, stop)
    aside: dict[Path, str] = {}
    split, leaks = without_leaks(split, keys)
    if leaks:
        log.warning(
            "%d photo(s) are in the test or validation set as well; training does without them: %s",
            len(leaks),
            _names([photo.path for photo in leaks]),
        )
        aside |= {photo.path: "also stands in the test or validation set" for photo in leaks}
    split = _limited(split, settings)

    render = rendering(backbone.spec)
    views = (PLAIN, MIRRORED) if settings.flip_left_right and not distorted(settings) else (PLAIN,)
    computed, broken = compute(split.train, keys, views, kept, backbone, render, stop, "photos to learn from")
    others, broken_others = compute(
        (*split.held_out, *split.test), keys, (PLAIN,), kept, backbone, render, stop, "validation and test"
    )
    reasons = {keys[path]: reason for path, reason in {**broken, **broken_others}.items()}
    unread |= {photo.path: reasons[key] for photo in photos if (key := keys.get(photo.path)) in reasons}
    for path, reason in sorted(unread.items()):
        log.warning("%s is set aside: %s", path, reason)
    aside |= unread
    train, held_out, test = (
        tuple(photo for photo in part if photo.path not in unread) for part in (split.train, split.held_out, split.test)
    )
    split = Split(train, held_out, test)
    split, strange = without_unlearnt(split)
    if strange:
        log.warning(
            "%d photo(s) are of classes that training has no photo of; they are set aside: %s",
            len(strange),
            _names([photo.path for photo in strange]),
        )
        aside |= {photo.path: "its class has no photo to learn from" for photo in strange}
    require_classes(split.labels, [Path(folder) for folder in settings.image_dir])
    if aside:
        log.warning("%d of %d photos are set aside", len(aside), len(photos))
    return Gathered(split, keys, aside, computed + others)


def distorted(settings: RetrainSettings) -> bool:
    """The mirror alone needs no network in each epoch: the features of mirrored photos are cached as well."""
    return bool(settings.random_crop or settings.random_scale or settings.random_brightness)


def _limited(split: Split, settings: RetrainSettings) -> Split:
    """--test-batch-size and --validation-batch-size: so many, drawn once."""

    def some(photos: tuple[Photo, ...], most: int | None) -> tuple[Photo, ...]:
        if most is None or most >= len(photos):
            return photos
        chosen = np.random.default_rng(settings.seed).permutation(len(photos))[:most]
        return tuple(photos[i] for i in sorted(chosen))

    return Split(
        split.train,
        some(split.held_out, limit(settings.validation_batch_size, "--validation-batch-size")),
        some(split.test, limit(settings.test_batch_size, "--test-batch-size")),
    )


def _names(paths: Sequence[Path]) -> str:
    shown = ", ".join(f"{path.parent.name}/{path.name}" for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown}, ..."
