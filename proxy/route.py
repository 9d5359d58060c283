"""Which door a request came to: decided from method, path and mode alone. Sans-io.

/-/healthz  /-/readyz  /-/workers  /-/metrics   the proxy's own
/-/direct/PATH                          307 to PATH at a worker
/-/services/NAME/PATH                   PATH at a worker of NAME, as the X-Fairway-Service header would
/healthz  /readyz                       the proxy's own too: a worker's are never shown as if they were the cluster's
anything else                           what the mode says
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from .config import Mode
from .errors import BadRequest, NotFound

Manner = Literal["forward", "address", "redirect", "healthz", "readyz", "workers", "metrics"]
OWN: dict[str, Manner] = {
    "/-/healthz": "healthz", "/-/readyz": "readyz", "/-/workers": "workers", "/-/metrics": "metrics",
}  # fmt: skip


@dataclass(frozen=True)
class Route:
    """`target`: path and query for the worker, as received. `named`: the caller asked for this service by name."""

    manner: Manner
    service: str
    target: str
    named: bool = False

    @property
    def target_bytes(self) -> bytes:
        return self.target.encode("ascii")


def route(mode: Mode, method: str, target: str, header_service: str | None, default_service: str) -> Route:
    """Raises NotFound for a reserved path that leads nowhere in this mode, BadRequest for what is no path at all."""
    if not target.startswith("/"):
        raise BadRequest(f"{method} {target}: the request target must be a path")
    path, mark, query = target.partition("?")
    service, named = header_service or default_service, bool(header_service)
    if path in OWN:
        return Route(OWN[path], service, target, named)
    if path.startswith("/-/services/"):
        name, slash, rest = path.removeprefix("/-/services/").partition("/")
        service, named, path = unquote(name), True, slash + rest or "/"
        if path.startswith("/-/services/"):
            raise NotFound(f"{target}: one service at a time")
    if mode != "address" and path in ("/healthz", "/readyz"):
        return Route(OWN["/-" + path], service, target, named)
    if path == "/-/direct" or path.startswith("/-/direct/"):
        if mode not in ("auto", "redirect"):
            raise NotFound(f"{target}: this proxy runs in mode {mode} and does not redirect")
        return Route("redirect", service, (path.removeprefix("/-/direct") or "/") + mark + query, named)
    if path == "/-" or path.startswith("/-/"):
        raise NotFound(
            f"{target}: no such page; the proxy's own are /-/healthz, /-/readyz, /-/workers, /-/metrics, "
            "/-/direct/, /-/services/NAME/"
        )
    manner: Manner
    manner = ("address" if method in ("GET", "HEAD") and path == "/" else "forward") if mode == "auto" else mode
    return Route(manner, service, path + mark + query, named)
