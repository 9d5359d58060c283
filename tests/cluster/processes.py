"""Real processes: started, listened to line by line, and ended, each by its id."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

FAIRWAY = (sys.executable, "-m", "fairway")


class Running:
    """A process whose output (both streams) is read as it comes. A context manager: at its end the process is over."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """The next line in which `pattern` is found. Fails with all that was said if the process ends or is late."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                text = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in {seconds} s; it said:\n{self.said}") from None
            if text is None:
                raise AssertionError(f"it ended without a line with {pattern!r}; it said:\n{self.said}")
            if found := re.search(pattern, text):
                return found

    def ended(self, seconds: float = 60.0) -> int:
        """Its exit status, once it has ended and all its output was read."""
        status = self._process.wait(seconds)
        self._reader.join(seconds)
        return status

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self.lines.append(text.rstrip("\n"))
            self._fresh.put(self.lines[-1])
        self._fresh.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def children(pid: int) -> list[int]:
    """Ids of the processes that `pid` started and that still run."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]
    return []


class Watched:
    """Processes that are not ours to wait for, watched through the kernel: no polling, no reused ids."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._handles = {pid: os.pidfd_open(pid) for pid in pids}

    def gone(self, seconds: float = 30.0) -> bool:
        """Whether all of them ended within `seconds`."""
        deadline = time.monotonic() + seconds
        for handle in self._handles.values():
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
        return True

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
