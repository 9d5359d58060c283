"""The hub's own engine: its state in a directory of its own, so that a restart loses nothing. All decisions: `journal.py`.

One process at a time holds the directory. One thread writes: what comes while the disk is busy shares the next write, so
that thousands of registrations a second need no more than the disk can sync. A disk that is full, or fails, costs nothing
that was acknowledged: what it did not take is written again, every second and with each further write, until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import ConfigurationError, StoreUnavailable
from ..journal import JOURNAL, Record, Recovered, State, aside, epoch_record, is_due, record, recover, useless
from ..store import NOBODY, WRITE_SECONDS, OnChange, Store

log = logging.getLogger("fairway.registry.embedded")

RETRY_SECONDS = 1.0
BLOCK_BYTES = 1 << 20
FLUSH = getattr(os, "fdatasync", os.fsync)  # some systems have only the latter
COMPACT_BYTES, COMPACT_FACTOR = 1 << 20, 4  # a journal larger than both, times the snapshot, is replaced by a new one

Waiting = tuple[Sequence[Record], asyncio.Future[None]]


class EmbeddedStore(Store):
    """`rest`: the directory; empty: nothing is kept, there is no disk. Opened by a hub, and by nobody beside it.

    The copy holds what the last life left and this one has not taken over; nobody else writes, so `on_change` is never
    called: `loaded` is all there is to hear. `close` removes nothing: rows of a hub that stops are for its next life.
    `Gone` removes a row of the last life as well: it was ours.
    """

    def __init__(
        self,
        rest: str,
        *,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
        compact_bytes: int = COMPACT_BYTES,
        compact_factor: int = COMPACT_FACTOR,
    ) -> None:
        super().__init__(on_change)
        self.directory = Path(rest).expanduser().absolute() if rest else None
        self._left: dict[str, Put | Mark] = {}  # by the last life, and not taken over yet
        self._epoch = 0
        self._files = Files(self.directory, compact_bytes, compact_factor) if self.directory else None
        self._state = State()  # the thread's
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None]

    async def start(self) -> None:
        """Returns when what the last life left is read. Raises ConfigurationError; StoreUnavailable if the disk is full."""
        loop = asyncio.get_running_loop()
        if self._files:
            began = time.monotonic()
            recovered = await asyncio.to_thread(self._files.open)
            self._state, self._epoch, self._left = recovered.state, recovered.epoch, recovered.changes
            rows, marks = self._rows_and_marks()
            self.replica.replace(rows, marks, loop.time(), hold=False)
            took = time.monotonic() - began
            if rows or marks:
                log.info("%s: %d instances, %d marks, read in %.2f s", self.directory, len(rows), len(marks), took)
            self._ended = loop.create_future()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="fairway-journal", daemon=True)
            self._thread.start()
        else:
            self.replica.confirmed(loop.time())
        self.connected = True
        await self._tell([])

    @property
    def loaded(self) -> list[Change]:
        """What the last life left and this one has not changed: rows with their principals, then marks."""
        rows, marks = self._rows_and_marks()
        return [*rows, *marks]

    def _rows_and_marks(self) -> tuple[list[Put], list[Mark]]:
        left = self._left.values()
        return [each for each in left if isinstance(each, Put)], [each for each in left if isinstance(each, Mark)]

    async def write(self, changes: Sequence[Change]) -> None:
        records = [record(change) for change in changes]
        self._remember(changes)
        copied: list[Change] = []
        for change, each in zip(changes, records, strict=True):
            left = self._left.pop(each.key, None)
            if isinstance(change, Mark):
                copied += self.replica.receive(change)
            elif left:
                copied += self.replica.receive(Gone(change.instance))
        if copied:
            await self._tell([])
        await self._keep(records)

    async def epoch(self, now_wall: float) -> int:
        """A number for this life: larger than any before, at least `now_wall` (seconds), and on disk when it is told."""
        self._epoch = max(self._epoch + 1, int(now_wall))
        await self._keep([epoch_record(self._epoch)])
        return self._epoch

    async def close(self) -> None:
        """What was handed over is written; the directory is free for another registry."""
        if self._thread:
            thread, self._thread = self._thread, None
            self._queue.put(None)
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._ended
                thread.join()
            except TimeoutError:
                log.warning("%s: the disk does not answer; leaving it", self.directory)
        self.connected = False

    async def _keep(self, records: Sequence[Record]) -> None:
        if not self._files:
            return
        if not self._thread:
            raise StoreUnavailable(f"{self.directory} is not open")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((records, done))
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await done
        except TimeoutError as error:
            self.connected = False  # until it was heard of
            raise StoreUnavailable(f"{self.directory} did not take it in {WRITE_SECONDS:g} s; trying on") from error

    def _settled(self, waiting: Iterable[Waiting], failure: str) -> None:
        self.connected = not failure
        for _, done in waiting:
            if not done.done():
                done.set_exception(StoreUnavailable(failure)) if failure else done.set_result(None)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._files
        failure, more = "", True
        try:
            while more:
                waiting, more = self._take(RETRY_SECONDS if failure else None)
                for records, _ in waiting:
                    for each in records:
                        self._state.absorb(each)
                before, failure = failure, self._write()
                if failure and failure != before:
                    log.warning("%s; registrations go on, and are written when it can", failure)
                elif before and not failure:
                    log.info("%s can be written again", self.directory)
                loop.call_soon_threadsafe(self._settled, waiting, failure)
                if not failure:
                    self._compact()
            if failure:
                log.warning("%s: closed with changes that the disk did not take", self.directory)
            self._files.close()
            loop.call_soon_threadsafe(self._ended.set_result, None)
        except RuntimeError:
            if not loop.is_closed():  # else nobody waits any more: the process ends
                raise

    def _take(self, seconds: float | None) -> tuple[list[Waiting], bool]:
        """All that waits, at least one unless `seconds` are over; and whether there will be more."""
        waiting: list[Waiting] = []
        try:
            each = self._queue.get(timeout=seconds)
            while each is not None:
                waiting.append(each)
                each = self._queue.get_nowait()
        except queue.Empty:
            return waiting, True
        return waiting, False

    def _write(self) -> str:
        """-> why not; empty if the disk has all there is."""
        assert self._files
        try:
            if self._state.owes:
                self._files.append(self._state.owed())
                self._state.settle()
        except OSError as error:
            return f"{self.directory} cannot be written: {error.strerror}"
        return ""

    def _compact(self) -> None:
        assert self._files
        try:
            if self._files.due:
                self._files.begin(self._state)
        except OSError as error:
            log.warning("%s: no new snapshot (%s); the journal grows on", self.directory, error.strerror)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} | {self.directory or 'memory only'}>"


class Files:
    """A locked directory, its journal, and the snapshot that began with. Methods block, and raise OSError."""

    def __init__(self, directory: Path, compact_bytes: int, compact_factor: int) -> None:
        self.directory = directory
        self._least, self._factor = compact_bytes, compact_factor
        self._lock = self._journal = -1
        self._generation = self._base = 0
        self._end = self._snapshot_bytes = self._retry_at = 0
        self._dirty = False  # beyond `_end` there may be what nobody was told of
        self._named = True  # the directory is synced: the names of its files outlive a crash

    def open(self) -> Recovered:
        """Takes the lock, reads, and begins a new generation with what was sound."""
        self._take_lock()
        try:
            recovered = recover(os.listdir(self.directory), self._read)
            self._generation, self._base = recovered.generation, recovered.base
            self.begin(recovered.state)
            for remark in recovered.remarks:
                log.warning("%s", remark)
            for name, what in recovered.damaged.items():
                kept = aside(name, os.listdir(self.directory))
                os.rename(self.directory / name, self.directory / kept)
                log.warning("%s is damaged: %s; set aside as %s", self.directory / name, what, kept)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise StoreUnavailable(f"{self.directory} cannot be written: {error.strerror}") from error
            raise
        return recovered

    @property
    def due(self) -> bool:
        return self._end > self._retry_at and is_due(self._end, self._snapshot_bytes, self._least, self._factor)

    def append(self, data: bytes) -> None:
        """Returns when the disk has it. If it has not, the journal ends where it ended before."""
        if self._dirty:
            os.ftruncate(self._journal, self._end)
        if not self._named:
            self._sync_names()
        self._dirty = True
        write(self._journal, [data])
        self._end += len(data)
        self._dirty = False

    def begin(self, state: State) -> None:
        """A snapshot and an empty journal, whole before they count: a crash leaves the old state or the new."""
        n = self._generation + 1
        snapshot, journal = self.directory / f"snapshot-{n}", self.directory / f"journal-{n}"
        temporary = snapshot.with_suffix(".tmp")
        opened: list[int] = []
        self._retry_at = self._end + self._least
        try:
            opened.append(create(temporary))
            size = write(opened[0], state.snapshot())
            opened.append(create(journal))
            write(opened[1], [JOURNAL])
            os.rename(temporary, snapshot)
        except OSError:
            for fd in opened:
                os.close(fd)
            remove(temporary, journal)
            raise
        for fd in (opened[0], self._journal):
            if fd >= 0:
                os.close(fd)
        self._journal, self._end, self._snapshot_bytes, self._retry_at = opened[1], len(JOURNAL), size, 0
        self._dirty = self._named = False
        self._generation, keep, self._base = n, self._base, n  # the last one is kept, should this one be damaged
        self._sync_names()
        remove(*(self.directory / name for name in useless(os.listdir(self.directory), keep)))

    def close(self) -> None:
        for fd in (self._journal, self._lock):
            if fd >= 0:
                os.close(fd)
        self._journal = self._lock = -1

    def _take_lock(self) -> None:
        try:
            if not self.directory.is_dir():
                self.directory.mkdir(mode=0o700, parents=True)
                sync_names(self.directory.parent)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # only for whoever finds it taken
                os.ftruncate(self._lock, 0)
                os.write(self._lock, b"%d\n" % os.getpid())
        except BlockingIOError as error:
            pid = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            raise ConfigurationError(
                f"{self.directory} is in use by another registry (pid {pid}): stop that one, "
                "or give this one a directory of its own, --store embedded:DIR"
            ) from error
        except OSError as error:
            self.close()
            raise self._not_ours(error) from error

    def _not_ours(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"the registry cannot keep its state in {self.directory} ({error.strerror}): make it a directory that this "
            "user may write, or name another one, --store embedded:DIR"
        )

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except PermissionError as error:  # it is sound, and somebody else's
            raise self._not_ours(error) from error

    def _sync_names(self) -> None:
        sync_names(self.directory)
        self._named = True


def remove(*paths: Path) -> None:
    """What stays does no harm."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)


def write(fd: int, parts: Iterable[bytes]) -> int:
    """All of it, to the disk. -> how many bytes."""
    size, block = 0, bytearray()
    for part in (*parts, b""):
        block += part
        if block and (not part or len(block) >= BLOCK_BYTES):
            size += len(block)
            with memoryview(block) as rest:
                at = 0
                while at < len(block):
                    at += os.write(fd, rest[at:])
            block.clear()
    FLUSH(fd)
    return size


def sync_names(directory: Path) -> None:
    """The names in it, too, are to be there after a crash."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
