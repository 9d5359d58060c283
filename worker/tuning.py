"""How a model's items come together in calls: what the user says, or else what is measured when the model is added.

Where a call's cost grows with its items, batches do not pay: then several calls of one item run side by side. Where most of
a call's cost is there anyway, they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter, process_time, thread_time
from typing import Any

from .errors import ConfigurationError
from .lane import Batching

SIZES = (1, 2, 4, 8, 16, 32)
OWN_SECONDS = 25e-6  # what a call costs in the engine itself, in Python, one call at a time
DOUBT = 1.15  # so many times as good has one call at a time to be as several side by side
PAYS = 1.25  # so many times the items a second make it worth that an item waits for others
ENOUGH = 0.9  # of the most items a second: a smaller call that gets there is better
LOOK = 4  # items in the call that shows whether larger ones are worth measuring
GAIN = 1.05  # so many times the items a second make them so
REPEAT = 4
ROUNDS = 4
CLEAR = 0.75  # of what several calls side by side could give at best, there is nothing to doubt
COMPUTES = 0.2  # of its time a call keeps a processor busy, or else waits for something else
MOST_BESIDE = 0.05  # seconds of a call that is made while others are served
ODD_COST = 3.0  # so many times the usual makes the first call of a new size a stumble
ODD_SECONDS = 0.02
MOST_GATHER = 0.02  # seconds


@dataclass(frozen=True)
class Wish:
    """The setting `batching`, read. `auto`: measured; `off`: requests are run as they come; else `batching` as said."""

    mode: str
    batching: Batching = Batching()


def read_wish(text: str) -> Wish:
    """`auto`, `off`, or `max=32,wait_ms=2,sizes=1:8:32`. Raises ConfigurationError."""
    if text in ("auto", "off"):
        return Wish(text)
    most, wait = None, 0.0
    sizes: tuple[int, ...] = ()
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        try:
            if not equals:
                raise ValueError
            if name == "max":
                most = int(value)
            elif name == "wait_ms":
                wait = float(value) / 1000
            elif name == "sizes":
                sizes = tuple(sorted({int(size) for size in value.split(":")}))
            else:
                raise ValueError
        except ValueError:
            raise ConfigurationError(
                f"--batching: {part.strip()!r} in {text!r}; expected auto, off, or e.g. max=32,wait_ms=2,sizes=1:8:32"
            ) from None
    largest = sizes[-1] if sizes else 32
    most = largest if most is None else most
    if most < 1 or (sizes and sizes[0] < 1) or not 0 <= wait <= 60:
        raise ConfigurationError(f"--batching {text}: max is at least 1, sizes as well, and a wait is 0 to 60000 ms")
    if sizes and most != largest:
        raise ConfigurationError(f"--batching {text}: max is {most}, but the largest of the sizes is {largest}")
    return Wish("given", Batching(most, most > 1, wait, sizes))


@dataclass
class Figures:
    """What was measured, in seconds a call. `narrow`: on one core; `wide`: on all; `first`: the first call of that size.

    `side`: so many times as much as one call at a time give `streams` of them side by side. `odd`: whether a size that was
    never seen before costs a stumble.
    """

    streams: int = 1
    narrow: dict[int, float] = field(default_factory=dict)
    wide: dict[int, float] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    side: float = 1.0
    odd: bool = False


@dataclass(frozen=True)
class Plan:
    """What was decided. `streams`: calls at once; `wide`, `widens`, `gather`: as of a Lane. `report`: for people, JSON."""

    batching: Batching
    streams: int
    wide: bool = False
    widens: bool = True
    gather: float = 0.005
    report: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        calls = f"batches of up to {self.batching.most}" if self.batching.merge else "calls as they come"
        return f"{calls}, {self.streams} at once ({self.report.get('why', 'as told')})"


@dataclass(frozen=True)
class _Way:
    """Calls of `items`, so many `streams` at once."""

    rate: float  # items a second
    items: int
    streams: int
    wide: bool

    def __str__(self) -> str:
        return f"{self.streams} x {self.items}{' on all cores' if self.wide else ''}"


def _ways(figures: Figures) -> tuple[_Way, list[_Way]]:
    """The best way to call with the fewest items, and all ways to call with more."""
    streams, one = figures.streams, min(figures.narrow)
    ways = [_Way(_rate(n, cost, figures.side), n, streams, False) for n, cost in figures.narrow.items()]
    # Of two ways that are measured differently the one with less to lose is preferred: calls side by side.
    doubt = DOUBT if streams > 1 else 1.0
    if streams > 1:
        ways += [_Way(_rate(n, cost, 1.0) / doubt, n, 1, False) for n, cost in figures.narrow.items()]
    ways += [_Way(_rate(n, cost, 1.0) / doubt, n, 1, True) for n, cost in figures.wide.items()]
    single = max((way for way in ways if way.items == one), key=lambda way: way.rate)
    return single, [way for way in ways if way.items > one]


def decide(figures: Figures, wish: Wish) -> Plan:
    """Streams of one item, or batches: what gave more items a second here, if the user does not say."""
    narrow, wide = figures.narrow, figures.wide
    one = min(narrow)  # the smallest call there is
    widens = one in wide and wide[one] < ENOUGH * narrow[one]
    gather = min(MOST_GATHER, narrow[one])
    single, ways = _ways(figures)
    alone = single.rate
    best = max((way.rate for way in ways), default=0.0)
    report: dict[str, Any] = {
        "ms_on_one_core": {str(n): round(cost * 1000, 3) for n, cost in narrow.items()},
        "ms_on_all_cores": {str(n): round(cost * 1000, 3) for n, cost in wide.items()},
        "items_per_second": {str(way): round(way.rate) for way in (single, *ways)},
    }
    if wish.mode == "given" and wish.batching.merge:
        able = [way for way in ways if way.items <= wish.batching.most]
        way = max(able, key=lambda way: way.rate, default=single)
        plan = Plan(wish.batching, way.streams, way.wide, widens, gather)
        return replace(plan, report={"mode": "batches", "why": "as told", **_said(plan), **report})
    if wish.mode != "auto":
        plan = Plan(replace(wish.batching, most=0, merge=False), figures.streams, False, widens, gather)
        return replace(plan, report={"mode": "streams", "why": "as told", **_said(plan), **report})
    if best > PAYS * alone:
        way = min((way for way in ways if way.rate >= ENOUGH * best), key=lambda way: way.items)
        sizes = tuple(n for n in narrow if n <= way.items) if figures.odd else ()
        plan = Plan(Batching(way.items, True, 0.0, sizes), way.streams, way.wide, widens, gather)
        why = f"{best / alone:.1f} times the items a second"
        return replace(plan, report={"mode": "batches", "why": why, **_said(plan), **report})
    # What comes as one request is cut where larger calls gain nothing: then all cores have a share in it.
    per_item = {n: cost / n for n, cost in narrow.items()}
    most = min(n for n, cost in per_item.items() if cost * ENOUGH <= min(per_item.values()))
    plan = Plan(Batching(most, False, 0.0, ()), single.streams, single.wide, widens, gather)
    why = f"batches give {best / alone:.1f} times the items a second" if ways else "no batch could be measured"
    return replace(plan, report={"mode": "streams", "why": why, **_said(plan), **report})


def unmeasured(wish: Wish, streams: int) -> Plan:
    """Of a model that nobody can make up a request for: as told, or else requests as they come."""
    batching = wish.batching if wish.mode == "given" else Batching(0)
    plan = Plan(batching, streams)
    why = "as told" if wish.mode != "auto" else "not measured: nobody can tell what it takes"
    return replace(plan, report={"mode": "batches" if batching.merge else "streams", "why": why, **_said(plan)})


def _rate(items: int, seconds: float, side: float) -> float:
    return items / (seconds / side + OWN_SECONDS)


def _said(plan: Plan) -> dict[str, Any]:
    return {
        "max": plan.batching.most,
        "wait_ms": plan.batching.wait * 1000,
        "sizes": list(plan.batching.sizes),
        "streams": plan.streams,
    }


Call = Callable[[int, bool], None]  # (items, wide): one call of the model


def measure(
    call: Call, sizes: tuple[int, ...], streams: int, *, seconds: float = 1.5, calm: Callable[[], None] | None = None
) -> Figures:
    """Calls the model, each size warmed first, until it is clear what pays, or for about `seconds`.

    `sizes`: ascending. `calm`: others are served meanwhile: it is called before each call, and returns at a good moment;
    then there are fewer calls, few of them on all cores, and none side by side.
    """
    figures = Figures(streams)
    began = perf_counter()
    one = sizes[0]
    _measure(call, one, figures, calm)
    if streams > 1 and calm is None:
        figures.side = _side_by_side(call, one, streams, figures.narrow[one])
    elif streams > 1:
        figures.side = float(streams)  # not tried; batches on one core are compared without it
    first = [n for n in sizes if n == LOOK]  # where nothing is gained by that, nothing is by more
    for size in first + [n for n in sizes if n not in (one, LOOK)]:
        seen, cost = max((n, c) for n, c in figures.narrow.items() if n < size or n == one)
        expected = cost * size / seen
        if perf_counter() - began + 4 * expected > seconds or (calm and expected > MOST_BESIDE):
            continue
        _measure(call, size, figures, calm)
        if size in first:
            single, ways = _ways(figures)
            if max(way.rate for way in ways) < GAIN * single.rate:
                break
    figures.narrow = dict(sorted(figures.narrow.items()))
    figures.wide = dict(sorted(figures.wide.items()))
    if max(figures.narrow) > LOOK:
        usual = max(cost for n, cost in figures.narrow.items() if n <= LOOK)
        odd, _ = _timed(call, LOOK - 1, False, calm)  # which was never called
        figures.odd = odd > max(ODD_COST * usual, usual + ODD_SECONDS)
    return figures


def _measure(call: Call, size: int, figures: Figures, calm: Callable[[], None] | None) -> None:
    """The best of a few calls on one core, and on all.

    What others do on this machine meanwhile is left out as far as can be: where the call keeps a processor busy, the time
    that it does so counts, not the time that it waits for one.
    """
    figures.first[size], _ = _timed(call, size, False, calm)
    times = [_timed(call, size, False, calm) for _ in range(2 if calm else REPEAT)]
    wall, busy = min(wall for wall, _ in times), min(busy for _, busy in times)
    figures.narrow[size] = min(busy, wall) if busy > wall * COMPUTES else wall
    if calm is None:
        _timed(call, size, True, calm)
        figures.wide[size] = min(_timed(call, size, True, calm)[0] for _ in range(REPEAT))
    elif size == min(figures.narrow):
        _timed(call, size, True, calm)  # as it will be called when it is alone
        figures.wide[size] = min(_timed(call, size, True, calm)[0] for _ in range(2))


def _timed(call: Call, size: int, wide: bool, calm: Callable[[], None] | None) -> tuple[float, float]:
    """Seconds, and seconds of a processor; beside others, those of this thread."""
    if calm is not None:
        calm()
    clock = process_time if calm is None else thread_time
    began, busy = perf_counter(), clock()
    call(size, wide)
    return perf_counter() - began, clock() - busy


def _side_by_side(call: Call, size: int, streams: int, cost: float) -> float:
    """So many times as many calls as one thread do `streams` threads. What a call raises is raised here."""
    seconds = min(0.25, max(0.03, 5 * cost))
    side = beside = alone = 0.0
    for _ in range(ROUNDS):  # others on this machine spoil one or the other
        beside = max(beside, _calls_a_second(call, size, streams, seconds))
        alone = max(alone, _calls_a_second(call, size, 1, seconds))
        side = beside / alone
        if side > CLEAR * streams:
            break
    return side


def _calls_a_second(call: Call, size: int, streams: int, seconds: float) -> float:
    ended: list[float] = []
    failed: list[BaseException] = []
    began = perf_counter()

    def loop() -> None:
        try:
            while True:
                call(size, False)
                ended.append(perf_counter())
                if ended[-1] > began + seconds:
                    break
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop, name="measure", daemon=True) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return len(ended) / (max(ended) - began)
