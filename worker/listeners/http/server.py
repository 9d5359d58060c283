"""HTTP: the article's upload, and raw bodies.

POST /        multipart field `data` (or the only file), or the image itself as the body; `?top=K`
PUT  /NAME    the same, as `curl -T x.jpg` sends it
GET  /healthz alive?    GET /readyz  taking requests?

Every answer says how busy the worker is, for those who choose between workers (`wire/load.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from ...errors import BadRequest, Overloaded, TooLarge, WorkerError
from ...wire import answer, load, multipart

if TYPE_CHECKING:
    from ...config import WorkerSettings
    from ...engine import Engine

log = logging.getLogger("fairway.worker")

KEEP_ALIVE_SECONDS = 120.0  # longer than any proxy keeps an idle connection, so that it is never we who cut one in use
STALL_SECONDS = 30.0  # an upload that makes no progress for this long is given up
RETRY_AFTER = {"Retry-After": "1"}


class HttpListener:
    """`app` for one engine; `in_flight` counts requests being read or answered."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self._engine = engine
        self._max_bytes = settings.max_bytes
        self._uploads = 0  # being read, waiting or running: each may hold max_bytes
        self._name = settings.service
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.app = web.Application(middlewares=[self._around], handler_args={"keepalive_timeout": KEEP_ALIVE_SECONDS})
        add = self.app.router.add_route
        add("GET", "/healthz", self._healthz)
        add("GET", "/readyz", self._readyz)
        add("POST", "/", self._classify, expect_handler=self._expect)
        add("PUT", "/{name:[^/]*}", self._classify, expect_handler=self._expect)

    async def idle(self) -> None:
        """Until no request is being read or answered."""
        await self._idle.wait()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        state = "draining" if self._engine.draining else "ready" if self._engine.ready else "loading"
        return web.json_response(
            {
                "status": state,
                "service": self._name,
                "model": self._engine.model.name,
                "version": self._engine.model.version,
            },
            status=200 if self._engine.ready else 503,
        )

    async def _classify(self, request: web.Request) -> web.Response:
        top = answer.top_of(request.query.get("top"))
        self._check_room()
        self._uploads += 1
        try:
            return await self._taken(request, top)
        finally:
            self._uploads -= 1

    async def _taken(self, request: web.Request, top: int) -> web.Response:
        body = await self._read(request)
        upload: bytes | memoryview = body
        if request.content_type == "multipart/form-data":
            upload = multipart.image_field(body, request.headers[hdrs.CONTENT_TYPE])
        if not len(upload):
            raise BadRequest("the upload is empty: send an image as multipart field 'data', or as the body")
        prediction = await self._engine.classify(upload, top)
        return web.Response(body=answer.encode(prediction), content_type="application/json")

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """`100 Continue` only once the declared size is acceptable: a refused body is never sent.

        Runs outside the middleware, so errors are answered here.
        """
        try:
            self._check_size(request)
            self._check_room()
        except WorkerError as error:
            return self._refused(error.status, str(error))
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return self._refused(417, f"unknown Expect: {request.headers[hdrs.EXPECT]}")
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _read(self, request: web.Request) -> bytes:
        self._check_size(request)
        chunks: list[bytes] = []
        received = 0
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    chunk = await request.content.readany()
            except TimeoutError as error:
                raise BadRequest(f"the upload stood still for {STALL_SECONDS:.0f} s") from error
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            received += len(chunk)
            if received > self._max_bytes:
                raise TooLarge(f"the upload has more than {self._max_bytes} bytes, which is all that is accepted")
            chunks.append(chunk)

    def _check_room(self) -> None:
        if self._uploads >= self._engine.max_waiting:
            raise Overloaded(f"{self._uploads} uploads are held already; try again in a second, or elsewhere")

    def _refused(self, status: int, text: str) -> web.Response:
        """The body may still come: what follows on this connection could not be told from a request."""
        response = self._error(status, text)
        response.headers[load.FIELD] = self._load()
        response.force_close()
        return response

    def _check_size(self, request: web.Request) -> None:
        if (request.content_length or 0) > self._max_bytes:
            raise TooLarge(f"the upload has {request.content_length} bytes; at most {self._max_bytes} are accepted")

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.in_flight += 1
        self._idle.clear()
        try:
            response = await handler(request)
        except WorkerError as error:
            response = self._error(error.status, str(error))
        except web.HTTPException as error:
            response = self._http_error(request, error)
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client is gone; nobody is left to answer
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = self._error(500, "the worker failed; its log says why")
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
        response.headers[load.FIELD] = self._load()
        if self._engine.draining:
            response.force_close()
        return response

    def _load(self) -> str:
        """Without the request that is being answered."""
        engine = self._engine
        return load.encode(self.in_flight, max(0, engine.waiting - 1), engine.waiting / engine.max_waiting)

    def _http_error(self, request: web.Request, error: web.HTTPException) -> web.Response:
        status, text, headers = error.status, error.reason, {}
        if isinstance(error, web.HTTPMethodNotAllowed):
            if error.allowed_methods == {"PUT"}:
                status = 404  # a name that an upload may bear is not yet a place
            else:
                headers = {"Allow": error.headers["Allow"]}
                text = f"{request.method} will not do here: send an image with POST to /"
        if status == 404:
            text = f"nothing at {request.path}: send an image with POST to /"
        return self._error(status, text, headers)

    def _error(self, status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
        more = RETRY_AFTER if status in (429, 503) else {}
        return web.Response(
            body=answer.encode_error(text),
            status=status,
            content_type="application/json",
            headers={**(headers or {}), **more},
        )
