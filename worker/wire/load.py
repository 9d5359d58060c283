"""How busy a worker is, said in a field of its answers: the text form of ORCA's `endpoint-load-metrics`.

    endpoint-load-metrics: TEXT named_metrics.in_flight=3, named_metrics.queue=2, application_utilization=0.5

Source: Envoy's and gRPC's "native HTTP" encoding of xds.data.orca.v3.OrcaLoadReport. Its JSON and BIN forms are not read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

FIELD = "endpoint-load-metrics"
MAX_BYTES = 1024  # of a field's value; a longer one says nothing
MOST = 1e9  # no worker has more to do than that


@dataclass(frozen=True, slots=True)
class Load:
    """None is what was not said. `in_flight`: requests being read, waiting or worked on, without the one answered."""

    in_flight: float | None = None
    queue: float | None = None  # of those, how many wait
    utilisation: float | None = None  # 1: as much as it is made for; may be more


NOTHING = Load()

# the text's names -> ours
NAMES = {
    "named_metrics.in_flight": "in_flight",
    "named_metrics.queue": "queue",
    "application_utilization": "utilisation",
}


def encode(in_flight: int, queue: int, utilisation: float) -> str:
    """The field's value."""
    return (
        f"TEXT named_metrics.in_flight={in_flight}, named_metrics.queue={queue}, "
        f"application_utilization={utilisation:.2f}"
    )


@lru_cache(4096)  # the same few values come again and again
def decode(value: bytes) -> Load:
    """Whatever can be read of it; NOTHING of what is no such text. Never raises: a worker's slip must cost nobody."""
    form, _, rest = value.strip().partition(b" ")
    if form != b"TEXT" or len(value) > MAX_BYTES:
        return NOTHING
    found: dict[str, float] = {}
    for pair in rest.decode("latin-1").split(","):
        name, _, text = pair.partition("=")
        ours = NAMES.get(name.strip())
        if ours is not None and (number := _number(text)) is not None:
            found[ours] = number
    return Load(**found) if found else NOTHING


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(number, MOST) if math.isfinite(number) and number >= 0 else None
