"""Manual DNS: the answer is a worker's address, in the form the caller asked for."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qs

from ..registry import lookup
from ..registry.lookup import Format, Lookup
from .config import AddressFormat
from .errors import BadRequest
from .reply import Reply

NOT_KEPT = (("Cache-Control", "no-store"),)


def wanted(query: str, accept: bytes, default: AddressFormat) -> Format:
    """`?format=` wins over Accept, Accept over the configured default. Raises BadRequest."""
    asked = parse_qs(query, keep_blank_values=True).get("format") if query else None
    if asked is None:
        return "json" if b"application/json" in accept else default
    if asked[0] not in ("host:port", "port", "url", "json"):
        raise BadRequest(f"format={asked[0]!r}: expected port, url, json or host:port")
    return cast(Format, asked[0])


def answer(found: Lookup, format: Format) -> Reply:
    """`found` holds at least one instance."""
    body, content_type = lookup.encode(found, format)
    return Reply(200, body, content_type, NOT_KEPT)
