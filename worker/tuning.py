"""How a model's items come together in calls: what the user says, or else what follows from measuring. Sans-io.

Where a call's cost grows with its items, batches do not pay: then several calls of one item run side by side. Where most of
a call's cost is there anyway, they do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from .errors import ConfigurationError
from .lane import Batching

OWN_SECONDS = 25e-6  # what a call costs in the engine itself, in Python, one call at a time
DOUBT = 1.15  # so many times as good has one call at a time to be as several side by side
PAYS = 1.25  # so many times the items a second make it worth that an item waits for others
ENOUGH = 0.9  # of the most items a second: a smaller call that gets there is better
MOST_GATHER = 0.02  # seconds


@dataclass(frozen=True)
class Wish:
    """The setting `batching`, read. `auto`: measured; `off`: requests are run as they come; else `batching` as said."""

    mode: str
    batching: Batching = Batching()


def wish_of(said: Any, where: str) -> Wish:
    """Of one model, from its card: what --batching takes, or the same as an object:

        {"max": 32, "wait_ms": 2, "sizes": [1, 8, 32]}

    `where` it stands: for the text of ConfigurationError.
    """
    if isinstance(said, str):
        return read_wish(said, where)
    if not isinstance(said, dict):
        raise ConfigurationError(f"{where} is {said!r:.80}; expected auto, off, or an object with max, wait_ms, sizes")
    parts = []
    for name, value in said.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in values):
            raise ConfigurationError(
                f"{where}: {name} is {value!r:.80}; expected a number, or for sizes a list of them"
            )
        parts.append(f"{name}={':'.join(map(str, values))}")
    return read_wish(",".join(parts), where)


def read_wish(text: str, where: str = "--batching") -> Wish:
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
                f"{where}: {part.strip()!r} in {text!r}; expected auto, off, or e.g. max=32,wait_ms=2,sizes=1:8:32"
            ) from None
    largest = sizes[-1] if sizes else 32
    most = largest if most is None else most
    if most < 1 or (sizes and sizes[0] < 1) or not 0 <= wait <= 60:
        raise ConfigurationError(f"{where} {text}: max is at least 1, sizes as well, and a wait is 0 to 60000 ms")
    if sizes and most != largest:
        raise ConfigurationError(f"{where} {text}: max is {most}, but the largest of the sizes is {largest}")
    return Wish("given", Batching(most, most > 1, wait, sizes))


@dataclass
class Figures:
    """What was measured, in seconds a call. `narrow`: on one core; `wide`: on all.

    `widens`: a call of the smallest size is faster on all cores. `side`: so many times as much as one call at a time give
    `streams` of them side by side. `odd`: whether a size that was never seen before costs a stumble.
    """

    streams: int = 1
    narrow: dict[int, float] = field(default_factory=dict)
    wide: dict[int, float] = field(default_factory=dict)
    side: float = 1.0
    widens: bool = False
    odd: bool = False


@dataclass(frozen=True)
class Plan:
    """What was decided. `streams`: calls at once; `wide`, `widens`, `gather`: as of a Lane. `report`: for people, JSON.

    `seconds`: what a call of one item took, on one core; inf: not measured, or an item may be of any size.
    """

    batching: Batching
    streams: int
    wide: bool = False
    widens: bool = True
    gather: float = 0.005
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = inf

    def __str__(self) -> str:
        calls = f"batches of up to {self.batching.most}" if self.batching.merge else "calls as they come"
        return f"{calls}, {self.streams} at once ({self.report.get('why', 'as told')})"


@dataclass(frozen=True)
class Way:
    """Calls of `items`, so many `streams` at once."""

    rate: float  # items a second
    items: int
    streams: int
    wide: bool

    def __str__(self) -> str:
        return f"{self.streams} x {self.items}{' on all cores' if self.wide else ''}"


def ways(figures: Figures) -> tuple[Way, list[Way]]:
    """The best way to call with the fewest items, and all ways to call with more."""
    streams, one = figures.streams, min(figures.narrow)
    found = [Way(_rate(n, cost, figures.side), n, streams, False) for n, cost in figures.narrow.items()]
    # Of two ways that are measured differently the one with less to lose is preferred: calls side by side.
    doubt = DOUBT if streams > 1 else 1.0
    if streams > 1:
        found += [Way(_rate(n, cost, 1.0) / doubt, n, 1, False) for n, cost in figures.narrow.items()]
    found += [Way(_rate(n, cost, 1.0) / doubt, n, 1, True) for n, cost in figures.wide.items()]
    single = max((way for way in found if way.items == one), key=lambda way: way.rate)
    return single, [way for way in found if way.items > one]


def decide(figures: Figures, wish: Wish) -> Plan:
    """Streams of one item, or batches: what gave more items a second here, if the user does not say."""
    one = min(figures.narrow)
    return replace(_decided(figures, wish), seconds=figures.narrow[one] / one)


def _decided(figures: Figures, wish: Wish) -> Plan:
    narrow, wide = figures.narrow, figures.wide
    one = min(narrow)  # the smallest call there is
    gather = min(MOST_GATHER, narrow[one])
    single, others = ways(figures)
    alone = single.rate
    best = max((way.rate for way in others), default=0.0)
    report: dict[str, Any] = {
        "ms_on_one_core": {str(n): round(cost * 1000, 3) for n, cost in narrow.items()},
        "ms_on_all_cores": {str(n): round(cost * 1000, 3) for n, cost in wide.items()},
        "items_per_second": {str(way): round(way.rate) for way in (single, *others)},
    }
    if wish.mode == "given" and wish.batching.merge:
        able = [way for way in others if way.items <= wish.batching.most]
        way = max(able, key=lambda way: way.rate, default=single)
        plan = Plan(wish.batching, way.streams, way.wide, figures.widens, gather)
        return replace(plan, report={"mode": "batches", "why": "as told", **_said(plan), **report})
    if wish.mode != "auto":
        plan = Plan(replace(wish.batching, most=0, merge=False), figures.streams, False, figures.widens, gather)
        return replace(plan, report={"mode": "streams", "why": "as told", **_said(plan), **report})
    if best > PAYS * alone:
        way = min((way for way in others if way.rate >= ENOUGH * best), key=lambda way: way.items)
        sizes = tuple(n for n in narrow if n <= way.items) if figures.odd else ()
        plan = Plan(Batching(way.items, True, 0.0, sizes), way.streams, way.wide, figures.widens, gather)
        why = f"{best / alone:.1f} times the items a second"
        return replace(plan, report={"mode": "batches", "why": why, **_said(plan), **report})
    # What comes as one request is cut where larger calls gain nothing: then all cores have a share in it.
    per_item = {n: cost / n for n, cost in narrow.items()}
    most = min(n for n, cost in per_item.items() if cost * ENOUGH <= min(per_item.values()))
    plan = Plan(Batching(most, False, 0.0, ()), single.streams, single.wide, figures.widens, gather)
    why = f"batches give {best / alone:.1f} times the items a second" if others else "no batch could be measured"
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
