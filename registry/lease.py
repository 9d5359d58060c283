"""What silence means. Pure: times are arguments, seconds.

A lease is fresh until two beats were missed, late until its time to live is over, then lost. One owner that falls silent
is called ill, then forgotten. Many at once are more likely our own blindness (a switch, a stopped machine, a starved
process) than a mass death: theirs are held, flagged `suspect`, and ranked last, for a bounded time.

    who was heard            what readers see
    lately                   what the owner says
    not for two beats        critical                       (if few are silent)
    not for two beats        what the owner said, suspect   (if many are)
    not for its whole ttl    gone                           (if few are)
    not for its whole ttl    what the owner said, suspect   (if many are, for at most HOLD_SECONDS)
    only before a restart    what the owner said, suspect   (for one ttl after it)

Precedents: Eureka's self-preservation (15 %), with a least population and an end, which it lacks; Nacos' three stages.
"""

from __future__ import annotations

from enum import Enum

from .instance import State

MISSED_SHARE = 2 / 3  # of the ttl: owners beat three times in one
HOLD_SECONDS = 300.0
MASS_SHARE, MASS_LEAST = 0.15, 5


class Silence(Enum):
    FRESH = "fresh"
    LATE = "late"  # few are
    MASS_LATE = "late, like many others"
    RESTORED = "not heard since the restart"


# (owner's word, silence) -> (what readers see, suspect)
SHOWN: dict[tuple[State, Silence], tuple[State, bool]] = {
    ("starting", Silence.FRESH): ("starting", False),
    ("passing", Silence.FRESH): ("passing", False),
    ("draining", Silence.FRESH): ("draining", False),
    ("critical", Silence.FRESH): ("critical", False),
    ("starting", Silence.LATE): ("critical", False),
    ("passing", Silence.LATE): ("critical", False),
    ("draining", Silence.LATE): ("critical", False),
    ("critical", Silence.LATE): ("critical", False),
    ("starting", Silence.MASS_LATE): ("starting", True),
    ("passing", Silence.MASS_LATE): ("passing", True),
    ("draining", Silence.MASS_LATE): ("draining", True),
    ("critical", Silence.MASS_LATE): ("critical", True),
    ("starting", Silence.RESTORED): ("starting", True),
    ("passing", Silence.RESTORED): ("passing", True),
    ("draining", Silence.RESTORED): ("draining", True),
    ("critical", Silence.RESTORED): ("critical", True),
}

# The owner's word and what was measured by checks: the worse one counts.
WORSE: dict[State, int] = {"passing": 0, "starting": 1, "draining": 2, "critical": 3}


def worse(one: State, other: State) -> State:
    return max(one, other, key=WORSE.__getitem__)


def late_at(heard: float, ttl: float) -> float:
    return heard + ttl * MISSED_SHARE


def lost_at(heard: float, ttl: float) -> float:
    return heard + ttl


def is_mass(silent: int, population: int) -> bool:
    """Whether so many of a service's instances fell silent within one ttl that it is us who are to be doubted."""
    return silent >= MASS_LEAST and silent > MASS_SHARE * population
