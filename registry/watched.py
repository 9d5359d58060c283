"""A file that may be replaced while we run: tokens, certificates. A bad new version changes nothing but the log."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from .errors import ConfigurationError
from .rights import Tokens

log = logging.getLogger("fairway.registry.watched")

POLL_SECONDS = 1.0  # polled, as a mounted secret is a chain of links no notification follows

T = TypeVar("T")


class Watched(Generic[T]):
    """`value` is what `read()` made of the files last. `start()` looks every second; `look()` at once."""

    def __init__(
        self, paths: Sequence[Path], read: Callable[[], T], on_change: Callable[[T], None] = lambda _: None
    ) -> None:
        """`read` raises ConfigurationError for files that will not do: here at the first reading, in the log later."""
        self.paths = tuple(paths)
        self._read = read
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._seen = self._signatures()
        self.value = read()

    def start(self) -> None:
        self._task = asyncio.create_task(self._poll())

    def look(self, force: bool = False) -> bool:
        """Reads again if a file changed, or with `force` (SIGHUP). -> whether there is a new value."""
        seen = self._signatures()  # before reading: what changes meanwhile is seen next time
        if seen == self._seen and not force:
            return False
        self._seen = seen
        names = ", ".join(map(str, self.paths))
        try:
            value = self._read()
        except ConfigurationError as error:
            log.warning("%s changed, and will not do; going on with what was there before: %s", names, error)
            return False
        self.value = value
        log.info("read again: %s", names)
        self._on_change(value)
        return True

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                self.look()
            except Exception:
                log.exception("a listener of %r failed; it is watched on", self)

    def _signatures(self) -> tuple[tuple[int, ...] | None, ...]:
        """What looks the same has not changed; None: not there. ctime counts too: it may have become readable."""
        found: list[tuple[int, ...] | None] = []
        for path in self.paths:
            try:
                s = os.stat(path)
                found.append((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
            except OSError:
                found.append(None)
        return tuple(found)

    def __repr__(self) -> str:
        return f"<Watched [{', '.join(map(str, self.paths))}]>"


def watched_tokens(path: Path, on_change: Callable[[Tokens], None] = lambda _: None) -> Watched[Tokens]:
    """The token file. Raises ConfigurationError that names it and the line."""

    def read() -> Tokens:
        try:
            text = path.read_text("utf-8")
            tokens = Tokens.parse(text)
        except OSError as error:
            raise ConfigurationError(
                f"token file {path}: {error.strerror}; it is readable by whom the registry runs as?"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"token file {path}: byte {error.start} is not UTF-8 text") from error
        except ConfigurationError as error:
            raise ConfigurationError(f"token file {path}, {error}") from error
        warn_if_world_readable(path)
        return tokens

    return Watched((path,), read, on_change)


def warn_if_world_readable(path: Path) -> None:
    """A secret that every user of this machine can read is none."""
    if os.stat(path).st_mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this machine: chmod 600 %s", path, path)
