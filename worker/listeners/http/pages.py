"""What a worker says of itself: whether it lives and takes requests, what it serves, how it does, what it speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from ...errors import NotFound, NotReady
from ...metrics import CONTENT_TYPE
from . import openapi
from .message import Request, Response, Route, Served

if TYPE_CHECKING:
    from ...model import Model
    from ...tensor import TensorSpec

HTML = "text/html; charset=utf-8"


def routes(served: Served, others: Sequence[Route], of_http: Callable[[], str]) -> list[Route]:
    """`others`: what is served beside these pages, for /openapi.json and /docs. `of_http`: the server's own metrics."""

    async def healthz(request: Request) -> Response:
        alive = served.engine.alive
        return _json({"status": "ok" if alive else "hung"}, 200 if alive else 503)

    async def readyz(request: Request) -> Response:
        engine = served.engine
        ready = engine.ready and served.repository.ready
        state = "draining" if engine.draining else "ready" if ready else "loading"
        try:
            model = served.repository.find()
            names = {"model": model.name, "version": str(model.version)}
        except (NotFound, NotReady):
            names = {"model": "", "version": ""}
        return _json({"status": state, "service": served.service, **names}, 200 if ready else 503)

    async def models(request: Request) -> Response:
        repository = served.repository
        trouble = {"error": repository.trouble} if repository.trouble else {}
        return _json({"models": [_described(served, name) for name in repository.names()], **trouble})

    async def metrics(request: Request) -> Response:
        text = served.engine.metrics.text() + served.repository.metrics() + of_http()
        return Response(text.encode(), content_type=CONTENT_TYPE)

    async def described(request: Request) -> Response:
        return _json(written)

    async def docs(request: Request) -> Response:
        return Response(page, content_type=HTML)

    own = [
        Route("GET", "/healthz", healthz, "does it live?"),
        Route("GET", "/readyz", readyz, "does it take requests?"),
        Route("GET", "/models", models, "what is served: versions, their states, runtimes, inputs and outputs"),
        Route("GET", "/metrics", metrics, "how it does, as Prometheus reads it", gives=("text/plain",)),
        Route("GET", "/openapi.json", described, "this, for programs"),
        Route("GET", "/docs", docs, "this, for people", gives=("text/html",)),
    ]
    written = openapi.document([*others, *own], f"fairway worker: {served.service}", "1")
    page = openapi.page(written).encode()
    return own


def _described(served: Served, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "labels": served.repository.labels(name),
        "versions": [
            {
                "version": status.version,
                "state": status.state,
                **({"error": status.message} if status.message else {}),
                **_loaded(served, name, status.version, status.state),
            }
            for status in served.repository.statuses(name)
        ],
    }


def _loaded(served: Served, name: str, version: int, state: str) -> dict[str, Any]:
    """Of a version that is served: what runs it, and what goes in and out."""
    if state != "AVAILABLE":
        return {}
    try:
        model = served.repository.find(name, version)
    except (NotFound, NotReady):  # it has just gone
        return {}
    loaded = model.loaded
    return {
        "runtime": loaded.runtime,
        "choice": model.report.get("runtime", {}),
        "batching": served.engine.describe(model),
        "images": _images(model),
        "default_signature": loaded.default,
        "signatures": {
            signature.name: {
                "method": signature.method,
                "inputs": [_tensor(spec) for spec in signature.inputs],
                "outputs": [_tensor(spec) for spec in signature.outputs],
            }
            for signature in loaded.signatures.values()
        },
    }


def _images(model: Model) -> dict[str, Any]:
    if model.card is None:
        return {"accepted": False, "reason": model.reason}
    return {"accepted": True, "input": model.image_input, "labels": len(model.card.labels)}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = None if spec.shape is None else [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape}


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n", status)
