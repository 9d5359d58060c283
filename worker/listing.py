"""What lies in a model's folder, and whether somebody is still copying it.

A version counts when it holds a model and its listing (names, sizes, times of change, all the way down) has stood still
for a while. Publishing by renaming a finished folder is best; who copies into place instead is waited for.

Looking is cheap: what is known is asked for its size and time, path by path; a folder is read again only if one of them
has changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from .config import WorkerSettings
from .errors import ConfigurationError
from .source import SAVED_MODEL, bundled, find_source

Entry = tuple[str, int, int]  # path, size in bytes, time of change in nanoseconds; of a folder only the path counts


@dataclass(frozen=True)
class Listing:
    """`folders`: when each of them last changed, which need not mean anything: what is hidden may have come or gone.
    `written`: when any of it was last written, by the file system's own account, which copies do not take along; seconds.
    """

    entries: tuple[Entry, ...] = ()
    folders: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    written: float = field(default=0.0, compare=False)

    @classmethod
    def read(cls, path: str, others: Collection[str] = ()) -> Listing:
        """`path` with all that is in it, and `others`. What begins with a dot is nobody's model. Raises OSError."""
        entries, folders, written = list[Entry](), list[tuple[str, int]](), 0.0
        for name, found in [*_walk(path, os.stat(path), set()), *((other, os.stat(other)) for other in others)]:
            folder = stat.S_ISDIR(found.st_mode)
            entries.append((name, -1, 0) if folder else (name, found.st_size, found.st_mtime_ns))
            if folder:
                folders.append((name, found.st_mtime_ns))
            written = max(written, found.st_ctime)
        return cls(tuple(sorted(entries)), tuple(folders), written)

    def current(self) -> bool:
        """Whether a look at the same paths shows the same. If not, it may still be that nothing has changed that counts."""
        try:
            for path, size, changed in self.entries:
                if size >= 0:
                    found = os.stat(path)
                    if found.st_size != size or found.st_mtime_ns != changed:
                        return False
            return all(os.stat(path).st_mtime_ns == changed for path, changed in self.folders)
        except OSError:
            return False


def _walk(path: str, found: os.stat_result, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    yield path, found
    if not stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) in seen:  # a link may lead back up
        return
    seen.add((found.st_dev, found.st_ino))
    with os.scandir(path) as children:
        for child in children:
            if not child.name.startswith(".") and child.name != "__pycache__":
                yield from _walk(child.path, os.stat(child.path), seen)


@dataclass
class Found:
    """One version. `path`: as --model takes it. `since`: when this listing was first seen, by the caller's clock."""

    number: int
    path: str
    listing: Listing
    since: float
    model: bool = True  # whether there is one in it at all
    settled: bool = False
    before: bool = False  # it was a version until these changes were seen

    @property
    def ready(self) -> bool:
        """Fit to be loaded."""
        return self.settled and self.model


class Folder:
    """The versions under one path: its numbered children, or the path itself, as version 1 or what its name says."""

    def __init__(self, path: str, settings: WorkerSettings, settle_seconds: float, start: bool = False) -> None:
        """`start`: nothing was looked at before, so that only the file system remembers how long this has stood still."""
        self.path, self.trouble = path, ""
        self._place = str(bundled(path) or path)
        self._settings, self._settle, self._start = settings, settle_seconds, start
        self._found: dict[int, Found] = {}

    @property
    def versions(self) -> dict[int, Found]:
        """Those that can be loaded, and those that could until somebody began to change them."""
        return {
            number: found
            for number, found in self._found.items()
            if found.ready or (found.before and not found.settled)
        }

    def ready(self, number: int) -> bool:
        return number in self._found and self._found[number].ready

    @property
    def unsettled(self) -> bool:
        return any(not found.settled for found in self._found.values())

    def look(self, now: float, wall: float, watched: Collection[int] = ()) -> None:
        """`watched`: versions that are served, or were tried: a change in them is noticed. What cannot be read becomes
        `trouble`, and what was seen before stays. `now`: any clock, `wall`: the file system's; both in seconds.
        """
        start, self._start = self._start, False
        try:
            paths = self._paths()
        except (OSError, ConfigurationError) as error:
            self.trouble = f"{self.path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            return
        fresh: dict[int, Found] = {}
        for number, path in paths.items():
            found = self._found.get(number)
            if found is None:
                found = self._read(number, path, now)
                if start and found and wall - found.listing.written >= self._settle:
                    found.settled = True
            elif (number in watched or not found.settled or not found.model) and not found.listing.current():
                found = self._again(found, now)
            elif now - found.since >= self._settle:
                found.settled = True
            if found is not None:
                fresh[number] = found
        empty = sorted(number for number, found in fresh.items() if found.settled and not found.model)
        self.trouble = f"{self.path}: no model, or more than one, in {', '.join(map(str, empty))}" if empty else ""
        self._found = fresh  # all at once: others read it meanwhile

    def _paths(self) -> dict[int, str]:
        """Numbers first: what else lies beside them is no version."""
        if self.path.startswith(("keras:", "python:")):
            return {1: self.path}
        path = self._place
        if os.path.isdir(path) and not os.path.isfile(os.path.join(path, SAVED_MODEL)):
            with os.scandir(path) as children:
                numbers = [c for c in children if c.name.isascii() and c.name.isdigit() and c.is_dir()]
            if numbers:
                return {int(child.name): child.path for child in numbers}
        source = find_source(path, self._settings)
        return {source.version: path}

    def _again(self, found: Found, now: float) -> Found:
        """What is different from last time, if anything is."""
        before = found.ready or found.before
        fresh = self._read(found.number, found.path, now)
        if fresh is None:
            return replace(found, since=now, settled=False, before=before)
        if fresh.listing == found.listing and fresh.model == found.model:
            fresh.since, fresh.settled = found.since, found.settled or now - found.since >= self._settle
        fresh.before = before
        return fresh

    def _read(self, number: int, path: str, now: float) -> Found | None:
        """None: something vanished meanwhile."""
        if path.startswith(("keras:", "python:")):
            return Found(number, path, Listing(), now, settled=True)
        try:
            model, files = True, [str(file) for file in find_source(path, self._settings).files()]
        except ConfigurationError:
            model, files = False, []
        beside = [] if os.path.isdir(path) else [file for file in files if file != path]
        try:
            return Found(number, path, Listing.read(path, beside), now, model)
        except OSError:
            return None

    def __repr__(self) -> str:
        return f"<Folder {self.path} {sorted(self._found)}>"
