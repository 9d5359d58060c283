"""Manual-DNS answers: what an address door says, and how a caller reads it. Both directions, no socket.

text/plain         127.0.0.1:9001\\n        (or `9001\\n`, or `http://127.0.0.1:9001/\\n`)
application/json   {"service": "classify", "instances": [{"id", "host", "port", "url", "version"}, ...],
                    "ttl_seconds": 5}       (best first, at most three)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import InvalidInstance, WireError
from .instance import Address, Instance

Format = Literal["host:port", "port", "url", "json"]
AT_MOST = 3  # a caller fails over to the others without asking again


@dataclass(frozen=True)
class Lookup:
    """`ttl_seconds`: how long the caller may keep and rotate these before asking again."""

    service: str
    instances: tuple[Instance, ...]
    ttl_seconds: float


def encode(lookup: Lookup, format: Format) -> tuple[bytes, str]:
    """-> body, content type. `lookup` must hold at least one instance."""
    if format == "json":
        return json.dumps(_as_json(lookup)).encode() + b"\n", "application/json"
    address = lookup.instances[0].address
    text = {"host:port": str(address), "port": str(address.port), "url": f"http://{address}/"}[format]
    return text.encode() + b"\n", "text/plain"


def decode(body: bytes) -> Lookup:
    """The JSON form. Raises WireError saying what was found instead."""
    try:
        raw = json.loads(body)
        service, ttl_seconds = _text(raw["service"]), float(raw["ttl_seconds"])
        instances = tuple(
            Instance(_text(row["id"]), service, Address(row["host"], row["port"]), _text(row.get("version", "")))
            for row in raw["instances"]
        )
        if not 0 <= ttl_seconds < math.inf:
            raise ValueError(f"{ttl_seconds} is no time to keep an answer")
        return Lookup(service, instances, ttl_seconds)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, InvalidInstance) as error:
        raise WireError(f"not an address answer: {body[:80]!r}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _as_json(lookup: Lookup) -> dict[str, Any]:
    return {
        "service": lookup.service,
        "instances": rows(lookup.instances[:AT_MOST]),
        "ttl_seconds": lookup.ttl_seconds,
    }


def rows(instances: Sequence[Instance]) -> list[dict[str, Any]]:
    return [
        {
            "id": instance.id,
            "host": instance.address.host,
            "port": instance.address.port,
            "url": f"http://{instance.address}/",
            "version": instance.version,
        }
        for instance in instances
    ]
