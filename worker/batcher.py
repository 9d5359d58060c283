"""Who comes next: the queues of all models, and what a thread that is free does with them. Sans-io.

A job is a request, or a piece of one that fits into one call of its model. It waits, is decoded if it is an upload, waits
for its model, and runs, alone or with others of the same key: same signature, same shapes. In a lane that is `fused` one
thread decodes a job and runs it in one go.

Laws: what has expired or was dropped is never run. Nothing overtakes within a priority and a key. Lanes that have work
take turns. A call begins as soon as its model is free and nothing that is queued could still join it: who waits for company
that is not there yet is told to, by `wait`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from .lane import DECODING, NEW, OVER, QUEUED, READY, RUNNING, Group, Heap, Job, Lane


class Work:
    """What a thread does next: decode `jobs[0]` (`run` is False), or run `jobs` in one call.

    `size`: the call's items, padding included. `wide`: it may use all cores.
    """

    __slots__ = ("items", "jobs", "lane", "run", "size", "wide")

    def __init__(self, lane: Lane, jobs: list[Job], run: bool, items: int, size: int, wide: bool) -> None:
        self.lane, self.jobs, self.run, self.items, self.size, self.wide = lane, jobs, run, items, size, wide

    def __repr__(self) -> str:
        what = f"run {self.items} of {self.size}{' wide' if self.wide else ''}" if self.run else "decode"
        return f"<Work {self.lane.name} [{what}: {', '.join(str(job.number) for job in self.jobs)}]>"


class Batcher:
    """`jobs`: those that wait or are worked on. `expired`: taken out because of their deadline; the shell empties it."""

    __slots__ = ("_active", "_earliest", "_numbers", "expired", "jobs", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[Lane, None] = {}
        self.jobs = 0
        self.expired: list[Job] = []
        self._active: dict[Lane, None] = {}  # lanes where jobs wait, in the order of their turns
        self._earliest = inf  # no job that waits has an earlier deadline
        self._numbers = count(1)

    def add(self, lane: Lane) -> None:
        self.lanes[lane] = None

    def remove(self, lane: Lane) -> list[Job]:
        """The jobs that still waited: they are out."""
        gone = [job for job in self._waiting() if job.lane is lane]
        for job in gone:
            self.drop(job)
        self.lanes.pop(lane, None)
        return gone

    def put(self, job: Job, now: float) -> None:
        if job.stage == OVER:  # dropped before it came here
            return
        lane = job.lane
        job.stage = QUEUED
        job.number = next(self._numbers)
        job.queued = now
        if job.deadline < self._earliest:
            self._earliest = job.deadline
        self.jobs += 1
        self._active.setdefault(lane)
        if job.encoded or lane.fused:
            heappush(lane.raw, (job.priority, job.number, job))
        else:
            self._ready(job, now)

    def decoded(self, job: Job, key: Hashable, now: float) -> None:
        """The thread that decoded it says so, and what it can share a call with."""
        job.lane.decoding -= 1
        if job.stage == OVER:  # dropped meanwhile
            return
        job.key = key
        if job.deadline < self._earliest:  # which knew only those that waited
            self._earliest = job.deadline
        self._active.setdefault(job.lane)
        self._ready(job, now)

    def undecodable(self, job: Job) -> None:
        """The thread that decoded it says that there is nothing to run."""
        job.lane.decoding -= 1
        if job.stage != OVER:
            job.stage = OVER
            self.jobs -= 1

    def done(self, work: Work) -> None:
        """A call is over, for good or ill."""
        work.lane.running -= 1
        self.jobs -= len(work.jobs)
        for job in work.jobs:
            job.stage = OVER

    def drop(self, job: Job) -> bool:
        """Nobody wants it any more. False if it runs, or is over: then nothing can be done."""
        lane, stage = job.lane, job.stage
        if stage >= RUNNING:
            return False
        job.stage = OVER
        if stage == NEW:
            return True
        self.jobs -= 1
        if stage == QUEUED:
            _take_out(lane.raw, job)
        elif stage == READY:
            group = lane.groups[job.key]
            _take_out(group.heap, job)
            group.items -= job.items
            lane.ready -= 1
            if not group.heap:
                del lane.groups[job.key]
        if not lane.waiting:
            self._active.pop(lane, None)
        return True

    def take(self, now: float) -> Work | None:
        """For a thread that is free. None: there is nothing to do before `until`, unless something is put or done."""
        if now >= self._earliest:
            self.expire(now)
        for lane in self._active:
            work = self._of(lane, now)
            if work is not None:
                del self._active[lane]
                if lane.raw or lane.ready:
                    self._active[lane] = None  # behind all others
                return work
        return None

    def until(self) -> float:
        """When there will be something to do although nothing happens; inf: never."""
        return min(
            (lane.due(group) for lane in self._active if lane.running < lane.streams for group in lane.groups.values()),
            default=inf,
        )

    def due(self, now: float) -> int:
        """For how many threads there is work."""
        found = 0
        for lane in self._active:
            free = lane.streams - lane.running
            if lane.fused:
                found += min(len(lane.raw), free)
            else:
                found += len(lane.raw)
                if free and lane.ready:
                    found += min(
                        free, sum(lane.calls(group) for group in lane.groups.values() if lane.due(group) <= now)
                    )
        return found

    def expire(self, now: float) -> None:
        """Moves what has waited too long to `expired`."""
        self._earliest = inf
        for job in list(self._waiting()):
            if job.deadline <= now:
                self.drop(job)
                self.expired.append(job)
            elif job.deadline < self._earliest:
                self._earliest = job.deadline

    def _of(self, lane: Lane, now: float) -> Work | None:
        """Calls before decoding: a model at rest is the greater waste."""
        if lane.running < lane.streams:
            if lane.fused:
                job: Job = heappop(lane.raw)[2]
                return self._run(lane, [job], job.items)
            if lane.ready and (group := lane.next_group(now)) is not None:
                return self._batch(lane, group)
        if lane.raw and not lane.fused:
            job = heappop(lane.raw)[2]
            job.stage = DECODING
            lane.decoding += 1
            return Work(lane, [job], False, job.items, job.items, False)
        return None

    def _batch(self, lane: Lane, group: Group) -> Work:
        heap = group.heap
        job: Job = heappop(heap)[2]
        jobs, items, most = [job], job.items, job.batching.most
        if job.batching.merge:
            while heap and (not most or items + heap[0][2].items <= most):
                other: Job = heappop(heap)[2]
                jobs.append(other)
                items += other.items
        group.items -= items
        lane.ready -= len(jobs)
        if heap:
            group.since = min(waiting[2].ready for waiting in heap)
        else:
            del lane.groups[group.key]
        return self._run(lane, jobs, items)

    def _run(self, lane: Lane, jobs: list[Job], items: int) -> Work:
        for job in jobs:
            job.stage = RUNNING
        lane.running += 1
        alone = lane.widens and self.jobs == len(jobs)
        return Work(lane, jobs, True, items, jobs[0].batching.padded(items), lane.wide or alone)

    def _ready(self, job: Job, now: float) -> None:
        lane = job.lane
        group = lane.groups.get(job.key)
        if group is None:
            group = lane.groups[job.key] = Group(job.key, now)
        heappush(group.heap, (job.priority, job.number, job))
        group.items += job.items
        lane.ready += 1
        job.stage = READY
        job.ready = now

    def _waiting(self) -> Iterator[Job]:
        for lane in self._active:
            yield from lane

    def __repr__(self) -> str:
        lanes = self.lanes
        return (
            f"<Batcher [{len(lanes)} models | {sum(len(lane.raw) for lane in lanes)} to decode, "
            f"{sum(lane.decoding for lane in lanes)} decoding, {sum(lane.ready for lane in lanes)} ready, "
            f"{sum(lane.running for lane in lanes)} running]>"
        )


def _take_out(heap: Heap, job: Job) -> None:
    heap.remove((job.priority, job.number, job))
    heapify(heap)
