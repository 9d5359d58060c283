"""Who gets the next request: one file, one method each. Health is judged elsewhere (`client/pool.py`). Sans-io.

`round-robin`   everybody in turn, as often as its weight says
`least-loaded`  the next in turn, or one at random if that has less to do
`peak-ewma`     the next in turn, or one at random if an answer is expected sooner from that
`hash:HEADER`   the same worker for the same value of a header, while it is not busier than the others
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from ...registry.errors import ConfigurationError
from ..candidates import Candidates
from ..upstream import Upstream
from .hashed import Hashed
from .least_loaded import LeastLoaded
from .peak_ewma import PeakEwma
from .round_robin import RoundRobin

__all__ = ["Balancer", "Hashed", "LeastLoaded", "PeakEwma", "RoundRobin", "balancer_of"]


class Balancer(Protocol):
    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        """One of `candidates`, which are never empty. `key`: what `hash:HEADER` goes by, of others ignored."""
        ...


BALANCERS: dict[str, Callable[[Random], Balancer]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "peak-ewma": PeakEwma,
    "hash": Hashed,
}


def balancer_of(text: str, random: Random) -> Balancer:
    """`round-robin`, `least-loaded`, `peak-ewma`, or `hash:HEADER`. Raises ConfigurationError."""
    name = text.partition(":")[0]
    if name not in BALANCERS or (text != name and name != "hash"):
        raise ConfigurationError(f"{text!r} is no way to balance: expected one of {', '.join(BALANCERS)}:HEADER")
    header_of(text)
    return BALANCERS[name](random)


def header_of(text: str) -> bytes:
    """The header that `hash:HEADER` goes by, in lower case; empty for the others. Raises ConfigurationError."""
    name, _, header = text.partition(":")
    if name != "hash":
        return b""
    if not header.isascii() or not header.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"{text!r} names no header: expected hash:HEADER, such as hash:X-Session")
    return header.lower().encode()
