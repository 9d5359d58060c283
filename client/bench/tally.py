"""What became of the requests of one window, counted into HDR histograms. Sans-io.

A request belongs to the window in which it was *due*, whenever its answer comes: its latency is the time from then. So a
server that stalls is charged with every request that was sent meanwhile, however late (Gil Tene's "coordinated omission").
The throughput of a window is what was answered within it, whenever it was due: a warm-up runs over into its window, so that
the one makes up for the other.

A request that ran out of time, or was cut off, is part of the percentiles, with the time it waited; other failures are
quick, and are not. Nor is what was never sent, because too many were under way: it is counted, and the report says so.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

from ...worker.wire.timing import decode

# client: from when it was due to when it was begun; network: all that nobody else names, the way there and back,
# connecting, look-ups and redirects, this program's own reading and writing; the others say how long they took.
PARTS = ("client", "network", "proxy", "queue", "decode", "infer", "encode")
SERVER, WORKER = PARTS[2:], PARTS[3:]
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}

# Kinds of errors; the others are HTTP statuses.
TIMEOUT, NOT_SENT, CONNECT, BROKEN = "timeout", "not sent", "connect", "broken"
WRONG, NO_PREDICTION = "wrong answer", "no prediction"
CUT_OFF = "cut off"  # under way when the window was ended before its time
WAITED = frozenset((TIMEOUT, CUT_OFF))  # they would have taken longer still
BUSY = frozenset(("", "429", TIMEOUT, CUT_OFF, WRONG))  # somebody is there, whatever he does
EXAMPLES = 200  # characters of what an error said
HELD = 200_000  # requests that may wait for the window's end to be put into the histograms: it takes 50 µs each
LONGEST = 3600.0  # seconds that can be told


class Reply(NamedTuple):
    """What came of one request. `kind`: empty if it was answered rightly, else an error's kind, which `text` explains.

    `worker`: HOST:PORT of who answered, if that is known; `timing`: its Server-Timing field; `size`: bytes uploaded.
    """

    kind: str = ""
    text: str = ""
    worker: str = ""
    timing: str = ""
    size: int = 0


class _Times(NamedTuple):
    latency: float
    client: float
    timing: str


class Tally:
    """Of the window from `begin` to `end`, in seconds of any steady clock, which is the clock of `record`, too."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.sent = self.answered = self.completed = 0
        self.cut_off = 0  # under way when the user had seen enough: no errors
        self.bytes = 0  # of uploads that were answered within the window
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.workers: Counter[str] = Counter()
        self.longest = 0.0
        self.client_cpu = 0.0  # seconds of processor time that this program spent in the window
        self.lately: list[float] = []  # latencies since somebody looked
        self.failures = 0  # in a row that look as if nobody were there
        self.failure = ""  # what the last of these said
        self.heard = 0  # answers, whenever they were due
        self._latency = HdrHistogram(1, int(LONGEST * 1e6), 3)
        self._parts = {part: HdrHistogram(1, int(LONGEST * 1e6), 2) for part in PARTS}
        self._sums = dict.fromkeys(("latency", *PARTS), 0.0)
        self._counts: Counter[str] = Counter()
        self._held: deque[_Times] = deque()

    def record(self, due: float, begun: float, ended: float, reply: Reply) -> None:
        """A request that was to be sent at `due`, was sent at `begun`, and was over at `ended`."""
        kind = reply.kind
        if kind in BUSY:
            self.failures = 0
        elif kind != NOT_SENT:  # which says nothing of whether somebody is there
            self.failures += 1
            self.failure = reply.text[:EXAMPLES]
        if kind:
            self.examples.setdefault(kind, reply.text[:EXAMPLES])
        else:
            self.heard += 1
            within = self.begin <= ended < self.end
            self.completed += within
            self.bytes += reply.size * within
        if not self.begin <= due < self.end:
            return
        if kind != NOT_SENT:
            self.sent += 1
        if kind:
            self.errors[kind] += 1
            if kind not in WAITED:
                return
        else:
            self.answered += 1
            if reply.worker:
                self.workers[reply.worker] += 1
        latency = ended - due
        self.lately.append(latency)
        self._held.append(_Times(latency, begun - due, "" if kind else reply.timing))
        if len(self._held) > HELD:
            self._settle(self._held.popleft())  # one for one: never many at a time, which would be a stall of our own

    def settle(self) -> None:
        """Puts into the histograms what is held: when the window is over, so that it costs none of its time."""
        while self._held:
            self._settle(self._held.popleft())
        self.lately.clear()

    def _settle(self, times: _Times) -> None:
        latency, client, text = times
        self.longest = max(self.longest, latency)
        self._put("latency", latency)
        self._put("client", client)
        named = decode(text) if text else {}
        if any(part in named for part in WORKER):  # else what a worker took would pass for the network's
            spent = sum(named.get(part, 0.0) for part in SERVER)
            self._put("network", max(0.0, latency - client - spent))
        for part in SERVER:
            if part in named:
                self._put(part, named[part])

    def cut(self, now: float, wanted: bool = False) -> None:
        """The window ends here: nobody answers, or it is `wanted`, and then nobody's fault what was under way."""
        self.end = max(min(self.end, now), self.begin)
        if wanted:
            self.cut_off += self.errors.pop(CUT_OFF, 0)
            self.examples.pop(CUT_OFF, None)

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.completed / self.seconds if self.seconds > 0 else 0.0

    @property
    def median(self) -> float:
        """Seconds; of what is settled."""
        return self._latency.get_value_at_percentile(50.0) / 1e6 if self._counts["latency"] else 0.0

    def _put(self, name: str, seconds: float) -> None:
        histogram = self._latency if name == "latency" else self._parts[name]
        histogram.record_value(round(min(max(seconds, 0.0), LONGEST) * 1e6))
        self._sums[name] += seconds
        self._counts[name] += 1

    def add(self, other: Tally) -> None:
        """Takes in what another window has counted; `figures` is how it is asked for."""
        for name in ("sent", "answered", "completed", "cut_off", "bytes", "client_cpu"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in (
            (self.errors, other.errors),
            (self.workers, other.workers),
            (self._counts, other._counts),
        ):
            mine.update(theirs)
        self.examples = {**other.examples, **self.examples}
        self.longest = max(self.longest, other.longest)
        self._latency.add(other._latency)
        for part, histogram in other._parts.items():
            self._parts[part].add(histogram)
        for name, seconds in other._sums.items():
            self._sums[name] += seconds
        self.end += other.seconds  # as if it had come right behind

    def figures(self) -> Figures:
        self.settle()
        mean = {name: self._sums[name] / n for name, n in self._counts.items() if n}
        latency, counted = {}, self._counts["latency"]
        if counted:
            found = self._latency.get_percentile_to_value_dict(list(PERCENTILES.values()))
            # A bucket's upper bound may lie a thousandth above the longest there was.
            latency = {name: min(found[percent] / 1e6, self.longest) for name, percent in PERCENTILES.items()}
            latency = {"mean": mean["latency"], **latency, "max": self.longest}
        parts = {
            part: (mean[part], self._parts[part].get_value_at_percentile(99.0) / 1e6)
            for part in PARTS
            if self._counts[part]
        }
        return Figures(
            seconds=self.seconds,
            sent=self.sent,
            answered=self.answered,
            cut_off=self.cut_off,
            rate=self.rate,
            bytes_per_second=self.bytes / self.seconds if self.seconds > 0 else 0.0,
            latency=latency,
            parts=parts,
            errors=dict(self.errors.most_common()),
            examples=dict(self.examples),
            workers=dict(sorted(self.workers.items())),
            client_cpu=self.client_cpu / self.seconds if self.seconds > 0 else 0.0,
            histogram=self._latency.encode().decode("ascii") if counted else "",
        )

    def __repr__(self) -> str:
        return f"<Tally {self.answered} of {self.sent} answered, {sum(self.errors.values())} errors>"


@dataclass(frozen=True)
class Figures:
    """One window's, or several together. Times in seconds.

    `latency`: mean, the PERCENTILES' and max, of those that were answered, ran out of time or were cut off; empty if there
    is none. `cut_off`: those the user cut off, which are no errors.
    `parts`: mean and 99th percentile of PARTS, of answers that say how long they took. `histogram`: all latencies in
    microseconds, in HdrHistogram's compressed form, version 2, as base64.
    """

    seconds: float
    sent: int
    answered: int
    cut_off: int
    rate: float  # answers a second
    bytes_per_second: float  # of uploads
    latency: Mapping[str, float]
    parts: Mapping[str, tuple[float, float]]
    errors: Mapping[str, int]
    examples: Mapping[str, str]
    workers: Mapping[str, int]
    client_cpu: float  # of one core
    histogram: str = field(default="", repr=False)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def figures(tallies: Iterable[Tally]) -> Figures:
    """Of several windows together."""
    total = Tally(0.0, 0.0)
    for tally in tallies:
        tally.settle()
        total.add(tally)
    return total.figures()
