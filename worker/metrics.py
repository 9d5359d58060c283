"""A worker's numbers, for Prometheus: counted here, one set for each version of a model, and shown as text. Sans-io.

The names are Triton's, with a prefix of our own; times are seconds. Source of the format:
https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).

How many series there are is bounded: versions that have left are shown for a while and then forgotten.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from ..registry.prometheus import CONTENT_TYPE as CONTENT_TYPE
from ..registry.prometheus import family, label

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DEPARTED = 20  # versions that have left and are still shown
PREFIX = "fairway_worker_"

REJECTED = "REJECTED"  # too many waited, or the worker was not ready
TIMEOUT = "TIMEOUT"  # its deadline passed
CANCELED = "CANCELED"  # its caller went away
INPUT = "INPUT"  # no image, or tensors that do not fit
BACKEND = "BACKEND"  # the model failed
OTHER = "OTHER"
REASONS = (REJECTED, TIMEOUT, CANCELED, INPUT, BACKEND, OTHER)

HISTOGRAMS = (
    ("batch_size", "items in a call of the model, without padding", ITEMS),
    ("queue_seconds", "time that requests waited, for a thread and for the model", SECONDS),
    ("decode_seconds", "time that decoding uploads took", SECONDS),
    ("infer_seconds", "time that the calls of the model took, as each request saw it", SECONDS),
    ("encode_seconds", "time that writing answers took", SECONDS),
)


class Counts:
    """One version's. Lists of a histogram: how many fell into each bucket, the last of them unbounded, then the sum."""

    __slots__ = (
        "batch_size", "decode_seconds", "encode_seconds", "exec_count", "failures", "infer_seconds", "inference_count",
        "pending", "queue_seconds", "success",
    )  # fmt: skip

    def __init__(self) -> None:
        self.success = self.inference_count = self.exec_count = self.pending = 0
        self.failures = dict.fromkeys(REASONS, 0)
        self.batch_size: list[float] = [0] * (len(ITEMS) + 2)
        self.queue_seconds: list[float] = [0] * (len(SECONDS) + 2)
        self.decode_seconds: list[float] = [0] * (len(SECONDS) + 2)
        self.infer_seconds: list[float] = [0] * (len(SECONDS) + 2)
        self.encode_seconds: list[float] = [0] * (len(SECONDS) + 2)

    def called(self, items: int) -> None:
        """The model was called, with that many items."""
        self.exec_count += 1
        self.inference_count += items
        sizes = self.batch_size
        sizes[bisect_left(ITEMS, items)] += 1
        sizes[-1] += items

    def answered(self, queue: float, decode: float, infer: float) -> None:
        """A request was, in seconds. What had nothing to decode says 0, and is not counted there."""
        self.success += 1
        times = self.queue_seconds
        times[bisect_left(SECONDS, queue)] += 1
        times[-1] += queue
        if decode:
            times = self.decode_seconds
            times[bisect_left(SECONDS, decode)] += 1
            times[-1] += decode
        times = self.infer_seconds
        times[bisect_left(SECONDS, infer)] += 1
        times[-1] += infer

    def encoded(self, seconds: float) -> None:
        """An answer was written."""
        times = self.encode_seconds
        times[bisect_left(SECONDS, seconds)] += 1
        times[-1] += seconds

    def failed(self, reason: str) -> None:
        """`reason`: one of REASONS."""
        self.failures[reason] += 1


class Metrics:
    """Everything that a worker counts."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], Counts] = {}
        self._departed: dict[tuple[str, int], None] = {}  # in the order they left

    def of(self, model: str, version: int) -> Counts:
        """Its counts, to be kept by who counts often. A version that comes back goes on where it was."""
        key = model, version
        self._departed.pop(key, None)
        return self._counts.setdefault(key, Counts())

    def encoded(self, model: str, version: int, seconds: float) -> None:
        """An answer of that version was written. Of one that is not known, nothing is counted."""
        if (counts := self._counts.get((model, version))) is not None:
            counts.encoded(seconds)

    def left(self, model: str, version: int) -> None:
        """It is not served any more."""
        self._departed[model, version] = None
        while len(self._departed) > DEPARTED:
            oldest = next(iter(self._departed))
            del self._departed[oldest]
            self._counts.pop(oldest, None)

    def text(self) -> str:
        """In the text format, as CONTENT_TYPE says."""
        rows = [
            (f'model="{label(name)}",version="{version}"', counts)
            for (name, version), counts in sorted(self._counts.items())
        ]
        lines: list[str] = []
        for field, kind, help in (
            ("request_success", "counter", "requests answered well"),
            ("request_failure", "counter", "requests that failed, by reason"),
            ("inference_count", "counter", "items that the model was given"),
            ("exec_count", "counter", "calls of the model"),
            ("pending", "gauge", "requests taken and not yet answered"),
        ):
            name = PREFIX + field
            family(lines, name, kind, help)
            for labels, counts in rows:
                if field == "request_failure":
                    lines += [f'{name}{{{labels},reason="{why}"}} {n}' for why, n in counts.failures.items()]
                else:
                    value = counts.success if field == "request_success" else getattr(counts, field)
                    lines.append(f"{name}{{{labels}}} {value}")
        for field, help, bounds in HISTOGRAMS:
            family(lines, PREFIX + field, "histogram", help)
            for labels, counts in rows:
                _histogram(lines, PREFIX + field, labels, bounds, getattr(counts, field))
        return "\n".join([*lines, ""])

    def __repr__(self) -> str:
        counts = self._counts.values()
        return (
            f"<Metrics [{sum(c.success for c in counts)} answered, "
            f"{sum(sum(c.failures.values()) for c in counts)} failed | "
            f"{sum(c.inference_count for c in counts)} items in {sum(c.exec_count for c in counts)} calls]>"
        )


def _histogram(lines: list[str], name: str, labels: str, bounds: Sequence[float], numbers: Sequence[float]) -> None:
    *counts, total = numbers
    below = 0.0
    for bound, number in zip((*bounds, "+Inf"), counts, strict=True):
        below += number
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {below:.0f}')
    lines += [f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {below:.0f}"]
