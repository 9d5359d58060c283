"""The workers of one service, as seen by who sends to them: who may be sent to, who is sent away. Sans-io: `now` is given.

Ejection (the rules of docs/house.md): three connection-level failures in a row, or five gateway errors; for 5 s,
doubling to 5 min; never more than half of the workers, never the last; one probe decides about the return.

Requests come by the thousand and changes by the second, so the list of candidates is kept until something changes, or the
next thing that only time changes is due: an ejection's end, the next step of a slow start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Final

from ..registry.instance import Instance
from ..worker.wire.load import decode
from .candidates import Candidates
from .upstream import AWAY, STANDINGS, Outcome, Upstream

__all__ = ["ABANDONED", "ANSWERED", "Candidates", "Outcome", "Pool", "Upstream"]

LIMITS = {Outcome.CONNECTION: 3, Outcome.GATEWAY: 5}
FIRST_EJECTION, LAST_EJECTION = 5.0, 300.0  # seconds
LONGEST_BUSY = 60.0  # seconds; whoever wants to be left alone for longer is asked again
NEWS: Final = 0.01  # the part of one report in what is usual
FIRST_SHARE, STEPS = 0.1, 20  # a slow start begins at a tenth, and goes up in so many steps

ANSWERED: Final = Outcome.ANSWERED
FAILED: Final = Outcome.FAILED
ABANDONED: Final = Outcome.ABANDONED


class Pool:
    """All upstreams of one service. `upstreams`, by id, is replaced and never changed; `in_flight` is for all of them."""

    def __init__(
        self,
        slow_start_seconds: float = 0.0,
        worker_limit: int = 0,
        on_room: Callable[[Upstream], None] = lambda upstream: None,
    ) -> None:
        """`worker_limit`: in flight at one worker at the most, 0: any number; `on_room`: one at its limit is no more."""
        self.upstreams: list[Upstream] = []
        self.in_flight = 0
        self.usual = 0.0  # what a worker of weight 1 has to do for others than us, by what all told
        self.due = -inf  # when the list of candidates must be made anew
        self._judged_at = -inf
        self._by_id: dict[str, Upstream] = {}
        self._models: frozenset[str] = frozenset()  # what anybody has
        self._having: dict[str, Candidates] = {}  # of those with a model; as long as `_candidates`
        self._slow_start = slow_start_seconds
        self._limit = worker_limit or -1
        self._on_room = on_room
        self._best = self._candidates = Candidates(self, ())  # those who stand best, and those of them who have room

    def update(self, instances: Iterable[Instance], now: float, joining: bool = True) -> None:
        """The full list; who is missing from it is dropped, who stays keeps its record.

        Who serves for the first time starts slowly if somebody else served before; not if `joining` is False, which says
        that it is we who are new.
        """
        served = [upstream for upstream in self.upstreams if upstream.instance.serving]
        fresh: dict[str, Upstream] = {}
        newcomers = []
        for instance in sorted(instances, key=lambda instance: instance.id):
            known = self._by_id.get(instance.id)
            if known is None or known.instance.address != instance.address:
                known = Upstream(instance)
            known.take(instance)
            known.order = len(fresh)
            fresh[instance.id] = known
            if instance.serving and not known.served:
                known.served = True
                newcomers.append(known)
        self._by_id, self.upstreams = fresh, list(fresh.values())
        self._models = frozenset().union(*(upstream.models for upstream in self.upstreams))
        self.due = -inf
        if joining and self._slow_start and any(fresh.get(u.id) is u and u.instance.serving for u in served):
            for upstream in newcomers:
                upstream.joined_at = now

    def meant(self, model: str) -> str:
        """`model`, which is NAME or NAME/VERSION, or NAME if nobody has that version. Empty: nobody says that they have it,
        so that anybody may; or at least knows how to say no.
        """
        if model in self._models:
            return model
        name = model.rpartition("/")[0]
        return name if name in self._models else ""

    def candidates(self, now: float, exclude: Collection[str] = (), model: str = "") -> Candidates:
        """Who may be sent to now, by id not in `exclude`: of all that are left those that stand best, and have room.

        `model`: what `meant` gave: only who has it.
        """
        if now >= self.due:
            self._judge(now)
        found = self._candidates if not model else self._of(model, now)
        if not exclude:
            return found
        left = found.but(exclude)
        # Where the healthy ones have left since, those sent away are the last: better one in doubt than none.
        return left or self._with_room(Candidates(self, self._standing_best(now, exclude, model), partial=True))

    def started(self, upstream: Upstream, now: float) -> None:
        self.in_flight += 1
        upstream.in_flight = in_flight = upstream.in_flight + 1
        if in_flight == self._limit and self._candidates.among(upstream):
            self._candidates = self._candidates.without(upstream)
            self._having.clear()
        if upstream.ejections:
            upstream.probing = True
            self.due = -inf

    def finished(self, upstream: Upstream, outcome: Outcome, now: float, seconds: float | None = None) -> bool:
        """`seconds`: from sending the request to the answer's head, None if it says nothing of the worker's speed.

        -> whether the worker was ejected for it.
        """
        self.in_flight -= 1
        upstream.in_flight = in_flight = upstream.in_flight - 1
        if in_flight == self._limit - 1:
            self._room(upstream)
        if upstream.probing:
            upstream.probing = False
            self.due = -inf
        if outcome is ANSWERED:
            if seconds is not None:
                upstream.answered(seconds, now)
            if upstream.failures or upstream.ejections:
                self._forgive(upstream)
            return False
        if outcome is ABANDONED:
            return False
        upstream.failed(now)
        if outcome is FAILED:
            self._forgive(upstream)
            return False
        return self._blamed(upstream, outcome, now)

    def busy(self, upstream: Upstream, until: float) -> None:
        """It said (429, 503) that it wants nothing before `until`: it is no failure, and it is asked if all are busy."""
        if upstream.busy_until <= self._judged_at:  # else it is left aside already, or all are
            self.due = -inf
        upstream.busy_until = max(upstream.busy_until, until)

    def reported(self, upstream: Upstream, value: bytes) -> None:
        """The load it told with an answer that is being received: the field of `worker/wire/load.py`."""
        upstream.said(decode(value))
        if upstream.reported.in_flight is not None:
            self.usual += NEWS * (upstream.elsewhere / (upstream.weight or 1.0) - self.usual)

    def _forgive(self, upstream: Upstream) -> None:
        upstream.failures.clear()
        if upstream.ejections:
            upstream.ejections = 0
            self.due = -inf

    def _blamed(self, upstream: Upstream, outcome: Outcome, now: float) -> bool:
        if now < upstream.ejected_until:
            return False  # sent before it was ejected: one crash with many in flight is one crash
        count = upstream.failures[outcome] = upstream.failures.get(outcome, 0) + 1
        if (count < LIMITS[outcome] and not upstream.ejections) or not self._may_eject(now):
            return False
        upstream.ejected_until = now + min(FIRST_EJECTION * 2**upstream.ejections, LAST_EJECTION)
        upstream.ejections += 1
        self.due = -inf
        return True

    def _may_eject(self, now: float) -> bool:
        passing = [u for u in self.upstreams if u.instance.serving]  # a draining one is no company
        out = sum(1 for u in passing if now < u.ejected_until)
        return out + 1 <= len(passing) // 2

    def _judge(self, now: float) -> None:
        """Makes the list of candidates, and says when it is `due` again."""
        due = inf
        for upstream in self.upstreams:
            upstream.busy_until = min(upstream.busy_until, now + LONGEST_BUSY)
            for at in (upstream.ejected_until, upstream.busy_until):
                if now < at < due:
                    due = at
            if upstream.joined_at > -inf:
                due = min(due, self._ramp(upstream, now))
        self.due, self._judged_at = due, now
        self._best = Candidates(self, self._standing_best(now))
        self._candidates = self._with_room(self._best)
        self._having.clear()

    def _of(self, model: str, now: float) -> Candidates:
        """They are judged among themselves: who stands better than all of them, and has not the model, is of no use."""
        found = self._having.get(model)
        if found is None:
            found = self._having[model] = self._with_room(Candidates(self, self._standing_best(now, (), model)))
        return found

    def _ramp(self, upstream: Upstream, now: float) -> float:
        """Sets the share of one that starts slowly. -> when it changes next."""
        part = (now - upstream.joined_at) / self._slow_start
        if part >= 1:
            upstream.joined_at, upstream.share = -inf, upstream.weight
            return inf
        upstream.share = upstream.weight * max(FIRST_SHARE, part)
        return now + self._slow_start / STEPS

    def _standing_best(self, now: float, exclude: Collection[str] = (), model: str = "") -> list[Upstream]:
        groups: list[list[Upstream]] = [[] for _ in STANDINGS]
        for upstream in self.upstreams:
            if upstream.id not in exclude and (not model or model in upstream.models):
                groups[upstream.standing(now)].append(upstream)
        return next((group for group in groups[:AWAY] if group), [])

    def _with_room(self, best: Candidates) -> Candidates:
        """Those at their limit do not make the others better: the ejected get nothing because the rest is full."""
        full = {u.id for u in best if u.in_flight >= self._limit} if self._limit > 0 else ()
        if not full:
            return best
        return Candidates(self, (u for u in best if u.id not in full), best.even or None, best.partial)

    def _room(self, upstream: Upstream) -> None:
        if self._best.among(upstream):
            self._candidates = self._candidates.plus(upstream, self._best.even)
        self._having.clear()
        self._on_room(upstream)

    def __repr__(self) -> str:
        ejected = sum(1 for u in self.upstreams if u.ejections)
        return f"<Pool [{len(self.upstreams)} workers, {ejected} ejected | {self.in_flight} in flight]>"
