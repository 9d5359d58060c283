"""What is done with a model before it is served: it answers a plain request, is measured, and warmed up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from . import call
from .errors import ConfigurationError, WorkerError
from .measuring import SIZES, measure
from .sample import closed, repeated, sample
from .tuning import Plan, Wish, decide, unmeasured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image import ImageLimits
    from .model import Model

CALM_SECONDS = 0.2  # that a call waits at most for a moment in which nobody else is served
LOOK_SECONDS = 0.002


@dataclass(slots=True)
class _Call:
    """Since when the model has been called; 0: it is not."""

    since: float = 0.0


async def prepare(
    model: Model,
    limits: ImageLimits,
    wish: Wish,
    threads: int,
    *,
    hang_seconds: float = 0.0,
    calm: Callable[[], bool] | None = None,
    known: Plan | None = None,
) -> Plan:
    """How it is to be served. In a thread of its own; a call that hangs is left to it. Raises ConfigurationError.

    `calm`: others are served meanwhile; says whether they are at rest just now. `known`: of a version of the same model
    that is served already: what was decided then goes for this one, too; what a call takes is its own.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Plan] = loop.create_future()
    running = _Call()

    def settle(plan: Plan | None, error: BaseException | None) -> None:
        if done.done():
            return
        if plan is not None:
            done.set_result(plan)
        elif error is not None:
            done.set_exception(error)

    def work() -> None:
        plan, failure = None, None
        try:
            plan = _tried(model, limits, wish, threads, calm, known, running)
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, plan, failure)
        except RuntimeError:  # the loop is closed
            pass

    threading.Thread(target=work, name="trial", daemon=True).start()
    while True:
        finished, _ = await asyncio.wait((done,), timeout=min(1.0, hang_seconds / 4) if hang_seconds else None)
        if finished:
            return done.result()
        if running.since and monotonic() - running.since > hang_seconds:
            raise ConfigurationError(f"{model.name}: its first calls hang: one did not end in {hang_seconds:g} s")


def _tried(
    model: Model,
    limits: ImageLimits,
    wish: Wish,
    threads: int,
    calm: Callable[[], bool] | None,
    known: Plan | None,
    running: _Call,
) -> Plan:
    signature = model.loaded.signatures[model.loaded.default]
    streams = max(1, min(model.loaded.streams, threads))
    item = sample(model, limits)
    if item is None:
        return unmeasured(wish, streams)
    prepared: dict[int, dict[str, NDArray[Any]]] = {}
    found: dict[str, NDArray[Any]] = {}
    warm: set[tuple[int, bool]] = set()

    def once(size: int, wide: bool) -> None:
        if size not in prepared:
            prepared[size] = repeated(item, signature, size)
        running.since = monotonic()
        try:
            found.update(call.run(model, signature, [prepared[size]], [size], size, wide)[0])
        finally:
            running.since = 0.0
        warm.add((size, wide))

    one = signature.batch or 1
    sizes: tuple[int, ...] = SIZES if signature.batch == 0 else (one,)
    at_ease = _at_ease(calm) if calm is not None else None
    try:
        once(one, False)
        if model.card is not None:
            _check(model, found, one)
        if known is not None and wish.mode == "auto":
            if at_ease is not None:
                at_ease()
            began = monotonic()  # it may compute something else altogether
            once(one, False)
            seconds = (monotonic() - began) / one
            plan = replace(known, report={**known.report, "why": "as the version before"}, seconds=seconds)
        else:
            if wish.mode == "off":
                sizes = (one,)
            elif wish.mode == "given" and signature.batch == 0:
                sizes = tuple(sorted({1, wish.batching.most, *(n for n in SIZES if n < wish.batching.most)}))
            plan = decide(measure(once, sizes, streams, calm=at_ease), wish)
        for size, wide in sorted(_will_be_called(plan, one) - warm):
            if at_ease is not None:
                at_ease()
            once(size, wide)
    except WorkerError as error:
        what = "a plain picture" if model.card is not None else "zeros"
        raise ConfigurationError(f"{model.name} fails on {what}: {error}") from error
    return plan if closed(signature) else replace(plan, seconds=inf)


def _check(model: Model, outputs: dict[str, NDArray[Any]], items: int) -> None:
    """Raises ConfigurationError where labels and scores do not fit together, ModelError where there are no scores."""
    assert model.card is not None
    labels, scores = len(model.card.labels), outputs.get(model.scores)
    if scores is not None and scores.size != items * labels:
        raise ConfigurationError(f"{model.name} has {scores.size // items} outputs, but there are {labels} labels")
    call.scores_of(model, outputs, items)


def _will_be_called(plan: Plan, one: int) -> set[tuple[int, bool]]:
    """Sizes, and whether on all cores: those that are met first of all, and all that calls are padded up to."""
    batching = plan.batching
    sizes = batching.sizes or (one, min(batching.most or one, SIZES[-1]))
    return {(size, plan.wide) for size in sizes} | ({(sizes[0], True)} if plan.widens else set())


def _at_ease(calm: Callable[[], bool]) -> Callable[[], None]:
    """Waits for a moment in which nobody is served; not for ever, as there may be none."""

    def wait() -> None:
        until = monotonic() + CALM_SECONDS
        while not calm() and monotonic() < until:
            sleep(LOOK_SECONDS)

    return wait
