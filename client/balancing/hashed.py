"""The same worker for the same key, while it is not busier than the others. Sans-io.

Consistent hashing on a ring with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): when a worker joins or leaves, only
its own keys move; and nobody has more than BOUND times its share of what is in flight, the rest goes on to the next ones.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from random import Random
from struct import unpack

from ..candidates import Candidates
from ..upstream import Upstream
from .least_loaded import LeastLoaded

POINTS = 40  # on the ring, of a worker with the largest weight
BOUND = 1.25


class Hashed:
    """Without a key it is `LeastLoaded`."""

    def __init__(self, random: Random) -> None:
        self._without_key = LeastLoaded(random)
        self._members: list[Upstream] = []
        self._weights: dict[str, float] = {}
        self._points: dict[str, tuple[int, ...]] = {}
        self._ring: list[int] = []
        self._owners: dict[int, str] = {}

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        if not key:
            return self._without_key.choose(candidates, now)
        if candidates.pool.upstreams is not self._members:
            self._follow(candidates.pool.upstreams)
        most = BOUND * (candidates.pool.in_flight + 1) / (candidates.shares or 1)
        ring, by_id = self._ring, candidates.by_id
        start = bisect_left(ring, unpack(">Q", blake2b(key, digest_size=8).digest())[0])
        for step in range(len(ring)):
            upstream = by_id.get(self._owners[ring[(start + step) % len(ring)]])
            if upstream is not None and upstream.in_flight < max(most * upstream.share, 1):  # so that nobody has none
                return upstream
        return self._without_key.choose(candidates, now)

    def _follow(self, members: list[Upstream]) -> None:
        """The ring is of all workers, candidates or not: one that is left out for a while keeps its keys."""
        self._members = members
        weights = {upstream.id: upstream.weight for upstream in members}
        if weights == self._weights:
            return
        most = max(weights.values()) or 1.0
        known, self._points = self._points, {}
        self._weights, self._owners = weights, {}
        for id, weight in weights.items():
            points = self._points[id] = known.get(id) or _points(id)
            for point in points[: max(1, round(POINTS * weight / most))]:
                self._owners[point] = id
        self._ring = sorted(self._owners)


def _points(id: str) -> tuple[int, ...]:
    """Always the same for an id, so that all proxies have the same ring; a smaller weight takes the first of them."""
    found: list[int] = []
    for part in range(0, POINTS, 8):
        digest = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=64, salt=part.to_bytes(2, "big")).digest()
        found += unpack(">8Q", digest)
    return tuple(found[:POINTS])
