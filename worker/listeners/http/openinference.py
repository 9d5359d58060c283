"""HTTP: the Open Inference Protocol v2, with Triton's extensions for binary tensors, classification and more.

GET  /v2, /v2/health/live, /v2/health/ready
GET  /v2/models/M[/versions/V][/ready]        V: a number, or a label
POST /v2/models/M[/versions/V]/infer
GET  /v2/models[/M[/versions/V]]/stats
POST /v2/repository/index, /v2/repository/models/M/load, /v2/repository/models/M/unload
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from .... import __version__
from ... import openinference
from ...errors import BadRequest, NotReady
from ...wire import openinference as wire
from ...wire.timing import FIELD, timing
from .message import JSON, Request, Response, Route, Served, run

if TYPE_CHECKING:
    from ...model import Model

LENGTH = wire.HEADER.lower()
MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
LOADED = r"/v2/repository/models/(?P<name>[^/]+)"
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # what no tensor begins with by chance


def routes(served: Served) -> list[Route]:
    def get(path: str | re.Pattern[str], handler: Any, summary: str) -> Route:
        return Route("GET", path, partial(handler, served), summary)

    def post(path: str | re.Pattern[str], handler: Any, summary: str) -> Route:
        slow = handler in (_load, _unload)  # to read a model takes its time
        takes, gives = ((wire.BINARY, JSON), (wire.BINARY, JSON)) if handler is _infer else ((JSON,), (JSON,))
        return Route("POST", path, partial(handler, served), summary, takes, gives, patient=slow)

    return [
        get("/v2", _server, "Name, version and extensions"),
        get("/v2/health/live", _live, "Does the worker live?"),
        get("/v2/health/ready", _ready, "Does it take requests?"),
        get("/v2/models/stats", _statistics, "What became of the requests of all models"),
        get(re.compile(MODEL), _metadata, "A model's tensors"),
        get(re.compile(MODEL + "/ready"), _model_ready, "Is the model served?"),
        get(re.compile(MODEL + "/stats"), _statistics, "What became of the model's requests"),
        post(re.compile(MODEL + "/infer"), _infer, "Tensors, or encoded pictures, in; tensors out"),
        post("/v2/repository/index", _index, "All models and versions, and their states"),
        post(re.compile(LOADED + "/load"), _load, "Takes a model into service, or looks for what is new of it"),
        post(re.compile(LOADED + "/unload"), _unload, "Takes a model out of service"),
    ]


async def _server(served: Served, request: Request) -> Response:
    return _json({"name": "fairway", "version": __version__, "extensions": openinference.EXTENSIONS})


async def _live(served: Served, request: Request) -> Response:
    if not served.engine.alive:
        raise NotReady("a call of the model hangs")
    return _json({"live": True})


async def _ready(served: Served, request: Request) -> Response:
    if not (served.engine.ready and served.repository.ready):
        raise NotReady("the worker is draining" if served.engine.draining else "the worker is not ready")
    return _json({"ready": True})


async def _model_ready(served: Served, request: Request, name: str, version: str = "") -> Response:
    openinference.require_ready(served.engine, served.repository, name, version)
    return _json({"name": name, "ready": True})


async def _metadata(served: Served, request: Request, name: str, version: str = "") -> Response:
    model = openinference.find(served.repository, name, version)
    return _json(openinference.metadata(served.repository, model))


async def _statistics(served: Served, request: Request, name: str = "", version: str = "") -> Response:
    return _json(openinference.statistics(served.engine, served.repository, name, version))


async def _infer(served: Served, request: Request, name: str, version: str = "") -> Response:
    model = openinference.find(served.repository, name, version)
    length = wire.header_length(request.headers.get(LENGTH), len(request.body))
    if length == 0:
        asked = _only_tensor(request, model)
    else:
        asked = await run(len(request.body) if length is None else length, wire.decode_request, request.body, length)
    response, binary, answer = await openinference.infer(served.engine, model, asked, request.deadline)
    characters = 8 * sum(array.size for name, array in response.outputs.items() if name not in binary)
    pieces, json_length = await run(characters, wire.encode_response, response, binary)
    headers: dict[str, str] = {FIELD: timing(answer)}
    if json_length is None:
        return Response(pieces, headers=headers)
    return Response(pieces, content_type=wire.BINARY, headers=headers | {wire.HEADER: str(json_length)})


def _only_tensor(request: Request, model: Model) -> wire.InferRequest:
    """The body is the model's only input; a model that sees pictures may get one instead."""
    signature = model.loaded.signatures[model.loaded.default]
    if model.card is None:
        return wire.decode_raw(request.body, signature)
    body = request.body
    if int.from_bytes(body[:4], "little") == len(body) - 4 and body.startswith(PICTURES, 4):
        body = body[4:]  # with its length before it, as among other tensors
    if not (request.content_type.startswith("image/") or body.startswith(PICTURES)):
        try:
            return wire.decode_raw(request.body, signature)
        except BadRequest:
            pass  # what it is instead, or is not, the decoder of pictures can tell
    return openinference.picture(body)


async def _index(served: Served, request: Request) -> Response:
    only_ready = _options(request).get("ready", False)
    if not isinstance(only_ready, bool):
        raise BadRequest(f"ready is {only_ready!r:.40}; expected true or false")
    return _json(openinference.index(served.repository, only_ready))


async def _load(served: Served, request: Request, name: str) -> Response:
    if _options(request).get("parameters"):
        raise BadRequest("a model is loaded as it lies in its folder; parameters like config are not taken")
    await served.repository.load(name)
    return Response()


async def _unload(served: Served, request: Request, name: str) -> Response:
    _options(request)  # `unload_dependents` means nothing here: no model needs another one
    await served.repository.unload(name)
    return Response()


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value))


def _options(request: Request) -> dict[str, Any]:
    return wire.read_json(request.body) if request.body.strip() else {}
