"""One model's queues, and the jobs that wait in them. Sans-io."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

NEW, QUEUED, DECODING, READY, RUNNING, OVER = range(6)  # a job's stages, in this order; some are left out


@dataclass(frozen=True, slots=True)
class Batching:
    """How items come together in the calls of one signature.

    `most`: items in one call; 0: as many as a request has. `merge`: jobs of several requests share a call. `wait`: seconds
    that a job waits for company. `sizes`: ascending; a call has one of these numbers of items, padded up; none: any.
    """

    most: int = 1
    merge: bool = False
    wait: float = 0.0
    sizes: tuple[int, ...] = ()

    def parts(self, items: int) -> list[int]:
        """A request's items, cut into calls."""
        if not self.most or items <= self.most:
            return [items]
        whole, rest = divmod(items, self.most)
        return [self.most] * whole + ([rest] if rest else [])

    def padded(self, items: int) -> int:
        """How many items a call with `items` has in the end."""
        at = bisect_left(self.sizes, items)
        return self.sizes[at] if at < len(self.sizes) else items


class Job:
    """`encoded`: has to be decoded first; its key is then known only after that. `owner`: whose it is, for the shell."""

    __slots__ = (
        "batching", "deadline", "encoded", "items", "key", "lane", "number", "owner", "priority", "queued", "ready",
        "stage", "value",
    )  # fmt: skip

    def __init__(
        self,
        lane: Lane,
        batching: Batching,
        items: int,
        *,
        key: Hashable = None,
        encoded: bool = False,
        deadline: float = inf,
        priority: int = 0,
        owner: Any = None,
        value: Any = None,
    ) -> None:
        self.lane, self.batching, self.items, self.key, self.encoded = lane, batching, items, key, encoded
        self.deadline, self.priority, self.owner, self.value = deadline, priority, owner, value
        self.stage = NEW
        self.number = 0  # in the order they came
        self.queued = self.ready = 0.0  # when

    def __repr__(self) -> str:
        stage = ("new", "queued", "decoding", "ready", "running", "over")[self.stage]
        return f"<Job {self.number} of {self.lane.name} [{self.items} items, {stage}]>"


Heap = list[tuple[int, int, Job]]  # (priority, number, job)


class Group:
    """Jobs of one key that wait for their model; the first of them since `since`."""

    __slots__ = ("heap", "items", "key", "since")

    def __init__(self, key: Hashable, since: float) -> None:
        self.key, self.since = key, since
        self.heap: Heap = []
        self.items = 0


class Lane:
    """One model's queues.

    `streams`: calls at once. `fused`: the thread that decodes a job runs it as well. `wide`: every call may use all cores;
    `widens`: one that is alone may. `gather`: seconds that decoded jobs wait for such as are still to be decoded.
    """

    __slots__ = (
        "decoding", "fused", "gather", "groups", "name", "raw", "ready", "running", "streams", "wide", "widens",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        streams: int = 1,
        *,
        fused: bool = False,
        wide: bool = False,
        widens: bool = True,
        gather: float = 0.005,
    ) -> None:
        self.name, self.streams, self.fused, self.wide, self.widens = name, streams, fused, wide, widens
        self.gather = gather
        self.raw: Heap = []  # to be decoded; of a fused lane all
        self.groups: dict[Hashable, Group] = {}
        self.ready = 0  # jobs in groups
        self.decoding = self.running = 0

    def __repr__(self) -> str:
        return (
            f"<Lane {self.name} [{len(self.raw)} to decode, {self.decoding} decoding, {self.ready} ready, "
            f"{self.running} of {self.streams} running]>"
        )

    def __iter__(self) -> Iterator[Job]:
        """Those that wait."""
        for _, _, job in self.raw:
            yield job
        for group in self.groups.values():
            for _, _, job in group.heap:
                yield job

    @property
    def waiting(self) -> int:
        return len(self.raw) + self.ready

    def due(self, group: Group) -> float:
        """When the group's next call should begin, if the model is free then."""
        batching = group.heap[0][2].batching
        if not batching.merge or 0 < batching.most <= group.items:
            return 0.0
        wait = batching.wait
        if (self.raw or self.decoding) and self.gather > wait:
            wait = self.gather
        return group.since + wait if wait else 0.0

    def calls(self, group: Group) -> int:
        """How many there will be at least for what waits in the group."""
        batching = group.heap[0][2].batching
        if not batching.merge:
            return len(group.heap)
        return max(1, group.items // batching.most) if batching.most else 1

    def next_group(self, now: float) -> Group | None:
        """The one whose call is due; of several the one with the first job."""
        best: Group | None = None
        for group in self.groups.values():
            if (best is None or group.heap[0] < best.heap[0]) and self.due(group) <= now:
                best = group
        return best
