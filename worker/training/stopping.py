"""Ctrl-C and SIGTERM while something long is computed: it ends at the next step, with what it has kept.

A second signal does what signals do.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self


class Interrupted(Exception):
    """A signal came. Its text says what was kept, and how to go on."""


class Stopping:
    """A context manager; inside it, calling it tells whether a signal came."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._restore()
        print(f"\n{signal.Signals(number).name}: stopping; once more to stop at once", file=sys.stderr)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
