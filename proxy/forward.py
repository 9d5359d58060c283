"""Carries an upload to a worker and the answer back.

The first `replay_bytes` of an upload are held until a worker has begun to answer: so long as the whole upload is held, a
worker that dies, refuses or drains costs a retry on another one, not an error. Longer uploads stream through.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientTimeout, hdrs, web
from yarl import URL

from ..client.pool import Outcome, Upstream
from ..client.resolver import Resolver
from ..client.retry import Budget, Failure, may_retry
from .config import ProxySettings
from .errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    NotFound,
    NoWorker,
    ProxyError,
    UnknownExpectation,
    WorkerLost,
)
from .head import downstream_fields, upstream_fields
from .route import Route

log = logging.getLogger("fairway.proxy")

POOL_IDLE_SECONDS = 60.0  # shorter than a worker keeps idle connections: it is we who close them


def _nobody(worker: bool) -> None:
    """Nobody's turn: no stream is being timed."""


@dataclass
class Upload:
    """`held`: what was read so far. `rest`: what is still to come, None when nothing is.

    While it streams, `turn(True)` says that the worker is to take a piece, `turn(False)` that the client is to bring one;
    `fault` is what went wrong on the client's side, which aiohttp would report as the worker's.
    """

    held: bytes
    rest: AsyncIterator[bytes] | None
    length: int | None
    streamed: bool = False
    fault: Exception | None = None
    turn: Callable[[bool], None] = _nobody

    @property
    def replayable(self) -> bool:
        return not self.streamed

    def body(self) -> io.BytesIO | AsyncIterator[bytes] | None:
        if self.rest is not None:
            return self._stream(self.rest)
        return io.BytesIO(self.held) if self.held else None

    async def _stream(self, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.streamed = True
        yield self.held
        while True:
            self.turn(False)
            try:
                chunk = await anext(rest, b"")
            except (ProxyError, ConnectionError) as error:
                self.fault = error
                raise
            self.turn(True)
            if not chunk:
                return
            yield chunk


class Forwarder:
    def __init__(self, settings: ProxySettings, resolver: Resolver) -> None:
        self._settings, self._resolver = settings, resolver
        self._budget = Budget()
        self.draining = False  # answers then say that their connection ends

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=POOL_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            timeout=ClientTimeout(
                total=None, sock_connect=self._settings.connect_seconds, sock_read=self._settings.stall_seconds
            ),
        )

    async def close(self) -> None:
        await self._session.close()

    async def forward(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Raises ProxyError's children; anything a worker says is passed on as it is."""
        settings, now = self._settings, asyncio.get_running_loop().time
        check_length(request, settings.max_body)
        if not await self._resolver.available(route.service, settings.wait_seconds):
            raise no_worker(route, self._resolver)
        await self._continue(request)
        upload = await self._read(request)
        # Chosen only now: an upload may take minutes, and who was the right one at its beginning may be gone at its end.
        chosen = await self._resolver.choose(route.service, (), settings.wait_seconds)
        if chosen is None:
            raise no_worker(route, self._resolver)
        self._budget.request(now())
        deadline, tried, last = now() + settings.deadline_seconds, set[str](), None
        while chosen is not None:
            pool, upstream = chosen
            tried.add(upstream.instance.id)
            outcome = Outcome.ABANDONED
            pool.started(upstream, now())
            try:
                answer = await self._attempt(request, route, upload, upstream, deadline)
                outcome = Outcome.GATEWAY if answer.status in (502, 504) else Outcome.ANSWERED
                return answer
            except _Failed as failed:
                last = failed
                # Busy is not ill: it answered.
                outcome = Outcome.ANSWERED if failed.failure is Failure.BUSY else Outcome.CONNECTION
            finally:
                pool.finished(upstream, outcome, now())
            log.info("%s %s at %s: %s", request.method, route.target, upstream.instance.address, last)
            if last.failure is Failure.STARTED:
                raise ConnectionResetError("the worker broke off in the middle of its answer")
            if not may_retry(last.failure, upload.replayable) or not self._budget.spend(now()):
                break
            # A worker that is gone may already be missing from the list: whoever is left, or comes, is the next.
            # To a cluster at its limit nobody comes; to wait would only hold the upload longer.
            full = last.answer is not None and last.answer.status == 429
            wait = 0 if full else min(settings.wait_seconds, deadline - now())
            chosen = await self._resolver.choose(route.service, tried, wait)
        assert last is not None
        if last.answer is not None:
            return last.answer
        raise last.error()

    async def _attempt(
        self, request: web.BaseRequest, route: Route, upload: Upload, upstream: Upstream, deadline: float
    ) -> web.StreamResponse:
        address = upstream.instance.address
        fields = upstream_fields(
            # The authority of an absolute target wins over the Host field (RFC 9112 3.2.2).
            [(name, request.host if name.lower() == "host" else value) for name, value in request.headers.items()],
            request.remote or "",
            request.scheme,
            upload.length if upload.rest is not None else len(upload.held),
        )
        headers = [field for field in fields if field[0] != hdrs.TRANSFER_ENCODING]  # aiohttp writes that one itself
        loop, started = asyncio.get_running_loop(), False
        try:
            async with asyncio.timeout_at(deadline) as timer:
                # A slow client uses up its own time, not the worker's.
                upload.turn = lambda worker: timer.reschedule(
                    loop.time() + self._settings.deadline_seconds if worker else None
                )
                async with self._session.request(
                    request.method,
                    URL(f"http://{address}{route.target}", encoded=True),
                    headers=headers,
                    data=upload.body(),
                    allow_redirects=False,
                ) as answer:
                    upload.turn = _nobody
                    timer.reschedule(None)  # from here on, progress is what counts
                    if answer.status in (429, 503) and upload.replayable:
                        raise _Failed(Failure.BUSY, f"answered {answer.status}", await _whole(answer))
                    started = True
                    return await self._relay(request, answer)
        except _ClientGone:
            raise
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            if upload.fault is not None:
                # An answer under way can only be broken off: a second one must not follow it.
                raise _ClientGone(str(upload.fault)) if started else upload.fault from error
            text = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            if isinstance(error, aiohttp.ClientConnectorError):
                text = f"{address}: {error.os_error.strerror or error.os_error}"
            raise _Failed(_failure(error, started), text) from error
        finally:
            upload.turn = _nobody

    async def _relay(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.clear()
        response.headers.extend(downstream_fields(list(answer.headers.items())))
        if answer.content_length is not None and (answer.status not in (204, 304)):
            response.content_length = answer.content_length
        if self.draining:
            response.force_close()
        await self._deliver(request, response.prepare(request))
        if request.method != hdrs.METH_HEAD:
            async for chunk in answer.content.iter_any():
                await self._deliver(request, response.write(chunk))
        await self._deliver(request, response.write_eof())
        return response

    async def _deliver(self, request: web.BaseRequest, writing: Awaitable[object]) -> None:
        """Writes to the client. One that left, or reads nothing for `stall_seconds`, is not the worker's fault."""
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                await writing
        except (TimeoutError, ConnectionError) as error:
            if request.transport is not None:
                request.transport.abort()  # what is unsent would otherwise hold the connection open
            raise _ClientGone("the client does not take its answer") from error

    async def _continue(self, request: web.BaseRequest) -> None:
        """There is a worker, and the size is right: now the body may come."""
        expect = request.headers.get(hdrs.EXPECT)
        if expect is None:
            return
        if expect.lower() != "100-continue":
            raise UnknownExpectation(f"Expect: {expect}: only 100-continue is understood")
        if request.transport is not None and request.version >= aiohttp.HttpVersion11:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _read(self, request: web.BaseRequest) -> Upload:
        chunks: list[bytes] = []
        size = 0
        body = self._chunks(request)
        async for chunk in body:
            chunks.append(chunk)
            size += len(chunk)
            if size >= self._settings.replay_bytes and size != request.content_length:
                return Upload(b"".join(chunks), body, request.content_length)
        return Upload(b"".join(chunks), None, size)

    async def _chunks(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The body as it comes, counted and timed. Raises BodyTooLarge, BadRequest, ConnectionError."""
        received = 0
        while True:
            try:
                async with asyncio.timeout(self._settings.stall_seconds):
                    chunk = await request.content.readany()
            except TimeoutError as error:
                raise BadRequest(f"the upload stood still for {self._settings.stall_seconds:g} s") from error
            except aiohttp.ClientPayloadError as error:
                raise ConnectionResetError("the client broke off its upload") from error
            if not chunk:
                return
            received += len(chunk)
            if received > self._settings.max_body:
                raise too_large(self._settings.max_body)
            yield chunk


class _ClientGone(ConnectionResetError):
    """The client broke off. The server it came through takes a ConnectionError for the end of the connection."""


class _Failed(Exception):
    """One attempt failed. `answer`: what the worker said, to be passed on when nobody else is there to ask."""

    def __init__(self, failure: Failure, text: str, answer: web.Response | None = None) -> None:
        super().__init__(text)
        self.failure, self.answer = failure, answer

    def error(self) -> Exception:
        if self.failure is Failure.TIMEOUT:
            return DeadlineExceeded("the worker did not answer in time")
        return WorkerLost(f"the worker was lost, and no other one could take the upload: {self}")


def _failure(error: Exception, started: bool) -> Failure:
    if started:
        return Failure.STARTED
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return Failure.NOT_SENT
    return Failure.TIMEOUT if isinstance(error, TimeoutError) else Failure.BROKEN


async def _whole(answer: aiohttp.ClientResponse) -> web.Response:
    return web.Response(
        status=answer.status,
        reason=answer.reason,
        headers=downstream_fields(list(answer.headers.items())),
        body=await answer.read(),
    )


def check_length(request: web.BaseRequest, most: int) -> None:
    if (request.content_length or 0) > most:
        raise too_large(most)


def too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the upload is larger than {most} bytes, which is all that is accepted")


def no_worker(route: Route, resolver: Resolver) -> Exception:
    """503 for a service that ought to be there; 404 for a name that nobody ever registered."""
    known = sorted(resolver.services())
    if route.named and route.service not in known and known:
        return NotFound(f"no service is called {route.service!r}; there are {', '.join(known)}")
    return NoWorker(f"no worker serves {route.service!r} at the moment; try again in a second")
