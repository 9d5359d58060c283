"""Looks after the event loop from outside: who hangs in a call cannot look after himself."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crew import Member

log = logging.getLogger("fairway.worker")

EXIT_HUNG = 70  # sysexits.h EX_SOFTWARE: started anew, it will do


class Guard(threading.Thread):
    """Ends the process if `host`, which is the loop's thread, is at one call for longer than `seconds`: whoever started it
    starts it anew. `end`: given the exit status, in this thread.
    """

    def __init__(self, host: Member, seconds: float, end: Callable[[int], None] | None = None) -> None:
        super().__init__(name="guard", daemon=True)
        self._host, self._seconds, self._end = host, seconds, end or _end
        self._dismissed = threading.Event()

    def run(self) -> None:
        while not self._dismissed.wait(min(1.0, self._seconds / 4)):
            since, doing = self._host.since, self._host.doing
            if since and doing and monotonic() - since > self._seconds:
                log.error("the worker hangs: %s takes longer than %g s; it ends", doing, self._seconds)
                self._end(EXIT_HUNG)
                return

    def dismiss(self) -> None:
        """Nobody needs to be looked after any more."""
        self._dismissed.set()


def _end(status: int) -> None:
    logging.shutdown()
    os._exit(status)
