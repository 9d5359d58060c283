"""Manual DNS: the answer is a worker's address, in the form the caller asked for."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from ..registry import lookup
from ..registry.lookup import Format, Lookup
from .config import AddressFormat
from .errors import BadRequest


def answer(found: Lookup, accept: str, wanted: str | None, default: AddressFormat) -> web.Response:
    """`found` holds at least one instance. `?format=` wins over Accept, Accept over the configured default."""
    if wanted is not None and wanted not in ("host:port", "port", "url", "json"):
        raise BadRequest(f"format={wanted!r}: expected port, url, json or host:port")
    format: Format = cast(Format, wanted) if wanted else "json" if "application/json" in accept else default
    body, content_type = lookup.encode(found, format)
    return web.Response(body=body, content_type=content_type, headers={"Cache-Control": "no-store"})
