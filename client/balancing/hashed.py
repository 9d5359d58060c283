"""The same worker for the same key, while it is not busier than the others. Sans-io.

Multi-probe consistent hashing (Appleton, O'Reilly 2015): workers have points on a ring, a key asks at several places of it,
and the point nearest after one of them wins; so few points are enough for an even spread. When a worker joins or leaves,
only its own keys move. Bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): nobody has more than BOUND times its share of
what is in flight, the rest goes on to the next ones.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from itertools import chain
from random import Random
from struct import Struct

from ..candidates import Candidates
from ..upstream import Upstream
from .least_loaded import LeastLoaded

POINTS = 16  # of a worker with the largest weight
PROBES = 5  # of a key
AROUND = 2**64 - 1  # the ring's places are 64 bits
BOUND = 1.25

_points, _probes = Struct(f">{POINTS // 2}Q"), Struct(f">{PROBES}Q")


class Hashed:
    """Without a key it is `LeastLoaded`."""

    def __init__(self, random: Random) -> None:
        self._without_key = LeastLoaded(random)
        self._members: list[Upstream] = []
        self._weights: dict[str, float] = {}
        self._ring: list[int] = []
        self._owners: dict[int, str] = {}

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        if not key:
            return self._without_key.choose(candidates, now)
        if candidates.pool.upstreams is not self._members:
            self._follow(candidates.pool.upstreams)
        bound = BOUND * (candidates.pool.in_flight + 1) / (candidates.shares or 1)
        ring, owners, by_id = self._ring, self._owners, candidates.by_id
        found = []
        for probe in _probes.unpack(blake2b(key, digest_size=_probes.size).digest()):
            place = bisect_left(ring, probe) % len(ring)
            found.append(((ring[place] - probe) & AROUND, place))
        found.sort()
        first = found[0][1]
        for place in chain((place for _, place in found), range(first, len(ring)), range(first)):
            upstream = by_id.get(owners[ring[place]])
            if upstream is not None and upstream.in_flight < max(bound * upstream.share, 1):  # one is always allowed
                return upstream
        return self._without_key.choose(candidates, now)

    def _follow(self, members: list[Upstream]) -> None:
        """The ring is of all workers, candidates or not: who is left out for a while gets its keys back."""
        self._members = members
        weights = {upstream.id: upstream.weight for upstream in members}
        if weights == self._weights:
            return
        self._weights = weights
        most = max(weights.values()) or 1.0
        self._owners = {
            point: id for id, weight in weights.items() for point in _places(id)[: round(POINTS * weight / most) or 1]
        }
        self._ring = sorted(self._owners)


def _places(id: str) -> tuple[int, ...]:
    """Always the same for an id, so that all proxies have the same ring; a smaller weight takes the first of them."""
    name = id.encode("utf-8", "surrogatepass")
    return sum((_points.unpack(blake2b(name, person=half).digest()) for half in (b"one", b"two")), ())
