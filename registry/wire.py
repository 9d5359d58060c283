"""seaport's rows: one JSON array a line, the same in both directions. Knows no role, no socket and no clock.

    ["helo", "<your address>"]  ["register", id, meta]  ["free", id]  ["synced"]  ["heartbeat"]

Format: npm seaport 2.0.9, lib/protocol.js. Rows of other kinds are skipped, as seaport skips them, and so its peers are
not troubled by what only ours say to each other:

    ["hello", {"token": "…", "services": ["classify"]}]    first word of a peer of ours: who it is; which services it
                                                           wants to hear of (none: [], all: no such key)
    ["helo", "<your address>", "fairway"]                  a hub of ours, which answers each registration with
    ["accepted", id]  ["refused", id, reason]
    ["mark", id, enabled, reason]                          an operator's word: said to the owner; by an admin, to the hub
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from .errors import WireError

_KNOWN = ("register", "free", "helo", "hello", "accepted", "refused", "mark")
MAX_ROW = 8 * 1024  # bytes; a registration is a name, an address and some words about it


@dataclass(frozen=True)
class Helo:
    address: str
    fairway: bool = False


@dataclass(frozen=True)
class Register:
    id: str
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Free:
    id: str


@dataclass(frozen=True)
class Synced:
    pass


@dataclass(frozen=True)
class Heartbeat:
    pass


@dataclass(frozen=True)
class Hello:
    """`services`: names, or None for all."""

    token: str = ""
    services: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Accepted:
    id: str


@dataclass(frozen=True)
class Rejected:
    id: str
    reason: str


@dataclass(frozen=True)
class Marked:
    id: str
    enabled: bool
    reason: str = ""


Message = Helo | Register | Free | Synced | Heartbeat | Hello | Accepted | Rejected | Marked
HEARTBEAT = b'["heartbeat"]\n'  # as both kinds of peer write it


def encode(message: Message) -> bytes:
    """One row, newline included. Raises WireError if a registration does not fit MAX_ROW, or JSON."""
    match message:
        case Helo(address, fairway):
            row: list[Any] = ["helo", address, "fairway"] if fairway else ["helo", address]
        case Register(id, meta):
            row = ["register", id, dict(meta)]
        case Free(id):
            row = ["free", id]
        case Synced():
            row = ["synced"]
        case Heartbeat():
            row = ["heartbeat"]
        case Hello(token, services):
            row = ["hello", {"token": token} | ({} if services is None else {"services": list(services)})]
        case Accepted(id):
            row = ["accepted", id]
        case Rejected(id, reason):
            row = ["refused", id, reason]
        case Marked(id, enabled, reason):
            row = ["mark", id, enabled, reason]
    try:
        line = json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"the row cannot be written as JSON: {error}") from error
    if len(line) > MAX_ROW:
        raise WireError(f"the row has {len(line)} bytes; at most {MAX_ROW} are accepted")
    return line


def decode(line: bytes) -> Message | None:
    """A row -> its message; None for a blank line or a kind we do not know. Raises WireError."""
    if not line.strip():
        return None
    try:
        row = json.loads(line, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a JSON row: {line[:60]!r}") from error
    match row:
        case ["register", str(id), dict(meta), *_]:
            return Register(id, meta)
        case ["free", str(id), *_]:
            return Free(id)
        case ["helo", str(address), *rest]:
            return Helo(address, rest[:1] == ["fairway"])
        case ["synced", *_]:
            return Synced()
        case ["heartbeat", *_]:
            return Heartbeat()
        case ["hello", {**said}, *_]:
            token, services = said.get("token", ""), said.get("services")
            if isinstance(token, str) and (services is None or _are_texts(services)):
                return Hello(token, None if services is None else tuple(services))
        case ["accepted", str(id), *_]:
            return Accepted(id)
        case ["refused", str(id), str(reason), *_]:
            return Rejected(id, reason)
        case ["mark", str(id), bool(enabled), str(reason), *_]:
            return Marked(id, enabled, reason)
        case [str(kind), *_] if kind not in _KNOWN:
            return None
    raise WireError(f'not a row this registry knows: {line[:60]!r}; expected e.g. ["register", id, {{...}}]')


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _finite(text: str) -> float:
    """JSON knows no NaN and no Infinity (1e999 is one): relayed, they would end every JavaScript peer."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a JSON number")
    return number


class RowReader:
    """Bytes in, messages out. Holds at most one unfinished row."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Raises WireError for a bad or an endless row; the connection is then of no further use."""
        if data == HEARTBEAT and not self._rest:  # most of what is ever said
            return [Heartbeat()]
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        if any(len(line) >= MAX_ROW for line in (*lines, rest)):
            raise WireError(f"a row is longer than {MAX_ROW} bytes")
        self._rest = rest
        return [message for line in lines if (message := decode(line)) is not None]
