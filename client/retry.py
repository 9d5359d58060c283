"""What may be tried again, on another worker. Pure tables; inference uploads are idempotent by declaration."""

from __future__ import annotations

from enum import Enum


class Failure(Enum):
    NOT_SENT = "not sent"  # refused, unreachable: nothing left us
    BROKEN = "broken"  # the connection broke after something was sent, before any answer
    BUSY = "busy"  # 429, or 503 while draining: it says it did nothing
    TIMEOUT = "timeout"  # no answer in time; it may still be at work
    STARTED = "started"  # part of the answer has gone to the caller


# failure -> (again when the body can be sent again, again when it cannot)
AGAIN = {
    Failure.NOT_SENT: (True, True),
    Failure.BROKEN: (True, False),
    Failure.BUSY: (True, False),
    Failure.TIMEOUT: (False, False),
    Failure.STARTED: (False, False),
}


def may_retry(failure: Failure, replayable: bool) -> bool:
    """`replayable`: the whole body is still held (or none of it was taken from the caller)."""
    held, gone = AGAIN[failure]
    return held if replayable else gone


class Budget:
    """Retries must not double the load on a cluster in trouble: 20 % of the requests, and 10 a second on top.

    Source of the figures: Finagle's RetryBudget. Tokens of 10 seconds are kept at the most.
    """

    def __init__(self, share: float = 0.2, per_second: float = 10.0) -> None:
        self._share, self._per_second = share, per_second
        self._most = per_second * 10
        self._tokens, self._since = self._most, 0.0

    def request(self, now: float) -> None:
        self._refill(now)
        self._tokens = min(self._most, self._tokens + self._share)

    def spend(self, now: float) -> bool:
        """True, and one token less, if a retry is in the budget."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self, now: float) -> None:
        if self._since:
            self._tokens = min(self._most, self._tokens + (now - self._since) * self._per_second)
        self._since = now

    def __repr__(self) -> str:
        return f"<Budget {self._tokens:.0f} of {self._most:.0f}>"
