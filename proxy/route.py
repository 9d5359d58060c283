"""Which door a request came to: decided from method, path and mode alone. Sans-io.

/-/healthz  /-/readyz  /-/workers  /-/metrics   the proxy's own
/-/direct/PATH                          307 to PATH at a worker
/-/services/NAME/PATH                   PATH at a worker of NAME, as the X-Fairway-Service header would
/v1/models/M...  /v2/models/M...        at a worker that has the model M, and the version if one is named
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
    """`target`: path and query for the worker, as received. `named`: the caller asked for this service by name.

    `model`: NAME or NAME/VERSION if the path names one, else empty.
    """

    manner: Manner
    service: str
    target: str
    named: bool = False
    model: str = ""

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
        path = path.removeprefix("/-/direct") or "/"
        return Route("redirect", service, path + mark + query, named, model_of(path))
    if path == "/-" or path.startswith("/-/"):
        raise NotFound(
            f"{target}: no such page; the proxy's own are /-/healthz, /-/readyz, /-/workers, /-/metrics, "
            "/-/direct/, /-/services/NAME/"
        )
    manner: Manner
    manner = ("address" if method in ("GET", "HEAD") and path == "/" else "forward") if mode == "auto" else mode
    return Route(manner, service, path + mark + query, named, model_of(path))


def model_of(path: str) -> str:
    """NAME or NAME/VERSION of the model that a path of TensorFlow Serving's API, or of the Open Inference Protocol, names.

    >>> model_of("/v1/models/flowers/versions/2:predict")
    'flowers/2'
    """
    if not path.startswith(("/v1/models/", "/v2/models/")):
        return ""
    first, _, rest = path.removeprefix(path[: len("/v1/models/")]).partition("/")
    name = unquote(first.partition(":")[0] if path.startswith("/v1") else first)
    version = rest.removeprefix("versions/").partition("/")[0].partition(":")[0] if rest.startswith("versions/") else ""
    return f"{name}/{int(version)}" if name and version.isdigit() and len(version) < 20 else name
