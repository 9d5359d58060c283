"""Who gets the next request. One method each; health is judged elsewhere (`pool.candidates`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from .pool import Upstream


class Balancer(Protocol):
    def choose(self, candidates: Sequence[Upstream]) -> Upstream:
        """One of `candidates`, which are never empty."""
        ...


class RoundRobin:
    """Everybody in turn. Starts at random, so that many proxies do not all begin with the same worker."""

    def __init__(self, random: random.Random) -> None:
        self._last = ""
        self._random = random

    def choose(self, candidates: Sequence[Upstream]) -> Upstream:
        # The turn follows the last one served, not a counter: workers that come and go do not make it jump.
        ordered = sorted(candidates, key=lambda upstream: upstream.instance.id)
        if not self._last:
            chosen = self._random.choice(ordered)
        else:
            chosen = next((u for u in ordered if u.instance.id > self._last), ordered[0])
        self._last = chosen.instance.id
        return chosen
