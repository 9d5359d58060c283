"""Who may be sent to now: a list made once and chosen from many times. Never changed once it is made. Sans-io."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING

from .upstream import Upstream

if TYPE_CHECKING:
    from .pool import Pool

_order = attrgetter("order")


class Candidates:
    """`members`: in the pool's order, which is that of their ids.

    `even`: all have the same share. `partial`: somebody is left out for this one request, so that nobody's turn should
    move on.
    """

    __slots__ = ("_by_id", "_cumulative", "even", "members", "partial", "pool")

    def __init__(
        self, pool: Pool, members: Iterable[Upstream], even: bool | None = None, partial: bool = False
    ) -> None:
        self.members = list(members)
        self.pool, self.partial = pool, partial
        self.even = len({upstream.share for upstream in self.members}) <= 1 if even is None else even
        self._cumulative: list[float] | None = None
        self._by_id: dict[str, Upstream] | None = None

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self.members)

    @property
    def by_id(self) -> dict[str, Upstream]:
        if self._by_id is None:
            self._by_id = {upstream.id: upstream for upstream in self.members}
        return self._by_id

    @property
    def shares(self) -> float:
        """The sum of all."""
        return self._added()[-1]

    def pick(self, random: Random) -> Upstream:
        """One at random, by share."""
        if self.even:
            return self.members[int(random.random() * len(self.members))]
        added = self._added()
        return self.members[min(bisect_right(added, random.random() * added[-1]), len(self.members) - 1)]

    def rival(self, one: Upstream, random: Random) -> Upstream:
        """Another one at random. With uneven shares it may be the same: of two, who has a tenth is not always the other."""
        if not self.even:
            return self.pick(random)
        count = len(self.members)
        place = int(random.random() * count)
        other = self.members[place]
        return other if other is not one else self.members[(place + 1 + int(random.random() * (count - 1))) % count]

    def among(self, upstream: Upstream) -> bool:
        place = self._place(upstream)
        return place < len(self.members) and self.members[place] is upstream

    def without(self, upstream: Upstream) -> Candidates:
        """`upstream` is among them."""
        place = self._place(upstream)
        return Candidates(self.pool, [*self.members[:place], *self.members[place + 1 :]], self.even or None)

    def plus(self, upstream: Upstream, even: bool) -> Candidates:
        """`even`: whether they all are, with it."""
        place = self._place(upstream)
        return Candidates(self.pool, [*self.members[:place], upstream, *self.members[place:]], even or None)

    def but(self, ids: Iterable[str]) -> Candidates:
        """For one request: without these."""
        return Candidates(self.pool, (u for u in self.members if u.id not in ids), self.even or None, partial=True)

    def _place(self, upstream: Upstream) -> int:
        return bisect_left(self.members, upstream.order, key=_order)

    def _added(self) -> list[float]:
        if self._cumulative is None:
            self._cumulative = list(accumulate(upstream.share for upstream in self.members))
        return self._cumulative
