"""The proxy's own numbers, for Prometheus: counted here, shown as text, added up over processes. Sans-io.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4), /docs/practices/naming/.

How many series there can be is bounded, whatever strangers send. A service gets a name of its own when a worker of it was
seen, or has answered; MOST_WORKERS are kept apart; what is beyond is counted as `other`. Workers that have left are shown
for a while and then forgotten: a year of rolling restarts leaves no heap of names. They are dropped, not added to `other`,
where a jump would look like traffic.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from operator import add
from typing import Any

from ..registry.prometheus import CONTENT_TYPE as CONTENT_TYPE
from ..registry.prometheus import family, label
from .standing import View, word

BUCKETS: tuple[float, ...] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)  # seconds
MOST_SERVICES, MOST_WORKERS = 100, 1000  # with names of their own
DEPARTED = 100  # workers that have left and are still shown
OTHER = "other"
CODES = frozenset(int(status) for status in HTTPStatus) | {499}  # 499: the client went away, a word of nginx

# Metric -> its samples, each two sequences: values of its labels, and numbers. JSON as it is, which knows no tuples. A
# histogram's numbers are how many fell into each bucket, not added up, and the sum of all.
Snapshot = dict[str, list[Sequence[Sequence[Any]]]]
Number = int | float  # a count stays whole: compiled, what is said to be a float is one


@dataclass(frozen=True)
class Metric:
    """`field`: of Metrics, whose value it is. `across`: how the values of several processes become one."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    field: str = ""
    across: Callable[[float, float], float] = add


PREFIX = "fairway_proxy_"
METRICS = (
    Metric("requests_total", "counter", "requests answered; worker is empty where the proxy itself answered",
           ("service", "worker", "code")),
    Metric("request_duration_seconds", "histogram", "from a request's head to the end of its answer", ("service",)),
    Metric("in_flight", "gauge", "requests being worked on", field="in_flight"),
    Metric("waiting", "gauge", "requests that wait for a worker", field="waiting"),
    Metric("retries_total", "counter", "requests sent once more, to another worker", ("service", "reason")),
    Metric("ejections_total", "counter", "times a worker was sent nothing for a while", ("service", "worker")),
    Metric("received_bytes_total", "counter", "bytes of uploads that came from clients", field="received"),
    Metric("sent_bytes_total", "counter", "bytes of answers that went to clients", field="sent"),
    Metric("connections", "gauge", "clients connected", field="connections"),
    Metric("connections_opened_total", "counter", "clients let in", field="connections_opened"),
    Metric("connections_refused_total", "counter", "clients turned away at the door: too many were connected",
           field="connections_refused"),
    Metric("uploads_held", "gauge", "uploads kept until they are answered", field="uploads_held"),
    Metric("uploads_held_bytes", "gauge", "their bytes", field="held_bytes"),
    Metric("log_lines_dropped_total", "counter", "lines of the access log that nobody took in time",
           field="lines_dropped"),
    Metric("registry_connected", "gauge", "1 while the list of workers is kept up to date"),
    Metric("workers", "gauge", "known workers, by what keeps uploads from them", ("service", "state")),
    Metric("worker_in_flight", "gauge", "requests at this worker", ("service", "worker")),
    Metric("worker_available", "gauge", "1 while it may be sent to", ("service", "worker")),
    Metric("processes", "gauge", "processes that these numbers are of"),
    Metric("process_cpu_seconds_total", "counter", "processor time, user and system"),
    Metric("process_resident_memory_bytes", "gauge", "memory in use"),
    Metric("process_open_fds", "gauge", "open files, connections among them"),
    Metric("process_start_time_seconds", "gauge", "when the first began, in seconds since 1970", across=min),
)  # fmt: skip
KNOWN = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Usage:
    """What a process takes. `started`: seconds since 1970. None: this platform does not tell without a library."""

    cpu_seconds: float
    resident_bytes: int | None = None
    open_files: int | None = None
    started: float | None = None


class Durations:
    """Of one service's requests: how many fell into each of BUCKETS, and beyond; and all of them together, in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0


class Metrics:
    """Counts. The plain numbers are set by whoever knows them, at the latest just before `snapshot`.

    `services`: names that are known from the start.
    """

    __slots__ = (
        "_durations", "_ejections", "_requests", "_retries", "_services", "_workers", "connections", "connections_opened",
        "connections_refused", "held_bytes", "in_flight", "lines_dropped", "received", "sent", "uploads_held", "waiting",
    )  # fmt: skip

    def __init__(self, *services: str) -> None:
        self.in_flight = self.waiting = 0
        self.received = self.sent = 0  # bytes of bodies
        self.connections = self.connections_opened = self.connections_refused = 0
        self.uploads_held = self.held_bytes = 0
        self.lines_dropped = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, Durations] = {}
        self._retries: Counter[tuple[str, str]] = Counter()
        self._ejections: Counter[tuple[str, str]] = Counter()
        self._services = set(services)
        self._workers: dict[tuple[str, str], None] = {}  # in the order they came

    def answered(self, service: str, worker: str, status: int, seconds: float) -> None:
        """`worker`: its id; empty where the proxy itself answered. `seconds`: from the head to the answer's end."""
        try:
            self._requests[service, worker, status] += 1
        except KeyError:
            service, worker = self._names(service, worker)
            key = service, worker, status if status in CODES else status // 100 * 100
            self._requests[key] = self._requests.get(key, 0) + 1
            if service not in self._durations:
                self._durations[service] = Durations()
        durations = self._durations[service]
        durations.total += seconds
        durations.counts[bisect_left(BUCKETS, seconds)] += 1

    def retried(self, service: str, reason: str) -> None:
        """`reason`: one of few, such as the values of client/retry.py's Failure."""
        self._retries[self._names(service, "")[0], reason] += 1

    def ejected(self, service: str, worker: str) -> None:
        self._ejections[self._names(service, worker)] += 1

    def _names(self, service: str, worker: str) -> tuple[str, str]:
        """The names that these are counted under."""
        if service not in self._services:
            if not worker or len(self._services) >= MOST_SERVICES:  # anybody may ask for a service that is none
                return OTHER, worker and OTHER
            self._services.add(service)
        if worker and (service, worker) not in self._workers:
            if len(self._workers) >= MOST_WORKERS:
                return service, OTHER
            self._workers[service, worker] = None
        return service, worker

    def snapshot(self, seen: View, used: Usage) -> Snapshot:
        """Everything counted so far, and how things are now. `seen`: by this process."""
        for service in seen["services"]:
            if len(self._services) < MOST_SERVICES:
                self._services.add(service)
        found: Snapshot = {metric.name: [((), (getattr(self, metric.field),))] for metric in METRICS if metric.field}
        found["requests_total"] = [
            ((service, worker, str(status)), (count,)) for (service, worker, status), count in self._requests.items()
        ]
        found["request_duration_seconds"] = [
            ((name,), (*each.counts, each.total)) for name, each in self._durations.items()
        ]
        found["retries_total"] = [(names, (count,)) for names, count in self._retries.items()]
        found["ejections_total"] = [(names, (count,)) for names, count in self._ejections.items()]
        found["processes"] = [((), (1,))]
        for name, value in (
            ("process_cpu_seconds_total", used.cpu_seconds),
            ("process_resident_memory_bytes", used.resident_bytes),
            ("process_open_fds", used.open_files),
            ("process_start_time_seconds", used.started),
        ):
            if value is not None:
                found[name] = [((), (value,))]
        self._forget({(service, row["id"]) for service, members in seen["services"].items() for row in members})
        return found

    def _forget(self, present: set[tuple[str, str]]) -> None:
        """After a snapshot: whoever reads them has had the last numbers of those who left."""
        departed = [names for names in self._workers if names not in present]
        gone = set(departed[:-DEPARTED])
        if not gone:
            return
        for names in gone:
            del self._workers[names]
            self._ejections.pop(names, None)
        self._requests = {key: count for key, count in self._requests.items() if key[:2] not in gone}

    def __repr__(self) -> str:
        return (
            f"<Metrics [{sum(self._requests.values())} answered, {sum(self._retries.values())} retried | "
            f"{self.in_flight} in flight, {self.waiting} waiting]>"
        )


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Those of several processes as one. Names that this version does not know are left out."""
    merged: dict[str, dict[tuple[str, ...], list[Number]]] = {}
    for snapshot in snapshots:
        for name, samples in snapshot.items():
            if name not in KNOWN:
                continue
            across, found = KNOWN[name].across, merged.setdefault(name, {})
            for labels, numbers in samples:
                key = tuple(labels)
                found[key] = list(map(across, found[key], numbers)) if key in found else list(numbers)
    return {name: list(found.items()) for name, found in merged.items()}


def ended(snapshot: Snapshot) -> Snapshot:
    """What is left of a process that has ended: what it counted. Merged from then on, or the counters would go back."""
    return {name: samples for name, samples in snapshot.items() if name in KNOWN and KNOWN[name].kind != "gauge"}


def text(counted: Snapshot, seen: View) -> bytes:
    """In the text format, as CONTENT_TYPE says. Of several processes: both merged. What nobody counted is left out."""
    lines: list[str] = []
    snapshot = counted | _of_workers(seen)
    for metric in METRICS:
        if samples := snapshot.get(metric.name):
            name = PREFIX + metric.name
            family(lines, name, metric.kind, metric.help)
            write = _histogram if metric.kind == "histogram" else _plain
            for values, numbers in sorted(samples, key=lambda sample: tuple(sample[0])):
                pairs = [f'{key}="{label(value)}"' for key, value in zip(metric.labels, values, strict=True)]
                write(lines, name, ",".join(pairs), numbers)
    # An id may hold halves of characters, which JSON can say and UTF-8 cannot.
    return "\n".join([*lines, ""]).encode("utf-8", "replace")


def _of_workers(seen: View) -> Snapshot:
    """Of those there are now, and no others; MOST_WORKERS with names of their own."""
    states: Counter[tuple[str, str]] = Counter()
    in_flight: Counter[tuple[str, str]] = Counter()
    available: Counter[tuple[str, str]] = Counter()
    for service, members in seen["services"].items():
        for row in members:
            names = (service, row["id"] if len(in_flight) < MOST_WORKERS else OTHER)
            states[service, word(row)] += 1
            in_flight[names] += row["in_flight"]
            available[names] += row["available"]
    return {
        "registry_connected": [((), (int(seen["registry_connected"]),))],
        "workers": [(names, (count,)) for names, count in states.items()],
        "worker_in_flight": [(names, (count,)) for names, count in in_flight.items()],
        "worker_available": [(names, (count,)) for names, count in available.items()],
    }


def _plain(lines: list[str], name: str, pairs: str, numbers: Sequence[Number]) -> None:
    lines.append(f"{name}{{{pairs}}} {numbers[0]}" if pairs else f"{name} {numbers[0]}")


def _histogram(lines: list[str], name: str, pairs: str, numbers: Sequence[float]) -> None:
    *counts, total = numbers
    below = 0.0
    for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
        below += count
        lines.append(f'{name}_bucket{{{pairs},le="{bound}"}} {below:.0f}')
    lines += [f"{name}_sum{{{pairs}}} {total}", f"{name}_count{{{pairs}}} {below:.0f}"]
