"""A folder with one sub-folder a class. A LISTING.tsv in it may say which part of the set each photo belongs to."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError

LISTING = "LISTING.tsv"
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"}


@dataclass(frozen=True)
class Photo:
    """`label`: the name of its sub-folder. `part`: what the listing says of it (`train`, `val`, ...), else empty."""

    path: Path
    label: str
    part: str = ""


def read_folder(folder: Path) -> tuple[Photo, ...]:
    """All photos in it, in the order of their names; hidden files are passed over.

    Raises ConfigurationError if there is no such folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder")
    parts = _listed(folder)
    try:
        return _found(folder, parts)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error


def _found(folder: Path, parts: dict[str, str]) -> tuple[Photo, ...]:
    return tuple(
        Photo(path, group.name, parts.get(f"{group.name}/{path.name}", ""))
        for group in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(group.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _listed(folder: Path) -> dict[str, str]:
    """`class/file` -> the part of the set; empty without a listing."""
    listing = folder / LISTING
    if not listing.is_file():
        return {}
    try:
        with listing.open(encoding="utf-8", newline="") as rows:
            return {row["path"]: row["split"] for row in csv.DictReader(rows, delimiter="\t")}
    except KeyError as error:
        raise ConfigurationError(
            f"{listing}: its first line names no column {error}; path and split are needed"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError(f"{listing}: cannot be read: {error}") from error
