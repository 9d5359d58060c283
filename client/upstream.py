"""One worker, as seen by who sends to it: what is under way, what went wrong, how long it takes. Sans-io."""

from __future__ import annotations

from enum import Enum
from math import exp, inf
from typing import Final

from ..registry.instance import Instance
from ..worker.wire.load import NOTHING, Load


class Outcome(Enum):
    """What became of a request sent to an upstream."""

    ANSWERED = "answered"  # it lives, whatever it said: a 400 for one bad image, a 429, a 503
    FAILED = "failed"  # 500 and the like: it lives, and ejects nobody; but it is not quick because it says no at once
    GATEWAY = "gateway"  # 502, 504; a 503 says that it is busy or leaving, which is no illness
    CONNECTION = "connection"  # refused, reset, closed without an answer, timed out
    ABANDONED = "abandoned"  # the caller went away: nobody's fault


# How a worker stands, the best first. Only the best that are there get anything; who is away gets nothing.
SURE, SUSPECT, RESTING, BUSY, EJECTED, AWAY = range(6)
STANDINGS = (
    "sure",
    "suspect",  # the registry has not heard of it for long
    "resting",  # of weight 0: for when there is nobody else
    "busy",  # it said so, and until when
    "ejected",  # or on trial: its one probe is under way
    "away",  # not passing, or disabled by an operator
)

MEMORY_SECONDS: Final = 10.0  # after which about a third is left of a latency
FIRST_PENALTY = 0.1  # seconds; the least that a failure counts as
MUCH = 1000.0  # requests


class Upstream:
    """`share`: its part of the turns, its weight or, while it starts slowly, less."""

    __slots__ = (
        "busy_until", "ejected_until", "ejections", "elsewhere", "failing", "failures", "heard_at", "id", "in_flight",
        "instance", "joined_at", "latency", "models", "order", "probing", "reported", "served", "share", "weight",
    )  # fmt: skip

    def __init__(self, instance: Instance) -> None:
        self.id = instance.id
        self.order = 0  # its place in the pool's list
        self.served = False  # whether it ever did, as far as the registry told us
        self.joined_at = -inf  # when its slow start began, while it has one
        self.in_flight = 0
        self.failures: dict[Outcome, int] = {}  # in a row
        self.ejections = 0
        self.ejected_until = self.busy_until = -inf
        self.probing = False
        self.latency = 0.0  # seconds, as of `heard_at`; 0: unknown
        self.heard_at = -inf
        self.reported = NOTHING
        self.failing = False  # its last answer was none
        self.elsewhere = 0.0  # what it had to do besides ours, as of `heard_at`
        self.take(instance)

    def take(self, instance: Instance) -> None:
        """What the registry says now."""
        self.instance = instance
        self.share = self.weight = float(instance.weight)
        # What it may be asked for: `flowers/2` says that it has that version, and so that it has flowers.
        self.models = frozenset(instance.models).union(name.rpartition("/")[0] or name for name in instance.models)

    def standing(self, now: float) -> int:
        """SURE ... AWAY."""
        instance = self.instance
        if not instance.serving:
            return AWAY
        if now < self.ejected_until or (self.ejections and self.probing):
            return EJECTED
        if now < self.busy_until:
            return BUSY
        if instance.suspect:
            return SUSPECT
        return SURE if self.weight else RESTING

    def available(self, now: float) -> bool:
        """Whether it may be sent to although there are others."""
        return self.standing(now) < BUSY

    def load(self, now: float, usual: float = 0.0) -> float:
        """Requests under way at it: ours, and others' as it told. `usual`: how many others' there are for each weight of 1.

        What it told is over after about as long as its answers take: by then others have come, who are as many as usual.
        For as long one that fails counts as having much to do: it is never at work because it fails so soon.
        """
        age, usual = now - self.heard_at, usual * self.weight
        if age >= self.latency:
            return self.in_flight + usual
        if self.failing:
            return self.in_flight + MUCH
        return self.in_flight + usual + (self.elsewhere - usual) * (1 - age / self.latency)

    def expected_latency(self, now: float) -> float:
        """Seconds; fades with time, so that who was slow once is tried again. 0: unknown."""
        return self.latency * exp((self.heard_at - now) / MEMORY_SECONDS) if self.latency else 0.0

    def answered(self, seconds: float, now: float) -> None:
        """Peak EWMA (Finagle's): a higher latency counts at once, a lower one bit by bit."""
        latency = self.latency
        if seconds >= latency:
            self.latency = seconds
        else:
            old = exp((self.heard_at - now) / MEMORY_SECONDS)
            self.latency = seconds + (latency - seconds) * old
        self.heard_at, self.failing = now, False

    def failed(self, now: float) -> None:
        """Each failure counts as an answer that took twice as long: who fails at once must not look quick."""
        self.latency = 2 * max(self.expected_latency(now), FIRST_PENALTY / 2)
        self.heard_at, self.failing = now, True

    def said(self, load: Load) -> None:
        """What it reports with an answer, which is still counted in `in_flight`."""
        self.reported = load
        if load.in_flight is not None:
            self.elsewhere = max(0.0, load.in_flight - (self.in_flight - 1))

    def __repr__(self) -> str:
        ejected = f", ejected {self.ejections} times" if self.ejections else ""
        return f"<Upstream {self.instance.address} [{self.in_flight} in flight{ejected}]>"
