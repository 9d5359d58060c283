"""How much is asked of a service at a time: so many clients, or so many requests a second. Sans-io."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

SWEEP = (1, 2, 4, 8, 16, 32)  # clients
FRACTIONS = (0.25, 0.5, 0.75, 0.9)  # of the peak; nearer to it a queue has no end, and a latency no meaning

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class Demand:
    """`loop` closed: `size` clients, each sends again when it was answered; open: `size` requests a second."""

    loop: Loop
    size: float

    def __str__(self) -> str:
        if self.loop == "open":
            return f"{self.size:g}/s"
        return f"{self.size:g} client{'' if self.size == 1 else 's'}"


def closed(clients: Iterable[int]) -> tuple[Demand, ...]:
    return tuple(Demand("closed", count) for count in clients)


def opened(rates: Iterable[float]) -> tuple[Demand, ...]:
    return tuple(Demand("open", rate) for rate in rates)


def of_peak(peaks: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> tuple[Demand, ...]:
    """Rates at `fractions` of the smallest peak, so that all who are compared are asked the same; none without a peak.

    Three digits are enough, and can be read.
    """
    peak = min(peaks, default=0.0)
    return opened(float(f"{peak * fraction:.3g}") for fraction in fractions) if peak > 0 else ()
