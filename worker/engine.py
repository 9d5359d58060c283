"""The shell around the batcher, as the event loop sees it: who is let in, and the way to the threads and back.

The event loop never decodes, and infers only what takes less than a wake-up of a thread (docs/decisions/0021), so health
checks and heartbeats answer while the models are busy. What comes within one turn of the loop is handed over together, and
what goes back comes in one piece: a wake-up of a thread, or of the loop, costs more than all the rest that is done here for
a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import call
from .crew import Crew, late
from .errors import BadRequest, DeadlineExceeded, ModelError, NotFound, NotReady, Overloaded, WorkerError
from .guard import Guard
from .image import ImageLimits
from .lane import Batching, Job, Lane
from .metrics import BACKEND, CANCELED, INPUT, OTHER, REJECTED, TIMEOUT, Counts, Metrics
from .request import Answer as Answer
from .request import Request, Served
from .trial import prepare
from .tuning import read_wish

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import Model
    from .tensor import Signature
    from .tuning import Plan

log = logging.getLogger("fairway.worker")

AT_ONCE = 250e-6  # seconds: a request that is alone and takes no longer is answered by the loop itself
FAR = 20  # so many times as long: it is left to the threads at once, not STEP by STEP
STEP = 0.02  # by which what a call takes is corrected with each one
STEADY = 0.95  # how much of what was known of the rate stays with each further answer
HANGS = "a call of a model hangs; the worker is about to be replaced"


class Engine:
    """`waiting`: requests taken and not yet answered, `max_waiting` of them at most. Lives in one event loop."""

    def __init__(
        self,
        limits: ImageLimits,
        threads: int,
        max_waiting: int,
        *,
        hang_seconds: float = 60.0,
        batching: str = "auto",
    ) -> None:
        self.limits, self.max_waiting, self.hang_seconds = limits, max_waiting, hang_seconds
        self.waiting = 0
        self.draining = False
        self.metrics = Metrics()
        self._wish = read_wish(batching)
        self._served: dict[Model, Served] = {}
        self._crew = Crew(limits, threads, self._tell)
        self._arrived: list[Job] = []  # in this turn of the loop
        self._told = False  # the loop will look at what came back
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hung: asyncio.Event | None = None
        self._closed = False
        self._guard: Guard | None = None
        self._timer: asyncio.TimerHandle | None = None  # for the earliest deadline
        self._timer_at = inf
        self._watch: asyncio.TimerHandle | None = None
        self._per_answer = 0.0  # seconds, while there was work
        self._last = 0.0  # when the last answer came, or the first request after a rest

    # -- what others see --------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """No call hangs, and all threads live."""
        return not self._closed and (self._hung is None or (not self._hung.is_set() and self._crew.whole))

    @property
    def ready(self) -> bool:
        return bool(self._served) and not self.draining and self.alive

    def load(self) -> tuple[int, int, float]:
        """Requests in flight, those of them that wait, and the share of what may be held."""
        return self.waiting, max(0, self.waiting - self._crew.busy), self.waiting / self.max_waiting

    def describe(self, model: Model) -> dict[str, Any]:
        """How its items come together in calls, and what was measured: fit for JSON."""
        return dict(model.report.get("batching", {}))

    def overloaded(self, held: int) -> Overloaded:
        """What is said to one who finds `held` requests before it, which is too many."""
        # Until those are answered that wait already: there is room sooner, but others want it as well.
        wait = max(1.0, held * self._per_answer)
        return Overloaded(f"{held} requests are waiting already; try again in {wait:.0f} s, or elsewhere", held, wait)

    async def hung(self) -> None:
        """Returns when a call of a model hangs: then the process should end, and another take its place."""
        await self._begun().wait()

    # -- models -----------------------------------------------------------------------------------------------------

    async def add(self, model: Model) -> None:
        """Tries it, measures it, warms it up. Then it may be used. Raises ConfigurationError if it fails."""
        self._begun()
        threads = len(self._crew.members)
        plan = await prepare(
            model,
            self.limits,
            model.wish or self._wish,
            threads,
            hang_seconds=self.hang_seconds,
            calm=(lambda: not self.waiting) if self._served else None,
            known=self._plan_like(model),
        )
        model.report["batching"] = plan.report
        log.info("%s: %s", model, plan)
        lane = Lane(
            f"{model.name}/{model.version}",
            plan.streams,
            fused=not plan.batching.merge and plan.streams >= threads,
            wide=plan.wide,
            widens=plan.widens,
            gather=plan.gather,
        )
        batchings = {name: _fitted(plan.batching, s) for name, s in model.loaded.signatures.items()}
        self._crew.add(lane)
        served = Served(model, plan, lane, batchings, self.metrics.of(model.name, model.version))
        if served.even and self.hang_seconds and self._guard is None:
            self._guard = Guard(self._crew.host, self.hang_seconds)
            self._guard.start()
        self._served[model] = served

    async def remove(self, model: Model) -> None:
        """Waits for its requests, and closes it."""
        served = self._served.get(model)
        if served is None:
            return
        assert self._loop is not None
        while served.open:
            served.emptied = served.emptied or self._loop.create_future()
            await asyncio.shield(served.emptied)
        if self._served.pop(model, None) is None:
            return
        self._crew.remove(served.lane)
        self.metrics.left(model.name, model.version)
        await asyncio.to_thread(model.loaded.close)

    def _plan_like(self, model: Model) -> Plan | None:
        """That of a version of the same model, run by the same runtime on inputs of the same shapes."""
        signature = model.loaded.signatures[model.loaded.default]
        for served in self._served.values():
            loaded = served.model.loaded
            if served.model.name == model.name and loaded.runtime == model.loaded.runtime:
                same = served.signature.inputs, served.signature.batch, loaded.streams
                if same == (signature.inputs, signature.batch, model.loaded.streams):
                    return served.plan
        return None

    # -- requests ---------------------------------------------------------------------------------------------------

    async def classify(
        self,
        model: Model,
        uploads: Sequence[bytes | memoryview],
        deadline: float | None = None,
        priority: int = 0,
    ) -> Answer:
        """Image files -> `scores`, (uploads, classes) float32. Raises WorkerError's children.

        `deadline`: in `time.monotonic` seconds. `priority`: the lower, the sooner.
        """
        served = self._admitted(model, deadline)
        if model.card is None or not uploads:
            served.counts.failed(INPUT)
            if uploads:
                raise BadRequest(f"{model.name} takes tensors, not pictures: {model.reason or 'it has no model card'}")
            raise BadRequest("there is no picture in the request; expected at least one")
        assert self._loop is not None
        until = inf if deadline is None else deadline
        signature = served.signature
        request = Request(served, signature, until, self._loop.create_future(), pictures=True, stacked=True)
        batching = served.batchings[signature.name]
        if model.card.input.kind == "raw":  # nothing to decode: it need not pass through a thread of its own
            found = [call.raw(model, signature, upload) for upload in uploads]
            request.jobs = [
                Job(
                    served.lane, batching, 1, key=call.key(signature, piece, True), deadline=until, priority=priority,
                    owner=request, value=(piece, place),
                )
                for place, piece in enumerate(found)
            ]  # fmt: skip
        else:
            request.jobs = [
                Job(
                    served.lane, batching, 1, encoded=True, deadline=until, priority=priority, owner=request,
                    value=(upload, place),
                )
                for place, upload in enumerate(uploads)
            ]  # fmt: skip
        return await self._answered(request)

    async def infer(
        self,
        model: Model,
        inputs: Mapping[str, NDArray[Any]],
        signature: str = "",
        deadline: float | None = None,
        priority: int = 0,
    ) -> Answer:
        """Arrays for all inputs of the signature -> arrays of all its outputs. Raises WorkerError's children."""
        served = self._admitted(model, deadline)
        meant = served.signature
        try:
            if signature and signature != meant.name:
                known = model.loaded.signatures.get(signature)
                if known is None:
                    names = ", ".join(model.loaded.signatures)
                    raise NotFound(f"{model.name} has no signature {signature!r}; it has {names}")
                meant = known
            arrays, items, stacked = call.fitting(meant, inputs)
        except WorkerError:
            served.counts.failed(INPUT)
            raise
        assert self._loop is not None
        until = inf if deadline is None else deadline
        request = Request(served, meant, until, self._loop.create_future(), pictures=False, stacked=stacked)
        batching = served.batchings[meant.name]
        key = call.key(meant, arrays, False)
        parts = batching.parts(items)
        pieces = call.pieces(meant, arrays, parts, stacked)
        request.jobs = [
            Job(
                served.lane, batching, number, key=key, deadline=until, priority=priority, owner=request,
                value=(piece, place),
            )
            for place, (number, piece) in enumerate(zip(parts, pieces, strict=True))
        ]  # fmt: skip
        return await self._answered(request)

    def _admitted(self, model: Model, deadline: float | None) -> Served:
        served = self._served.get(model)
        if served is None:
            raise NotReady(f"{model.name} version {model.version} is not served: it is loading, or was taken out")
        if self._closed or (self._hung is not None and self._hung.is_set()):
            served.counts.failed(REJECTED)
            raise NotReady(HANGS)
        if self.waiting >= self.max_waiting:
            served.counts.failed(REJECTED)
            raise self.overloaded(self.waiting)
        if deadline is not None and deadline <= monotonic():
            served.counts.failed(TIMEOUT)
            raise late()
        return served

    async def _answered(self, request: Request) -> Answer:
        served = request.served
        request.left = len(request.jobs)
        request.answers = [None] * request.left
        if not self.waiting:
            self._last = monotonic()
        self.waiting += 1
        served.counts.pending += 1
        served.open.add(request)
        if not self._arrived:
            assert self._loop is not None
            self._loop.call_soon(self._hand_over)
        self._arrived += request.jobs
        if request.deadline < self._timer_at:
            self._expect(request.deadline)
        try:
            return await request.future
        except BaseException as error:
            served.counts.failed(_reason(error))
            raise
        finally:
            self.waiting -= 1
            served.counts.pending -= 1
            served.open.discard(request)
            if not request.over:  # its caller went away
                self._crew.forget(request)
            request.jobs = []  # they know it as well: what they hold would otherwise wait for the collector
            if served.emptied is not None and not served.open:
                served.emptied.set_result(None)
                served.emptied = None

    # -- in the event loop ------------------------------------------------------------------------------------------

    def _begun(self) -> asyncio.Event:
        """The first time: the threads start, and the watch over them."""
        if self._hung is None:
            self._loop = asyncio.get_running_loop()
            self._hung = asyncio.Event()
            self._crew.start()
            self._look_after()
        return self._hung

    def _hand_over(self) -> None:
        arrived, self._arrived = self._arrived, []
        if len(arrived) == 1:
            (job,) = arrived
            served = job.owner.served
            if (
                served.even
                and not job.encoded
                and job.owner.signature is served.signature  # of others nothing was measured
                and job.batching.padded(job.items) * served.seconds <= AT_ONCE
            ):
                began = monotonic()
                if self._crew.at_once(job):
                    took = monotonic() - began
                    if took > FAR * AT_ONCE:
                        served.seconds = took  # should it have been others' doing, STEP by STEP it comes back
                    self._deliver()
                    return
        self._crew.put(arrived)

    def _tell(self) -> None:
        """Called by the threads."""
        if not self._told:
            self._told = True
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed, and nobody waits for an answer
                pass

    def _deliver(self) -> None:
        self._told = False
        events, answers = self._crew.events, 0
        while events:
            subject, found = events.popleft()
            if isinstance(subject, Counts):
                subject.called(found)  # type: ignore[arg-type]
            elif not subject.future.done():
                if isinstance(found, Answer):
                    answers += 1
                    served = subject.served
                    if found.batch == 1 and len(subject.answers) == 1 and subject.signature is served.signature:
                        # Towards the median: what once took long, took others' time.
                        expected = served.seconds * subject.jobs[0].batching.padded(1)
                        served.seconds *= 1 + STEP if found.infer > expected else 1 - STEP
                    subject.future.set_result(found)
                    subject.served.counts.answered(found.queue, found.decode, found.infer)
                else:
                    subject.future.set_exception(found)  # type: ignore[arg-type]
        if answers:
            now = monotonic()
            weight = STEADY**answers if self._per_answer else 0.0
            self._per_answer = weight * self._per_answer + (1 - weight) * (now - self._last) / answers
            self._last = now

    def _expect(self, deadline: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Who has waited until its deadline is told so, whatever the model does."""
        self._timer, self._timer_at = None, inf
        now, earliest = monotonic(), inf
        for served in self._served.values():
            for request in served.open:
                if request.deadline > now:
                    earliest = min(earliest, request.deadline)
                elif not request.future.done():
                    self._crew.forget(request)
                    request.future.set_exception(late())
        if earliest < inf:
            self._expect(earliest)

    def _look_after(self) -> None:
        assert self._loop is not None
        assert self._hung is not None
        seconds = self.hang_seconds or inf
        trouble = self._crew.hanging(monotonic(), seconds) or ("" if self._crew.whole else "a thread has died")
        if trouble:
            log.error("the worker hangs: %s", trouble)
            self._hung.set()
            self._give_up(HANGS)
        else:
            self._watch = self._loop.call_later(min(1.0, seconds / 4), self._look_after)

    def _give_up(self, why: str) -> None:
        for served in self._served.values():
            for request in served.open:
                if not request.future.done():
                    self._crew.forget(request)
                    request.future.set_exception(NotReady(why))

    def close(self) -> None:
        """Whoever still waits is told so. A call that hangs is left to itself."""
        if self._closed:
            return
        self._closed = True
        if self._guard is not None:
            self._guard.dismiss()
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._give_up("the worker has stopped")
        self._crew.close()

    def __repr__(self) -> str:
        state = "hung" if not self.alive else "draining" if self.draining else "ready" if self.ready else "loading"
        names = ", ".join(served.lane.name for served in self._served.values()) or "no model"
        return f"<Engine {names} [{state} | {self.waiting} waiting of {self.max_waiting}]>"


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return CANCELED
    if isinstance(error, DeadlineExceeded):
        return TIMEOUT
    if isinstance(error, ModelError):
        return BACKEND
    if isinstance(error, NotReady):
        return REJECTED
    return INPUT if isinstance(error, WorkerError) and error.status < 500 else OTHER


def _fitted(batching: Batching, signature: Signature) -> Batching:
    """For a signature whose calls have a number of items of their own."""
    if signature.batch is None:
        return Batching(1)
    if signature.batch:
        return Batching(signature.batch, signature.batch > 1, batching.wait, (signature.batch,))
    return batching
