"""A new version of a model appears in its folder whole, or not at all.

It is made in a hidden folder, which no worker looks at, reaches the disk, and is renamed. Its number is decided at that
moment, so that of two runs the one that ends last is the newest. While it is made its folder is locked; a hidden folder
that nobody has locked was left by a run that died, and is removed.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..card import CARD_FILE
from ..errors import ConfigurationError
from ..source import SAVED_MODEL, is_version

PART = re.compile(r"\.\d+\.part")
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what renaming a folder onto something that is there gives


def publish(folder: Path, write: Callable[[Path], None], card: dict[str, Any] | None) -> tuple[int, Path]:
    """Calls `write(part)`, puts `card` into it as model_card.json, its "version" filled in -> (N, folder/N).

    `card`: None for a model that has none.

    `write` fills an empty folder that is there already. If it fails nothing remains, and its error is passed on.
    Raises ConfigurationError if nothing can be published in `folder`.
    """
    check_folder(folder)
    _sweep(folder)
    with _part(folder) as part:
        try:
            write(part)
            while True:
                version = next_version(folder)
                if card is not None:
                    text = json.dumps(card | {"version": version}, indent=1, ensure_ascii=False)
                    (part / CARD_FILE).write_text(text + "\n", "utf-8")
                _to_disk(part)
                place = folder / str(version)
                try:
                    part.rename(place)
                except OSError as error:
                    if error.errno not in TAKEN:
                        raise
                    continue  # another run was faster: the next number
                _sync(folder)
                return version, place
        finally:
            shutil.rmtree(part, ignore_errors=True)  # nothing is there any more if all went well


def next_version(folder: Path) -> int:
    """One more than the highest number there is, whatever lies behind it."""
    return 1 + max((int(path.name) for path in folder.iterdir() if is_version(path)), default=0)


def check_folder(folder: Path) -> None:
    """Makes `folder` if it is not there. Raises ConfigurationError if versions cannot be published in it.

    To be called before hours of work as well.
    """
    if (folder / SAVED_MODEL).is_file():
        raise ConfigurationError(f"{folder} is itself a model, so versions in it would never be served: name another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the model's folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"the model's folder {folder} may not be written to")


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """An empty hidden folder that is ours until the end of the block."""
    for number in itertools.count(next_version(folder)):
        part = folder / f".{number}.part"
        try:
            part.mkdir()
        except FileExistsError:
            continue
        lock = _locked(part, fresh=True)
        if lock is None:
            continue  # another run took it for a dead one's, in between
        try:
            yield part
            return
        finally:
            os.close(lock)


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        if PART.fullmatch(path.name) and path.is_dir() and (lock := _locked(path, fresh=False)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _locked(part: Path, fresh: bool) -> int | None:
    """A descriptor that holds the lock on `part`; None if it is another's, or is gone.

    Where folders cannot be locked, only who made it (`fresh`) has it.
    """
    try:
        descriptor = os.open(part, os.O_RDONLY)
    except OSError:
        return None
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.fstat(descriptor).st_ino == part.stat().st_ino  # it may have been swept, or renamed, meanwhile
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except (ImportError, OSError):
        ours = fresh
    if ours:
        return descriptor
    os.close(descriptor)
    return None


def _to_disk(folder: Path) -> None:
    """All of it, the innermost first, so that the name never appears before what it stands for."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(path) / name)
        _sync(Path(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
