"""When a measurement is good enough: the last windows agree with their median. Sans-io.

As NVIDIA's perf_analyzer does it, three windows in a row must agree, in throughput and in latency; it asks for 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

LAST = 3  # windows that must agree
TOLERANCE = 0.05  # of their median
MOST = 10  # windows: what is not stable then is reported as it is


class Window(NamedTuple):
    """`rate`: answers a second; `latency`: seconds, the median."""

    rate: float
    latency: float


def stable(windows: Sequence[Window], last: int = LAST, tolerance: float = TOLERANCE) -> bool:
    """Whether each of the last `last` windows is within `tolerance` of their median, by rate and by latency."""
    if len(windows) < last:
        return False
    rates, latencies = zip(*windows[-last:], strict=True)
    return _agree(rates, tolerance) and _agree(latencies, tolerance)


def _agree(values: Sequence[float], tolerance: float) -> bool:
    middle = median(values)
    return middle > 0 and all(abs(value - middle) <= tolerance * middle for value in values)
