"""How a model's items come together in calls: what the user says, or else what is measured when the model is added.

Where a call's cost grows with its items, batches do not pay: then several calls of one item run side by side. Where most of
a call's cost is there anyway, they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from .errors import ConfigurationError
from .lane import Batching

SIZES = (1, 2, 4, 8, 16, 32)
OWN_SECONDS = 25e-6  # what a call costs in the engine itself, in Python, one call at a time
PAYS = 1.15  # so many times the items a second make it worth that an item waits for others
ENOUGH = 0.9  # of the most items a second: a smaller call that gets there is better
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

    `beside`: items a second of `streams` calls of one item side by side. `odd`: whether a size never seen before costs a
    stumble.
    """

    streams: int = 1
    narrow: dict[int, float] = field(default_factory=dict)
    wide: dict[int, float] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    beside: float = 0.0
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


def decide(figures: Figures, wish: Wish) -> Plan:
    """Streams of one item, or batches: what gave more items a second here, if the user does not say."""
    narrow, wide = figures.narrow, figures.wide
    one = min(narrow)  # the smallest call there is
    widens = one in wide and wide[one] < ENOUGH * narrow[one]
    gather = min(MOST_GATHER, narrow[one])
    side = figures.beside * narrow[one] / one if figures.beside else 1.0  # so many times one core the streams reach
    alone = _rate(one, narrow[one], side)
    ways = [(_rate(n, cost, 1.0), n, 1, True) for n, cost in wide.items() if n > one]
    ways += [(_rate(n, cost, side), n, figures.streams, False) for n, cost in narrow.items() if n > one]
    best = max((way[0] for way in ways), default=0.0)
    report: dict[str, Any] = {
        "ms_on_one_core": {str(n): round(cost * 1000, 3) for n, cost in narrow.items()},
        "ms_on_all_cores": {str(n): round(cost * 1000, 3) for n, cost in wide.items()},
        "items_per_second": {f"calls of {one}": round(alone)}
        | {f"{'wide ' if w else ''}batches of {n}": round(rate) for rate, n, _, w in ways},
    }
    if wish.mode == "given" and wish.batching.merge:
        _, _, streams, all_cores = max(
            (way for way in ways if way[1] <= wish.batching.most), default=(0.0, one, figures.streams, False)
        )
        plan = Plan(wish.batching, streams, all_cores, widens, gather)
        return replace(plan, report={"mode": "batches", "why": "as told", **_said(plan), **report})
    if wish.mode != "auto":
        plan = Plan(replace(wish.batching, most=0, merge=False), figures.streams, False, widens, gather)
        return replace(plan, report={"mode": "streams", "why": "as told", **_said(plan), **report})
    if best > PAYS * alone:
        _, most, streams, all_cores = min((way for way in ways if way[0] >= ENOUGH * best), key=lambda way: way[1])
        sizes = tuple(n for n in narrow if n <= most) if figures.odd else ()
        plan = Plan(Batching(most, True, 0.0, sizes), streams, all_cores, widens, gather)
        why = f"{best / alone:.1f} times the items a second"
        return replace(plan, report={"mode": "batches", "why": why, **_said(plan), **report})
    # What comes as one request is cut where larger calls gain nothing: then all cores have a share in it.
    per_item = {n: cost / n for n, cost in narrow.items()}
    most = min(n for n, cost in per_item.items() if cost * ENOUGH <= min(per_item.values()))
    plan = Plan(Batching(most, False, 0.0, ()), figures.streams, False, widens, gather)
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
    call: Call, sizes: tuple[int, ...], streams: int, *, seconds: float = 2.0, calm: Callable[[], None] | None = None
) -> Figures:
    """Calls the model, each size warmed first, for about `seconds`; the smallest of a few times counts.

    `calm`: others are served meanwhile: it is called before each call, and returns at a good moment; then there are fewer
    calls, none of them on all cores, and none side by side.
    """
    figures = Figures(streams)
    started = perf_counter()
    share = seconds / (3 * len(sizes))
    for size in sizes:
        if figures.narrow:
            seen, cost = max(figures.narrow.items())
            if perf_counter() - started + 4 * cost * size / seen > seconds or (calm and cost * size / seen > 0.05):
                break
        figures.first[size] = _timed(call, size, False, calm)
        figures.narrow[size] = _best(call, size, False, share, calm)
        if calm is None or size == sizes[0]:
            _timed(call, size, True, calm)
            cost = _best(call, size, True, share, calm)
            if calm is None:
                figures.wide[size] = cost
    most = max(figures.narrow)
    if most > 4:  # 3 was never called: does it stumble?
        usual = figures.narrow[4]
        figures.odd = _timed(call, 3, False, calm) > max(ODD_COST * usual, usual + ODD_SECONDS)
    if streams > 1 and calm is None:
        one = sizes[0]
        figures.beside = _side_by_side(call, one, streams, min(0.3, max(0.05, 8 * figures.narrow[one])))
    return figures


def _timed(call: Call, size: int, wide: bool, calm: Callable[[], None] | None) -> float:
    if calm is not None:
        calm()
    started = perf_counter()
    call(size, wide)
    return perf_counter() - started


def _best(call: Call, size: int, wide: bool, share: float, calm: Callable[[], None] | None) -> float:
    until = perf_counter() + share
    best = _timed(call, size, wide, calm)
    for _ in range(1 if calm else 7):
        if perf_counter() > until:
            break
        best = min(best, _timed(call, size, wide, calm))
    return best


def _side_by_side(call: Call, size: int, streams: int, seconds: float) -> float:
    """Items a second of that many threads. What one of them raises is raised here."""
    done = [0] * streams
    failed: list[BaseException] = []
    until = perf_counter() + seconds

    def loop(i: int) -> None:
        try:
            while perf_counter() < until:
                call(size, False)
                done[i] += 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop, args=(i,), name="measure") for i in range(streams)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return size * sum(done) / (perf_counter() - started)
