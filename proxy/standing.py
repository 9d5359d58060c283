"""How the workers stand, as one proxy sees them: plain values to show, to count and to send as JSON. Sans-io.

A view is what `/-/workers` says: {"mode", "registry_connected", "services": {NAME: [row, ...]}}, a row a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from ..client.pool import Pool
from ..client.upstream import Upstream
from ..registry.lookup import rows


class Row(TypedDict):
    """`state`: its owner's word. `available`: may be sent to although there are others.

    `ejected_for`, `busy_for`: seconds left; 0: it is not. `latency`: expected, in seconds; 0: unknown.
    """

    id: str
    host: str
    port: int
    url: str
    version: str
    state: str
    available: bool
    in_flight: int
    enabled: bool
    suspect: bool
    weight: int
    failures: dict[str, int]
    ejections: int
    ejected_for: float
    busy_for: float
    latency: float


class View(TypedDict):
    mode: str
    registry_connected: bool
    services: dict[str, list[Row]]


def view(mode: str, registry_connected: bool, services: Mapping[str, Pool], now: float) -> View:
    """`now`: of the clock that the pools were told of."""
    return {
        "mode": mode,
        "registry_connected": registry_connected,
        "services": {
            name: [_row(upstream, now) for upstream in pool.upstreams] for name, pool in sorted(services.items())
        },
    }


def _row(upstream: Upstream, now: float) -> Row:
    instance = upstream.instance
    [told] = rows([instance])
    return {
        "id": told["id"],
        "host": told["host"],
        "port": told["port"],
        "url": told["url"],
        "version": told["version"],
        "state": instance.state,
        "available": upstream.available(now),
        "in_flight": upstream.in_flight,
        "enabled": instance.enabled,
        "suspect": instance.suspect,
        "weight": instance.weight,
        "failures": {outcome.value: count for outcome, count in upstream.failures.items()},
        "ejections": upstream.ejections,
        "ejected_for": round(max(0.0, upstream.ejected_until - now), 3),
        "busy_for": round(max(0.0, upstream.busy_until - now), 3),
        "latency": round(upstream.expected_latency(now), 6),
    }


def word(row: Row) -> str:
    """The one word for how it stands: what keeps uploads from it, the strongest first; `passing` if nothing does.

    `trial`: one request is on its way that decides about its return. `resting`: of weight 0, for when there is nobody else.
    """
    if not row["enabled"]:
        return "disabled"
    if row["state"] != "passing":
        return row["state"]
    if row["ejected_for"]:
        return "ejected"
    if row["busy_for"]:
        return "busy"
    if not row["available"]:
        return "trial"
    return "suspect" if row["suspect"] else "passing" if row["weight"] else "resting"


def merge(views: Iterable[View]) -> View:
    """What several processes of one proxy see, as one: in flight together, else the worst that any of them knows.

    `views`: at least one.
    """
    first, *others = views
    found: dict[str, dict[str, Row]] = {
        name: {row["id"]: row for row in members} for name, members in first["services"].items()
    }
    for other in others:
        for name, members in other["services"].items():
            known = found.setdefault(name, {})
            for row in members:
                known[row["id"]] = _worse(known[row["id"]], row) if row["id"] in known else row
    return {
        "mode": first["mode"],
        "registry_connected": all(each["registry_connected"] for each in (first, *others)),
        "services": {name: list(members.values()) for name, members in sorted(found.items())},
    }


def _worse(one: Row, other: Row) -> Row:
    worse = one.copy()
    worse["in_flight"] += other["in_flight"]
    worse["available"] &= other["available"]
    worse["ejections"] = max(one["ejections"], other["ejections"])
    worse["ejected_for"] = max(one["ejected_for"], other["ejected_for"])
    worse["busy_for"] = max(one["busy_for"], other["busy_for"])
    worse["latency"] = max(one["latency"], other["latency"])
    worse["failures"] = {
        name: max(one["failures"].get(name, 0), other["failures"].get(name, 0))
        for name in one["failures"] | other["failures"]
    }
    return worse
