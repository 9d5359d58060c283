"""The workers of one service, as seen by who sends to them: in flight, failures, ejection. Sans-io: `now` is an argument.

Ejection (the rules of docs/house.md): three connection-level failures in a row, or five gateway errors; for 5 s,
doubling to 5 min; never more than half of the workers, never the last; one probe decides about the return.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from ..registry.instance import Instance


class Outcome(Enum):
    """What became of a request sent to an upstream."""

    ANSWERED = "answered"  # whatever it said, it lives: a 400 or 500 for one bad image ejects nobody
    GATEWAY = "gateway"  # 502, 504; a 503 says that it is busy or leaving, which is no illness
    CONNECTION = "connection"  # refused, reset, closed without an answer, timed out
    ABANDONED = "abandoned"  # the caller went away: nobody's fault


LIMITS = {Outcome.CONNECTION: 3, Outcome.GATEWAY: 5}
FIRST_EJECTION, LAST_EJECTION = 5.0, 300.0  # seconds


class Upstream:
    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.in_flight = 0
        self.failures = dict.fromkeys(LIMITS, 0)
        self.ejections = 0
        self.ejected_until = 0.0
        self.probing = False

    def available(self, now: float) -> bool:
        """One predicate for every balancer."""
        if not self.instance.serving or now < self.ejected_until:
            return False
        return not (self.ejections and self.probing)

    def __repr__(self) -> str:
        ejected = f", ejected {self.ejections} times" if self.ejections else ""
        return f"<Upstream {self.instance.address} [{self.in_flight} in flight{ejected}]>"


class Pool:
    """All upstreams of one service."""

    def __init__(self) -> None:
        self._upstreams: dict[str, Upstream] = {}

    def update(self, instances: Iterable[Instance]) -> None:
        """The full list; who is missing from it is dropped, who stays keeps its record."""
        fresh: dict[str, Upstream] = {}
        for instance in instances:
            known = self._upstreams.get(instance.id)
            if known is None or known.instance.address != instance.address:
                known = Upstream(instance)
            known.instance = instance
            fresh[instance.id] = known
        self._upstreams = fresh

    @property
    def upstreams(self) -> list[Upstream]:
        return list(self._upstreams.values())

    def candidates(self, now: float, exclude: Collection[str] = ()) -> list[Upstream]:
        """Who may be sent to now, by id not in `exclude`, in a stable order."""
        # Where the healthy ones have left since, those sent away are the last: better one in doubt than none.
        left = [u for u in self._passing() if u.instance.id not in exclude]
        available = [u for u in left if u.available(now)]
        return [u for u in available if not u.instance.suspect] or available or left

    def started(self, upstream: Upstream, now: float) -> None:
        upstream.in_flight += 1
        upstream.probing = upstream.ejections > 0

    def finished(self, upstream: Upstream, outcome: Outcome, now: float) -> None:
        upstream.in_flight -= 1
        upstream.probing = False
        if outcome is Outcome.ABANDONED:
            return
        if outcome is Outcome.ANSWERED:
            upstream.failures = dict.fromkeys(LIMITS, 0)
            upstream.ejections = 0
            return
        if now < upstream.ejected_until:
            return  # sent before it was ejected: one crash with many in flight is one crash
        upstream.failures[outcome] += 1
        ejectable = upstream.failures[outcome] >= LIMITS[outcome] or upstream.ejections > 0
        if ejectable and self._may_eject(now):
            pause = min(FIRST_EJECTION * 2**upstream.ejections, LAST_EJECTION)
            upstream.ejections += 1
            upstream.ejected_until = now + pause

    def _may_eject(self, now: float) -> bool:
        passing = self._passing()  # a draining one is no reason to do without its neighbour
        out = sum(1 for u in passing if now < u.ejected_until)
        return out + 1 <= len(passing) // 2

    def _passing(self) -> list[Upstream]:
        return [u for u in self._upstreams.values() if u.instance.serving]

    def __repr__(self) -> str:
        in_flight = sum(u.in_flight for u in self._upstreams.values())
        ejected = sum(1 for u in self._upstreams.values() if u.ejections)
        return f"<Pool [{len(self._upstreams)} workers, {ejected} ejected | {in_flight} in flight]>"
