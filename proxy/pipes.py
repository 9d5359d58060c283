"""Bodies that the kernel moves: socket -> pipe -> socket by splice(2), and tee(2) to keep what may have to be sent again.

No byte is copied, neither into Python nor within the kernel: a pipe holds references to the pages that the network card or
the other process filled. `tee` puts a second reference to each of them into another pipe: so an upload can be held for a
replay, on another worker, at the price of one system call.

A pipe holds a number of pages, not of bytes: many small packets fill it sooner. Then it simply holds less.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from typing import Final

AVAILABLE = hasattr(os, "splice")
MOVE_BYTES = 65536  # moved at once when nothing is held: what the default pipe takes; larger ones measured no better

if AVAILABLE:
    splice: Final = os.splice
    NOWHERE: Final = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    MOVE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
    MORE: Final = MOVE | os.SPLICE_F_MORE  # only while more is sure to come at once, else TCP waits 200 ms for it


def _tee() -> Callable[[int, int, int, int], int] | None:
    """Python has no tee; the C library of every Linux does."""
    try:
        tee = ctypes.CDLL(None, use_errno=True).tee
    except (OSError, AttributeError):
        return None
    tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
    tee.restype = ctypes.c_ssize_t
    return tee


tee = _tee()


class Pipe:
    """`held`: how many bytes are in it. `full` once it took less than it was offered: it has no page left."""

    __slots__ = ("capacity", "full", "held", "reader", "writer")

    def __init__(self, capacity: int) -> None:
        """As large as the kernel allows, up to `capacity` bytes. Raises OSError when there are no files left."""
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held, self.full = 0, False
        try:
            self.capacity = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, capacity)
        except OSError:  # over /proc/sys/fs/pipe-max-size, or this user's share of it
            self.capacity = fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ)

    def fill(self, fd: int, most: int) -> int:
        """From a socket. 0: its end. Raises BlockingIOError when it has nothing, or the pipe has no room."""
        count = splice(fd, self.writer, most, None, None, MOVE)
        self.held += count
        return count

    def drain(self, fd: int, more: bool) -> int:
        """Into a socket; how much it took. Raises BlockingIOError, ConnectionError."""
        count = splice(self.reader, fd, self.held, None, None, MORE if more else MOVE)
        self.held -= count
        return count

    def copy_to(self, other: Pipe) -> bool:
        """All of it, without taking it out. `other` is empty, and as large. Whether that could be done."""
        assert tee is not None
        other.held = max(0, tee(self.reader, other.writer, self.held, os.SPLICE_F_NONBLOCK)) if self.held else 0
        return other.held == self.held

    def forget(self) -> None:
        """Lets go of what is in it: /dev/null takes references as they are."""
        try:
            while self.held:
                self.held -= splice(self.reader, NOWHERE, self.held, None, None, MOVE) or self.held
        except OSError:
            pass  # `give` will close it

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Pipes:
    """Pipes at rest: two files and a setting of their size each, which is not to be paid for each upload."""

    def __init__(self, capacity: int, most: int = 64) -> None:
        self._capacity, self._most = capacity, most
        self._resting: list[Pipe] = []

    def take(self) -> Pipe:
        return self._resting.pop() if self._resting else Pipe(self._capacity)

    def give(self, pipe: Pipe) -> None:
        """Back; one that still holds bytes is not used again."""
        if pipe.held or len(self._resting) >= self._most:
            pipe.close()
        else:
            pipe.full = False
            self._resting.append(pipe)

    def close(self) -> None:
        while self._resting:
            self._resting.pop().close()

    def __repr__(self) -> str:
        return f"<Pipes {len(self._resting)} at rest, {self._capacity} bytes each>"
