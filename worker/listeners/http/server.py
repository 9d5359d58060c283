"""HTTP: what is around every request: which handler it means, whether there is room for it, and what every answer says.

Every answer says how busy the worker is, for those who choose between workers (`wire/load.py`), and one that came out of
the model where its time went (`wire/timing.py`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from ....registry.prometheus import family
from ...errors import TooLarge, WorkerError
from ...wire import content_encoding, load
from ...wire.openinference import HEADER
from ...wire.timing import FIELD as SERVER_TIMING
from ...wire.timing import Timing, completed
from . import images, openinference, pages, tfserving
from .errors import UnsupportedCoding
from .head import Head
from .message import JSON, Request, Response, Route, Served
from .protocol import Connection
from .reply import refusal
from .router import Matched, Router

if TYPE_CHECKING:
    from ...config import WorkerSettings

log = logging.getLogger("fairway.worker")

READ_BYTES = 256 * 1024  # at once
SWEEP_SECONDS = 0.25  # how late a deadline may be noticed
CLOSE_SECONDS = 1.0  # how long clients may take to see that their connection ends
SMALL_BYTES = 64 * 1024  # a compressed body up to this size is read in the loop, a larger one in a thread
JSON_LENGTH = HEADER.lower()  # of JSON that bytes follow
PREFLIGHT = {"Access-Control-Allow-Methods": "POST, GET", "Access-Control-Allow-Headers": "Content-Type"}


class HttpListener:
    """`in_flight`: requests being read or answered. `uploads`: those of them that hold, or will hold, a body.

    `buffer`: what all connections read into; what is in it is taken out before another one reads.
    """

    def __init__(self, served: Served, settings: WorkerSettings) -> None:
        self._served, self._engine = served, served.engine
        self.max_bytes, self.deadline_seconds = settings.max_bytes, settings.deadline_seconds
        self._max_json = settings.max_json_bytes
        self.router = Router(routes(served, self.metrics))
        self.connections: set[Connection] = set()
        self.buffer = bytearray(READ_BYTES)
        self.in_flight = self.uploads = 0
        self.answers: Counter[int] = Counter()  # by status
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()  # the last connection did
        self._cors = "Access-Control-Allow-Origin: *\r\n" if served.cors else ""
        self._server: asyncio.Server | None = None

    async def start(self, bound: socket.socket) -> None:
        """Listens on `bound`, and answers."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=bound, backlog=1024)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    def stop_listening(self) -> None:
        """No further connection is taken; those there are go on."""
        if self._server is not None:
            self._server.close()

    async def idle(self) -> None:
        """Until no request is being read or answered."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def close(self) -> None:
        """Ends all connections: those at rest politely."""
        self.stop_listening()
        if self._server is None:
            return
        for connection in list(self.connections):
            connection.finish()
        self._ended.clear()
        if self.connections:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                pass
        for connection in list(self.connections):
            connection.abort()
        self._sweeper.cancel()
        await asyncio.sleep(0)

    def metrics(self) -> str:
        """The server's own numbers, as Prometheus reads them."""
        lines: list[str] = []
        family(lines, "fairway_worker_http_answers", "counter", "answers over HTTP, by status")
        lines += [f'fairway_worker_http_answers{{status="{status}"}} {n}' for status, n in sorted(self.answers.items())]
        for name, help, value in (
            ("connections", "connections of clients", len(self.connections)),
            ("in_flight", "requests being read or answered", self.in_flight),
            ("uploads", "those of them that hold a body", self.uploads),
        ):
            family(lines, f"fairway_worker_http_{name}", "gauge", help)
            lines.append(f"fairway_worker_http_{name} {value}")
        return "\n".join([*lines, ""])

    # -- called by connections ----------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._engine.draining

    def admit(self, head: Head) -> Matched:
        """What to do with a request, before its body is read. Raises WorkerError if nothing."""
        if head.method == "OPTIONS" and self._cors and "origin" in head.headers:
            return Matched(Route("OPTIONS", head.path, _preflight), {})
        matched = self.router.find(head.method, head.path)
        if head.length == 0:
            return matched
        if head.length is not None and head.length > self.max_bytes:
            raise self.too_large(head.length)
        if head.length is not None and head.length > self._max_json and _says_json(head):
            raise self._too_much_json(head.length)
        engine = self._engine
        if self.uploads >= engine.max_waiting:
            raise engine.overloaded(self.uploads)
        if "content-encoding" in head.headers:
            coding = _coding(head)
            if coding not in content_encoding.CODINGS:
                raise UnsupportedCoding(f"Content-Encoding: {coding[:40]!r}: expected gzip, deflate, or none")
        return matched

    def too_large(self, length: int | None) -> TooLarge:
        """`length`: None where it turned out."""
        if length is None:
            return TooLarge(f"the upload has more than {self.max_bytes} bytes, which is all that is accepted")
        return TooLarge(f"the upload has {length} bytes; at most {self.max_bytes} are accepted")

    def _too_much_json(self, length: int) -> TooLarge:
        return TooLarge(
            f"the JSON has {length} bytes; at most {self._max_json} are read (--max-json-bytes). Send numbers as "
            "application/x-npy, or as binary tensors of the Open Inference Protocol, and pictures as they are"
        )

    def _bounded(self, request: Request) -> None:
        """Raises TooLarge for more JSON than is read. What begins like JSON is taken for it, whatever it is called."""
        size = len(request.body)
        if size > self._max_json:
            length = request.headers.get(JSON_LENGTH, "").strip() if _mixed(request) else ""
            if length.isascii() and length.isdigit():
                size = min(size, int(length[:15]))
            elif not (_says_json(request) or request.body[:64].lstrip().startswith((b"{", b"["))):
                return
            if size > self._max_json:
                raise self._too_much_json(size)

    def handle(self, head: Head, matched: Matched, body: bytes) -> tuple[Coroutine[Any, Any, Response], float]:
        """A request that came whole -> its handler, at work, and when nobody waits for it any longer."""
        deadline = monotonic() + self.deadline_seconds
        request = Request(head.method, head.path, head.raw_query, head.headers, body, deadline)
        route, groups = matched
        if body and "content-encoding" in head.headers:
            return self._decoded(request, _coding(head), matched), deadline
        if len(body) > self._max_json:
            return self._large(request, matched), deadline
        return route.handler(request, **groups), inf if route.patient else deadline

    def failure(self, error: BaseException | None) -> Response:
        """The answer to a request whose handler raised."""
        if isinstance(error, WorkerError):
            return refusal(error)
        if not isinstance(error, asyncio.CancelledError):
            log.error("a request failed", exc_info=error)
        return refusal(WorkerError("the worker failed; its log says why"))

    def fields(self, response: Response, began: float) -> str:
        """The lines that every answer has. `began`: when its request had come whole; 0: it did not."""
        self.answers[response.status] += 1
        spent = response.headers.get(SERVER_TIMING)
        if isinstance(spent, Timing):
            response.headers[SERVER_TIMING] = completed(spent, monotonic() - began)
        _, queue, utilisation = self._engine.load()
        return f"{load.FIELD}: {load.encode(self.in_flight, queue, utilisation)}\r\n{self._cors}"

    def left(self, connection: Connection) -> None:
        """It is closed."""
        self.connections.discard(connection)
        if not self.connections:
            self._ended.set()

    def settle(self, upload: bool) -> None:
        """A request is answered, or nobody waits for it."""
        self.in_flight -= 1
        if upload:
            self.uploads -= 1
        if not self.in_flight:
            self._idle.set()

    async def _decoded(self, request: Request, coding: str, matched: Matched) -> Response:
        body = request.body
        if len(body) <= SMALL_BYTES:
            request.body = content_encoding.decode(body, coding, self.max_bytes)
        else:
            loop = asyncio.get_running_loop()
            request.body = await loop.run_in_executor(None, content_encoding.decode, body, coding, self.max_bytes)
        return await self._large(request, matched)

    async def _large(self, request: Request, matched: Matched) -> Response:
        self._bounded(request)
        return await matched.route.handler(request, **matched.groups)

    def _sweep(self) -> None:
        now = monotonic()
        for connection in [connection for connection in self.connections if connection.deadline <= now]:
            connection.expire(now)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def __repr__(self) -> str:
        return f"<HttpListener {len(self.connections)} connections, {self.in_flight} in flight>"


def routes(served: Served, of_http: Callable[[], str]) -> list[Route]:
    """All that is spoken over HTTP."""
    found = [*images.routes(served), *tfserving.routes(served), *openinference.routes(served)]
    return [*found, *pages.routes(served, found, of_http)]


def _mixed(request: Head | Request) -> bool:
    """Whether it says that only a part of its body is JSON, where that is heeded."""
    path = request.path
    return JSON_LENGTH in request.headers and path.startswith("/v2/") and path.endswith("/infer")


def _says_json(request: Head | Request) -> bool:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return said == JSON and not _mixed(request)


def _coding(head: Head) -> str:
    return head.headers["content-encoding"].strip().lower()


async def _preflight(request: Request) -> Response:
    """What a browser asks before it lets a page of another site send JSON."""
    return Response(b"", 200, JSON, dict(PREFLIGHT))
