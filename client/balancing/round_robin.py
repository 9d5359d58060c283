"""Everybody in turn, as often as its share says. Sans-io.

With uneven shares it is a static stride schedule (gRPC's for weighted round robin, A58): in each round those with the
largest share have their turn, and one with a third of it in every third round. The rest of a schedule need not be made anew
when shares change or workers come and go.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from random import Random

from ..candidates import Candidates
from ..upstream import Upstream

GOLDEN = 0.6180339887498949  # its multiples, modulo 1, lie apart: who is skipped now and then is not in the same rounds

_id = attrgetter("id")


class RoundRobin:
    """Starts at random, so that many proxies do not all begin with the same worker."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._list: Candidates | None = None
        self._next = 0  # a place in `_list`; the one before was the last to be served
        self._round = 0
        self._most = 0.0

    def choose(self, candidates: Candidates, now: float, key: bytes = b"") -> Upstream:
        if candidates is not self._list:
            if candidates.partial:
                # Another try. If it took the next one's turn, then with two workers the next upload would begin where
                # this one did, and one that is busy would be the first to be offered every upload.
                return candidates.pick(self._random)
            self._turn_to(candidates)
        while True:
            place = self._next
            if place >= len(candidates.members):
                place = 0
                self._round += 1
            self._next = place + 1
            chosen = candidates.members[place]
            if candidates.even or self._has_turn(chosen):
                return chosen

    def _has_turn(self, upstream: Upstream) -> bool:
        part, begin = upstream.share / self._most, upstream.order * GOLDEN % 1
        return int((self._round + 1) * part + begin) > int(self._round * part + begin)

    def _turn_to(self, candidates: Candidates) -> None:
        # The turn follows the last one served, not a counter: workers that come and go do not make it jump.
        if self._list is not None and self._list.members:
            self._next = bisect_right(candidates.members, self._list.members[self._next - 1].id, key=_id)
        else:
            self._next = int(self._random.random() * len(candidates))
        self._list = candidates
        if not candidates.even:
            self._most = max(upstream.share for upstream in candidates)
