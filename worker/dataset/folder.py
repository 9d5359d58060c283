"""A folder with one sub-folder a class. A LISTING.tsv in it may say which part of the set each photo belongs to."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ConfigurationError

log = logging.getLogger("fairway.dataset")

LISTING = "LISTING.tsv"
PUBLISHED = "saved_model.pb"  # in a sub-folder: it is a version that training published, and no class
# What a worker takes, by the names that such files bear.
SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ico", ".ppm", ".avif"
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """`label`: the name of its sub-folder. `part`: what the listing says of it (`train`, `val`, ...), else empty."""

    path: Path
    label: str
    part: str = ""


def read_folder(folder: Path) -> tuple[Photo, ...]:
    """All photos in it, in the order of their names. Hidden files are passed over, and so are models: those that were
    trained into the same folder have pictures of their own.

    Raises ConfigurationError if there is no such folder, or one that cannot be read, or if its listing names none of the
    photos: they would all be learnt from.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder")
    parts = _listed(folder)
    try:
        photos = _found(folder, parts)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error
    there = {_key(f"{photo.label}/{photo.path.name}") for photo in photos}
    unanswered = [path for path in parts if path not in there]
    if photos and parts and len(unanswered) == len(parts):
        raise ConfigurationError(
            f"{folder / LISTING}: none of its {len(parts)} rows names a photo here: {unanswered[0]!r} was expected to be "
            "CLASS/FILE, as seen from this folder"
        )
    if photos and unanswered:
        log.warning(
            "%s: %d of %d rows name no photo here, such as %s",
            folder / LISTING, len(unanswered), len(parts), unanswered[0],
        )  # fmt: skip
    return photos


def _found(folder: Path, parts: dict[str, str]) -> tuple[Photo, ...]:
    return tuple(
        Photo(path, group.name, parts.get(_key(f"{group.name}/{path.name}"), ""))
        for group in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not (group / PUBLISHED).is_file()
        for path in sorted(group.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _key(path: str) -> str:
    """`./daisy/a.jpg` and `daisy\\a.jpg` -> `daisy/a.jpg`."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _listed(folder: Path) -> dict[str, str]:
    """`class/file` -> the part of the set; empty without a listing."""
    listing = folder / LISTING
    if not listing.is_file():
        return {}
    try:
        with listing.open(encoding="utf-8", newline="") as rows:
            return {_key(row["path"] or ""): row["split"] or "" for row in csv.DictReader(rows, delimiter="\t")}
    except KeyError as error:
        raise ConfigurationError(
            f"{listing}: its first line names no column {error}; path and split are needed"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError(f"{listing}: cannot be read: {error}") from error
