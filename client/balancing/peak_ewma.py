"""Of two the one from which an answer is expected sooner: the next in turn, or one at random. Sans-io.

By Finagle's peak EWMA of latencies, in which a slow answer counts at once, and quick ones make it forgotten bit by bit.
"""

from __future__ import annotations

from random import Random

from ..candidates import Candidates
from ..upstream import Upstream
from .round_robin import RoundRobin

UNKNOWN = 1e9  # seconds: one that never answered gets one request, and no more until it has


class PeakEwma:
    """By the latency of its answers (`Upstream.answered`, `failed`) times what it would then have to do for us."""

    def __init__(self, random: Random) -> None:
        self._random, self._turn = random, RoundRobin(random)

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        one = self._turn.choose(candidates, now)
        other = candidates.rival(one, self._random)
        return other if _cost(other, now) * one.weight < _cost(one, now) * other.weight else one


def _cost(upstream: Upstream, now: float) -> float:
    latency = upstream.expected_latency(now)
    return latency * (upstream.in_flight + 1) if latency else UNKNOWN * upstream.in_flight
