"""Where uploads are held until they are answered: small ones in buffers, large ones in pipes of the kernel; so much in all.

What is held can be sent once more, to another worker. What finds no room goes through without being held.
"""

from __future__ import annotations

from typing import Final

from .pipes import AVAILABLE, MOVE_BYTES, Pipe, Pipes, tee

SMALL_BYTES: Final = 48 * 1024  # up to here a copy is cheaper than a pipe
RESTING: Final = 64  # buffers and pipes kept for the next upload


class Holding:
    """`held` of at most `most` bytes. `window`: of one upload."""

    def __init__(self, window: int, most: int, splice: bool) -> None:
        self.window, self.most = window, most
        self.held = self.uploads = 0  # bytes, and how many uploads they are of
        self.splice = splice and AVAILABLE
        self._buffers: list[bytearray] = []
        self._pipes = Pipes(window) if self.splice and tee is not None and window > SMALL_BYTES else None
        self._passing = Pipes(MOVE_BYTES) if self.splice else None

    def reserve(self, count: int, more: bool = False) -> bool:
        """Whether there is room for `count` bytes of an upload; `more`: of one that has some already."""
        if self.held + count > self.most:
            return False
        self.held += count
        self.uploads += not more
        return True

    def release(self, count: int) -> None:
        """All that one upload had."""
        self.held -= count
        self.uploads -= 1

    def buffer(self) -> bytearray:
        """SMALL_BYTES of memory; `give_back` it."""
        return self._buffers.pop() if self._buffers else bytearray(SMALL_BYTES)

    def give_back(self, buffer: bytearray) -> None:
        if len(self._buffers) < RESTING:
            self._buffers.append(buffer)

    def pipe(self) -> Pipe | None:
        """One for an upload to be held; None where that cannot be done: it is copied, or not held."""
        return _taken(self._pipes)

    def passing_pipe(self) -> Pipe | None:
        """One for an upload to pass through; None where that cannot be done: it is copied."""
        return _taken(self._passing)

    def give_pipe(self, pipe: Pipe) -> None:
        """Back, with what is in it."""
        assert self._pipes is not None
        pipe.forget()
        self._pipes.give(pipe)

    def give_passing(self, pipe: Pipe) -> None:
        assert self._passing is not None
        self._passing.give(pipe)

    def close(self) -> None:
        for pipes in (self._pipes, self._passing):
            if pipes is not None:
                pipes.close()

    def __repr__(self) -> str:
        return f"<Holding {self.held} of {self.most} bytes>"


def _taken(pipes: Pipes | None) -> Pipe | None:
    try:
        return pipes.take() if pipes is not None else None
    except OSError:  # no files left
        return None
