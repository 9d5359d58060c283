"""Durations as Go writes them, and Consul with it: `10s`, `1m30s`, `500ms`. Pure.

Format: Go's time.ParseDuration and Duration.String. A number without quotes is nanoseconds, as in Consul's JSON.
"""

from __future__ import annotations

import re

from ..errors import InvalidInstance

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign
    "\u03bcs": 1_000,  # the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
LONGEST = 2**63 / 1e9  # seconds; Go counts nanoseconds in 64 bits


def parse_duration(value: object) -> float:
    """-> seconds, never negative. Raises InvalidInstance."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1e9 if abs(value) < 2**63 else -1.0
    elif value == "0":
        return 0.0
    elif isinstance(value, str) and value and len(value) <= 64 and not PART.sub("", value):
        seconds = sum(float(number) * NANOSECONDS[unit] for number, unit in PART.findall(value)) / 1e9
    else:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST:
        raise InvalidInstance(f"{value!r:.80} is not a duration: expected e.g. 10s, 1m30s or 500ms")
    return seconds


def format_duration(seconds: float) -> str:
    """`90.0` -> `1m30s`; what is below a nanosecond is dropped."""
    left = round(seconds * 1e9)
    if left < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("\u00b5s", 1_000), ("ns", 1)):
            if left >= size:
                return f"{_decimal(left, size)}{unit}"
        return "0s"
    minutes, left = divmod(left, NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_decimal(left, NANOSECONDS['s'])}s"


def _decimal(amount: int, size: int) -> str:
    whole, rest = divmod(amount, size)
    digits = f"{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
