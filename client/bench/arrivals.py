"""When requests are due that come by themselves: a Poisson process, drawn from a seeded source. Sans-io.

Gaps between arrivals are exponential and independent, as those of many users who know nothing of each other; bursts are
part of it. Nothing here waits for an answer: that is what makes an open loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log


def poisson(rate: float, begin: float, end: float, chance: Callable[[], float]) -> Iterator[float]:
    """Times from `begin` to before `end`, in seconds, at `rate` a second on average. `chance`: even numbers in [0, 1).

    Source: inversion of the exponential distribution, -ln(1 - u) / rate.
    """
    if rate <= 0:
        raise ValueError(f"{rate} arrivals a second: more than none are needed")
    at = begin
    while (at := at - log(1.0 - chance()) / rate) < end:
        yield at
