"""Carries an upload to a worker and the answer back.

The first `replay_bytes` of an upload are held until a worker has begun to answer: so long as the whole upload is held, a
worker that dies, refuses or drains costs a retry on another one, not an error. Longer uploads stream through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientTimeout, hdrs, web
from yarl import URL

from ..client.pool import Outcome, Upstream
from ..client.resolver import Resolver
from ..client.retry import Budget, Failure, may_retry
from .config import ProxySettings
from .errors import BadRequest, BodyTooLarge, DeadlineExceeded, NotFound, NoWorker, UnknownExpectation, WorkerLost
from .head import downstream_fields, upstream_fields
from .route import Route

log = logging.getLogger("fairway.proxy")

POOL_IDLE_SECONDS = 60.0  # shorter than a worker keeps idle connections: it is we who close them


@dataclass
class Upload:
    """`held`: what was read so far. `rest`: what is still to come, None when nothing is."""

    held: bytes
    rest: AsyncIterator[bytes] | None
    length: int | None
    streamed: bool = False

    @property
    def replayable(self) -> bool:
        return not self.streamed

    def body(self) -> bytes | AsyncIterator[bytes] | None:
        return self._stream(self.rest) if self.rest is not None else self.held or None

    async def _stream(self, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.streamed = True
        yield self.held
        async for chunk in rest:
            yield chunk


class Forwarder:
    def __init__(self, settings: ProxySettings, resolver: Resolver) -> None:
        self._settings, self._resolver = settings, resolver
        self._budget = Budget()

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
        chosen = await self._resolver.choose(route.service, (), settings.wait_seconds)
        if chosen is None:
            raise no_worker(route, self._resolver)
        await self._continue(request)
        upload = await self._read(request)
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
            wait = min(settings.wait_seconds, deadline - now())
            # A worker that is gone may already be missing from the list: whoever is left, or comes, is the next.
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
            [(name, value) for name, value in request.headers.items()],
            request.remote or "",
            request.scheme,
            upload.length if upload.rest is not None else len(upload.held),
        )
        started = False
        try:
            async with asyncio.timeout_at(deadline) as timer:
                async with self._session.request(
                    request.method,
                    URL(f"http://{address}{route.target}", encoded=True),
                    headers=fields,
                    data=upload.body(),
                    allow_redirects=False,
                ) as answer:
                    timer.reschedule(None)  # from here on, progress is what counts
                    if answer.status in (429, 503) and upload.replayable:
                        raise _Failed(Failure.BUSY, f"answered {answer.status}", await _whole(answer))
                    started = True
                    return await self._relay(request, answer)
        except TimeoutError as error:
            failure = Failure.STARTED if started else Failure.TIMEOUT
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                failure = Failure.NOT_SENT
            raise _Failed(failure, "no answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise _Failed(Failure.NOT_SENT, str(error)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error, ConnectionError) and not isinstance(error, aiohttp.ClientError):
                raise  # the client's side
            raise _Failed(Failure.STARTED if started else Failure.BROKEN, str(error) or type(error).__name__) from error

    async def _relay(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.clear()
        response.headers.extend(downstream_fields(list(answer.headers.items())))
        if answer.content_length is not None and (answer.status not in (204, 304)):
            response.content_length = answer.content_length
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response

    async def _continue(self, request: web.BaseRequest) -> None:
        """A worker is chosen and the size is right: now the body may come."""
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


class _Failed(Exception):
    """One attempt failed. `answer`: what the worker said, to be passed on when nobody else is there to ask."""

    def __init__(self, failure: Failure, text: str, answer: web.Response | None = None) -> None:
        super().__init__(text)
        self.failure, self.answer = failure, answer

    def error(self) -> Exception:
        if self.failure is Failure.TIMEOUT:
            return DeadlineExceeded("the worker did not answer in time")
        return WorkerLost(f"the worker was lost, and no other one could take the upload: {self}")


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
