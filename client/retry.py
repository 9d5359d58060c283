"""What may be tried again, by whom, and after what pause. Pure tables; inference uploads are idempotent by declaration.

The proxy's table is `AGAIN`; the client library's is `CLIENT_AGAIN`, of which `Attempts` makes the course of one image.
"""

from __future__ import annotations

from collections.abc import Collection
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


# What the client library makes of it. It holds the whole image, and takes an answer only when all of it is there; the time
# is its caller's own. failure -> (again, for how many seconds whoever failed is passed by while there are others).
CLIENT_AGAIN = {
    Failure.NOT_SENT: (True, 5.0),
    Failure.BROKEN: (True, 5.0),
    Failure.BUSY: (True, 1.0),  # or as long as it says itself
    Failure.TIMEOUT: (True, 5.0),
    Failure.STARTED: (False, 0.0),
}

# An answer's status -> what it says about him who gave it. What is not here would be the same anywhere.
TELLING = {
    408: Failure.TIMEOUT,
    429: Failure.BUSY,
    502: Failure.BROKEN,  # the proxy's worker was lost, and the upload was too long to be held there: it is held here
    503: Failure.BUSY,
    504: Failure.TIMEOUT,
}

ATTEMPTS = 7  # for one image
FIRST_ATTEMPTS = 3  # while no worker has ever answered us: there is none, rather than none for a moment
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds, doubling
LONGEST_PAUSE = 3600.0  # longer is not waited, whatever a server says


def retry_after(text: str | None) -> float | None:
    """Seconds, of a Retry-After field (RFC 9110 10.2.3). A date is no answer to us: it needs clocks that agree."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return min(float(text[:9]), LONGEST_PAUSE)


class Attempts:
    """One image's course: who failed it, who may be asked again, and when.

    The next one is asked at once; whoever has failed this image already, only after a pause: as long as he said himself,
    and a little more each time. `places` are what the caller tells servers apart by.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.made = 0
        self._pauses = 0
        self._failed: dict[str, float] = {}  # place -> not before

    def failed(self, place: str, failure: Failure, told: float | None, now: float, most: int = ATTEMPTS) -> bool:
        """Whether the image may be tried again at all, somewhere. `told`: seconds, as `retry_after` gives them."""
        self.made += 1
        self._failed[place] = now + (told or 0.0)
        return CLIENT_AGAIN[failure][0] and self.made < most

    @property
    def places(self) -> Collection[str]:
        """Those that have failed this image, and were not waited for since."""
        return self._failed.keys()

    def pause(self, place: str, now: float, chance: float) -> float | None:
        """Seconds to wait before `place` is asked; None: that would be too late. `chance`, 0 to 1: not all at once."""
        until = self._failed.pop(place, None)
        if until is None:
            return 0.0
        pause = max(0.0, until - now) + min(FIRST_PAUSE * 2**self._pauses, LAST_PAUSE) * (0.5 + chance / 2)
        self._pauses += 1
        return pause if now + pause < self.deadline else None

    def __repr__(self) -> str:
        return f"<Attempts {self.made} of {ATTEMPTS}, {len(self._failed)} places failed>"


class Budget:
    """Retries must not double the load on a cluster in trouble: 20 % of the requests, and 10 a second on top.

    Source of the figures: Finagle's RetryBudget. Tokens of 10 seconds are kept at the most.
    """

    def __init__(self, share: float = 0.2, per_second: float = 10.0) -> None:
        self._share, self._per_second = share, per_second
        self._most = per_second * 10
        self._tokens, self._since = self._most, 0.0

    def request(self, now: float, count: int = 1) -> None:
        """`count` of them since it was last told."""
        self._refill(now)
        self._tokens = min(self._most, self._tokens + count * self._share)

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
