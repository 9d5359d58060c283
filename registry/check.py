"""What is asked of an instance to know its health: the definition only. What came of asking is `health.py`'s. Pure.

Words and defaults are Consul's (/v1/agent/service/register, `Check`); durations are seconds here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from .errors import InvalidInstance

Kind = Literal["ttl", "http", "tcp"]
Status = Literal["passing", "warning", "critical"]


@dataclass(frozen=True)
class Check:
    """`ttl`: its owner says so, at least every `ttl_seconds`; `http`, `tcp`: the registry asks `target` itself."""

    id: str
    kind: Kind
    target: str = ""  # http: the URL; tcp: HOST:PORT; ttl: nothing
    ttl_seconds: float = 0.0
    interval_seconds: float = 10.0
    timeout_seconds: float = 10.0
    name: str = ""
    notes: str = ""
    status: Status = "critical"  # until it was asked or said for the first time
    method: str = "GET"
    header: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    body: str = ""
    tls_skip_verify: bool = False
    deregister_after_seconds: float = 0.0  # critical for this long: the instance is deregistered; 0: never
    successes_before_passing: int = 0
    failures_before_critical: int = 0

    def as_json(self) -> dict[str, Any]:
        """All that differs from the defaults, under the field's own name."""
        said: dict[str, Any] = {"id": self.id, "kind": self.kind}
        said |= {name: value for name, usual in _USUAL if (value := getattr(self, name)) != usual}
        if self.header:
            said["header"] = {name: list(values) for name, values in self.header.items()}
        return said

    @classmethod
    def from_json(cls, raw: object) -> Check:
        """Raises InvalidInstance."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str) or raw.get("kind") not in get_args(Kind):
            raise InvalidInstance(f"{raw!r:.80} is not a check: expected an object with id and kind")
        known = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
        for name, value in known.items():
            wanted = type(getattr(_PLAIN, name)) if name != "header" else Mapping
            number = wanted is float and isinstance(value, int) and not isinstance(value, bool)
            if not (isinstance(value, wanted) or number) or (wanted is int and isinstance(value, bool)):
                raise InvalidInstance(f"check {raw['id']!r}: {name} is {value!r:.80}")
        if known.get("status", "critical") not in get_args(Status):
            raise InvalidInstance(f"check {raw['id']!r}: {known['status']!r:.80} is not a status")
        header = known.get("header", {})
        if not all(
            isinstance(values, list | tuple) and all(isinstance(v, str) for v in values) for values in header.values()
        ):
            raise InvalidInstance(f"check {raw['id']!r}: header is {header!r:.80}: expected lists of texts")
        known["header"] = {str(name): tuple(values) for name, values in header.items()}
        return cls(**known)


_PLAIN = Check("", "ttl")
_USUAL = tuple((f.name, getattr(_PLAIN, f.name)) for f in fields(Check) if f.name not in ("id", "kind"))
