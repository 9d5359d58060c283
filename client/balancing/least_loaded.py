"""Of two the one with less to do: the next in turn, unless one at random has less. Sans-io.

Two, not all: many proxies that all knew the least loaded one would all go there (Mitzenmacher, "The power of two choices").
One of them in turn: two at random are worse than the mere turn as long as nobody has much to do (docs/decisions/0011).
"""

from __future__ import annotations

from random import Random

from ..candidates import Candidates
from ..upstream import Upstream
from .round_robin import RoundRobin


class LeastLoaded:
    """By requests in flight, and those that the worker said it has besides, over its weight."""

    def __init__(self, random: Random) -> None:
        self._random, self._turn = random, RoundRobin(random)

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        one = self._turn.choose(candidates, now)
        other = candidates.rival(one, self._random)
        usual = candidates.pool.usual
        if (other.load(now, usual) + 1) * one.weight < (one.load(now, usual) + 1) * other.weight:
            return other
        return one
