"""Of two random ones the one with less to do. Sans-io.

Two, not all: many proxies that all knew the least loaded one would all go there (Mitzenmacher, "The power of two choices").
"""

from __future__ import annotations

from random import Random

from ..candidates import Candidates
from ..upstream import Upstream


class LeastLoaded:
    """By requests in flight, and those that the worker said it has besides, over its weight."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        one, other = candidates.two(self._random)
        if (other.load(now) + 1) * one.weight < (one.load(now) + 1) * other.weight:
            return other
        return one
