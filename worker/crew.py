"""The threads that decode and infer: each takes the next work from the batcher, and says what came of it.

One lock for all: whoever holds it neither decodes nor infers, nor waits for anything but a wake-up.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import call, image
from .batcher import Batcher, Work
from .errors import DeadlineExceeded, ModelError, WorkerError
from .metrics import Counts
from .request import Answer, Request

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image import ImageLimits
    from .lane import Job, Lane

log = logging.getLogger("fairway.worker")

LAST_SECONDS = 2.0  # that threads may take to end

# What came of it: a request's answer or error, or the items of a call, for its model's counts.
Event = tuple[Request, Answer | WorkerError] | tuple[Counts, int]


class Member(threading.Thread):
    """`since`: when it began `doing` what it does now; 0: it waits for work."""

    def __init__(self, crew: Crew, number: int) -> None:
        super().__init__(target=crew._work, args=(self,), name=f"crew-{number}", daemon=True)
        self.since = 0.0
        self.doing: Work | None = None


class Crew:
    """`host`: what a thread that is no member does in `at_once`.

    `tell` is called in a thread when there are `events`; they are taken from the left, by one reader."""

    def __init__(self, limits: ImageLimits, threads: int, tell: Callable[[], None]) -> None:
        self._limits, self._tell = limits, tell
        self.events: deque[Event] = deque()
        self._batcher = Batcher()
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._idle = self._woken = 0  # members that wait, and those of them that were told to go on
        self._closed = False
        self.members = [Member(self, number) for number in range(max(1, threads))]
        self.host = Member(self, -1)  # never started: whoever calls has a thread

    def start(self) -> None:
        for member in self.members:
            member.start()

    @property
    def whole(self) -> bool:
        """Nobody has died."""
        return all(member.is_alive() for member in self.members)

    @property
    def busy(self) -> int:
        return len(self.members) - self._idle

    def hanging(self, now: float, seconds: float) -> str:
        """What has taken longer than that; empty if nothing."""
        for member in self.members:  # `host` is the loop's own thread, and would not get here: see guard.py
            since, doing = member.since, member.doing
            if since and doing and now - since > seconds:
                return f"{doing} takes {now - since:.1f} s"
        return ""

    def add(self, lane: Lane) -> None:
        with self._lock:
            self._batcher.add(lane)

    def remove(self, lane: Lane) -> None:
        with self._lock:
            self._batcher.remove(lane)

    def put(self, jobs: list[Job]) -> None:
        now = monotonic()
        batcher = self._batcher
        with self._lock:
            for job in jobs:
                batcher.put(job, now)
            self._wake(batcher.due(now) or batcher.until() < inf)

    def at_once(self, job: Job) -> bool:
        """Runs it here and now, if nobody is at work and nobody waits; its answer is then among the events.

        False: it was not taken. A job that may not run yet is left to the members.
        """
        now, batcher, host = monotonic(), self._batcher, self.host
        with self._lock:
            if batcher.jobs or self._closed:
                return False
            batcher.put(job, now)
            work = batcher.take(now)
            if work is None:
                self._wake(1)
                return True
            host.doing, host.since = work, now
        try:
            self._do(work, now)
        finally:
            with self._lock:
                host.doing, host.since = None, 0.0
                if work.run:
                    batcher.done(work)
                self._wake(batcher.due(now))
        return True

    def forget(self, request: Request) -> None:
        """Its pieces are not run, as far as they have not begun."""
        with self._lock:
            request.over = True
            for job in request.jobs:
                self._batcher.drop(job)

    def close(self) -> None:
        """A call that hangs is left to itself."""
        with self._lock:
            self._closed = True
            self._free.notify_all()
        until = monotonic() + LAST_SECONDS
        for member in self.members:
            if member.ident is not None:
                member.join(max(0.0, until - monotonic()))

    def _wake(self, wanted: int) -> None:
        """With the lock held. Those that are awake already look for more when they are done."""
        number = min(self._idle - self._woken, wanted)
        if number > 0:
            self._woken += number
            self._free.notify(number)

    def _work(self, member: Member) -> None:
        batcher, lock = self._batcher, self._lock
        with lock:
            while not self._closed:
                now = monotonic()
                work = batcher.take(now)
                if batcher.expired:
                    for job in batcher.expired:
                        self.events.append((job.owner, late()))
                    batcher.expired.clear()
                    self._tell()
                if work is None:
                    until = batcher.until()
                    self._idle += 1
                    self._free.wait(None if until == inf else max(0.0, until - now))
                    self._idle -= 1
                    if self._woken:
                        self._woken -= 1
                    continue
                member.doing, member.since = work, now
                lock.release()
                try:
                    self._do(work, now)
                finally:
                    lock.acquire()
                    member.doing, member.since = None, 0.0
                    if work.run:
                        batcher.done(work)
                    # Not before: whoever is answered may ask again, and is then alone.
                    if self.events:
                        self._tell()
                    self._wake(batcher.due(now) - 1)

    def _do(self, work: Work, now: float) -> None:
        try:
            if work.run:
                self._run(work, now)
            else:
                self._decode(work.jobs[0], now)
        except Exception:
            log.exception("%r failed", work)
            self._fail(work.jobs, ModelError("the worker failed; its log says why"))

    def _decode(self, job: Job, now: float) -> None:
        request: Request = job.owner
        request.queue = max(request.queue, now - job.queued)
        key: Any = None
        try:
            arrays = self._decoded(job)
            key = call.key(request.signature, arrays, True)
        except WorkerError as error:
            self._fail([job], error)
        finally:
            with self._lock:
                if key is None:
                    self._batcher.undecodable(job)
                else:
                    self._batcher.decoded(job, key, monotonic())

    def _decoded(self, job: Job) -> dict[str, NDArray[Any]]:
        """An upload as one item: in place of the upload, which is not needed any more."""
        started = monotonic()
        request: Request = job.owner
        model = request.served.model
        upload, place = job.value
        assert model.card is not None
        data = upload if type(upload) is bytes else bytes(upload)
        item = image.to_item(data, model.card.input, self._limits)
        arrays = {model.image_input: item if request.signature.batch is None else item[None]}
        job.value = arrays, place
        job.encoded = False
        request.decode = max(request.decode, monotonic() - started)
        return arrays

    def _run(self, work: Work, now: float) -> None:
        jobs = work.jobs
        for job in jobs:
            request: Request = job.owner
            # What was decoded before has waited twice.
            waited = now - job.queued - (request.decode if job.ready > job.queued else 0.0)
            if waited > request.queue:
                request.queue = waited
        if jobs[0].encoded:  # of a fused lane, and so alone
            try:
                self._decoded(jobs[0])
            except WorkerError as error:
                self._fail(jobs, error)
                return
            if jobs[0].owner.over:
                return
            now = monotonic()
        try:
            found = self._call(jobs, work.items, work.size, work.wide)
        except WorkerError as error:
            if len(jobs) == 1:
                self._fail(jobs, error)
                return
        else:
            self._succeed(jobs, found, work.items, monotonic() - now)
            return
        # One of them may have spoilt it for the others.
        for job in jobs:
            if job.owner.over:
                continue
            now = monotonic()
            try:
                found = self._call([job], job.items, job.batching.padded(job.items), False)
            except WorkerError as error:
                self._fail([job], error)
            else:
                self._succeed([job], found, job.items, monotonic() - now)
            self._tell()

    def _call(self, jobs: list[Job], items: int, size: int, wide: bool) -> list[dict[str, NDArray[Any]]]:
        request: Request = jobs[0].owner
        served = request.served
        self.events.append((served.counts, items))
        pieces, counts = [job.value[0] for job in jobs], [job.items for job in jobs]
        return call.run(served.model, request.signature, pieces, counts, size, wide, request.pictures)

    def _succeed(self, jobs: list[Job], found: list[dict[str, NDArray[Any]]], items: int, seconds: float) -> None:
        for job, outputs in zip(jobs, found, strict=True):
            request: Request = job.owner
            if request.over:
                continue
            request.infer = max(request.infer, seconds)
            request.batch = max(request.batch, items)
            request.answers[job.value[1]] = outputs
            if len(request.answers) > 1:
                with self._lock:
                    request.left -= 1
                    if request.left:
                        continue
            try:
                answer: Answer | WorkerError = request.answer()
            except WorkerError as error:
                answer = error
            request.over = True
            self.events.append((request, answer))

    def _fail(self, jobs: list[Job], error: WorkerError) -> None:
        """The requests that these are of; their other pieces are not wanted any more."""
        for job in jobs:
            request: Request = job.owner
            if not request.over:
                self.forget(request)
                self.events.append((request, error))

    def __repr__(self) -> str:
        with self._lock:
            return f"<Crew [{self.busy} of {len(self.members)} busy] of {self._batcher!r}>"


def late() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time was over before the model had answered")
