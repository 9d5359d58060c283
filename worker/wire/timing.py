"""Where an answer's time went, in a field that browsers' developer tools draw: `Server-Timing`.

    Server-Timing: queue;dur=0.10, decode;dur=1.12, infer;dur=3.20, encode;dur=0.05

Durations are in milliseconds. `queue`: waited for the model; `decode`: picture to array; `infer`: in the model; `encode`:
all else that the worker did, which is reading the request's text and writing the answer's. Source: W3C Server Timing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Protocol

FIELD = "Server-Timing"
MAX_BYTES = 1024  # of a field's value; a longer one says nothing
METRIC = re.compile(
    r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)((?:\s*;\s*[a-z]+\s*=\s*(?:"[^"]*"|[^";,]*))*)\s*(?:,|$)""", re.I
)
DURATION = re.compile(r""";\s*dur\s*=\s*"?([0-9.eE+-]+)"?""", re.I)


class Measured(Protocol):
    """What an engine says of its work, in seconds."""

    queue: float
    decode: float
    infer: float

    @property
    def counts(self) -> Counts | None: ...


class Counts(Protocol):
    """Who counts what writing an answer took."""

    def encoded(self, seconds: float) -> None: ...


class Timing(str):
    """A field's value that knows how many seconds it names, so that what remains can be added to it."""

    __slots__ = ("counts", "spent")
    spent: float
    counts: Counts | None


def timing(answer: Measured) -> Timing:
    """The field's value for what an engine measured."""
    queue, decoding, infer = answer.queue, answer.decode, answer.infer
    value = Timing(f"queue;dur={queue * 1000:.2f}, decode;dur={decoding * 1000:.2f}, infer;dur={infer * 1000:.2f}")
    value.spent, value.counts = queue + decoding + infer, answer.counts
    return value


def completed(value: Timing, seconds: float) -> str:
    """With `encode`: what an answer took in all, less what the value names. It is counted for the model, too."""
    rest = max(0.0, seconds - value.spent)
    if value.counts is not None:
        value.counts.encoded(rest)
    return f"{value}, encode;dur={rest * 1000:.2f}"


def encode(seconds: Mapping[str, float]) -> str:
    """Names with their seconds -> the field's value."""
    return ", ".join(f"{name};dur={value * 1000:.2f}" for name, value in seconds.items())


def decode(value: str) -> dict[str, float]:
    """-> seconds by name; what has no duration, or none that can be read, is left out. Never raises."""
    found: dict[str, float] = {}
    if len(value) > MAX_BYTES:
        return found
    at = 0
    while at < len(value) and (metric := METRIC.match(value, at)):
        at = metric.end()
        duration = DURATION.search(metric[2])
        if duration is not None:
            try:
                milliseconds = float(duration[1])
            except ValueError:
                continue
            if isfinite(milliseconds) and milliseconds >= 0:
                found[metric[1]] = milliseconds / 1000
    return found
