"""One image, taken to one address, once: HTTP, and what each way to fail means for whoever wants to try again."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import aiohttp
from aiohttp import ClientTimeout, hdrs
from yarl import URL

from ..registry import lookup
from ..registry.errors import WireError
from ..worker.wire import answer
from .errors import Busy, ClientError, DeadlineExceeded, ImageRefused, InputRefused, NoWorker, Unreachable, WorkerFailed
from .retry import TELLING, Failure, retry_after

CONNECT_SECONDS = 2.0
T = TypeVar("T")


class Failed(Exception):
    """One attempt failed, in a way that may be tried again; `error` is what the caller gets if it is not.

    `told`: seconds after which the server said that we may come again; `reason`: why nobody was reached.
    """

    def __init__(self, failure: Failure, error: ClientError, told: float | None = None, reason: str = "") -> None:
        super().__init__(str(error))
        self.failure, self.error, self.told, self.reason = failure, error, told, reason


@dataclass(frozen=True)
class Parcel(Generic[T]):
    """What is uploaded: `path` with its query, below a server's root. `read`: headers and body of the answer -> what it
    says, which `noun` is the name of; raises ValueError if it says something else. `refused`: what a 4xx means.
    """

    path: str
    body: bytes
    headers: Mapping[str, str]
    read: Callable[[Mapping[str, str], bytes], T]
    noun: str
    refused: type[InputRefused] = ImageRefused


@dataclass(frozen=True)
class _Said:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Courier:
    """A context manager. `stall_seconds`: for so long nothing of an upload is taken, or no answer comes: it is given up."""

    def __init__(self, headers: Mapping[str, str], stall_seconds: float) -> None:
        self._headers, self._stall_seconds = dict(headers), stall_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = new_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def upload(self, url: str, parcel: Parcel[T]) -> T:
        """Raises Failed, or a ClientError where to try again would not help."""
        said = await self._ask(hdrs.METH_POST, url, parcel.headers, parcel.body)
        if said.status != 200:
            raise _error(url, said, parcel.refused)
        try:
            return parcel.read(said.headers, said.body)
        except ValueError as error:
            raise WorkerFailed(f"{url} answered 200, but not with {parcel.noun}: {error}") from error

    async def redirect(self, url: str, parcel: Parcel[T]) -> str:
        """Where to upload to instead. Raises what `upload` raises.

        With Expect the proxy answers before the body is sent, so it is uploaded only once.
        """
        said = await self._ask(hdrs.METH_POST, url, parcel.headers, parcel.body, expect=True)
        location = said.headers.get(hdrs.LOCATION)
        if said.status == 307 and location is not None:
            try:
                origin(location)
            except ValueError as error:
                raise WorkerFailed(f"{url} redirects to {location!r}, which is no server's address") from error
            return location
        if said.status in (200, 307):
            raise WorkerFailed(f"{url} answered {said.status}, but not where to upload to")
        raise _error(url, said, parcel.refused)

    async def look_up(self, url: str) -> lookup.Lookup:
        """Raises what `upload` raises; there is at least one instance in it."""
        try:
            said = await self._ask(hdrs.METH_GET, url + "/", {hdrs.ACCEPT: "application/json"}, b"")
        except Failed as failed:
            if not isinstance(failed.error, Unreachable):
                raise
            text = f"no proxy answers at {url} ({failed.reason}); start one with scripts/launch"
            raise Failed(failed.failure, Unreachable(text)) from failed
        if said.status in TELLING or said.status == 404:
            raise _error(url, said)
        try:
            found = lookup.decode(said.body)
        except WireError as error:
            raise WorkerFailed(f"{url} does not hand out addresses ({said.status}): {error}") from error
        if not found.instances:
            raise Failed(Failure.BUSY, NoWorker(f"{url} knows no worker of {found.service!r}"))
        return found

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes, expect: bool = False) -> _Said:
        assert self._session is not None, "use `async with Client(...)`"
        loop, data = asyncio.get_running_loop(), _Taken(body) if body else None
        try:
            async with asyncio.timeout(self._stall_seconds) as timer:
                if data is not None:
                    data.taken = lambda: timer.reschedule(loop.time() + self._stall_seconds)
                async with self._session.request(
                    method,
                    url,
                    data=data,
                    headers={**headers, **self._headers},
                    allow_redirects=False,
                    expect100=expect,
                ) as response:
                    return _Said(response.status, response.headers, await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            why = reason(error)
            raise Failed(Failure.NOT_SENT, Unreachable(f"cannot reach {url}: {why}"), reason=why) from error
        except TimeoutError as error:
            text = f"nothing came from {url} for {self._stall_seconds:g} s"
            raise Failed(Failure.TIMEOUT, DeadlineExceeded(text)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(Failure.BROKEN, WorkerFailed(f"{url} broke the connection: {error}")) from error
        finally:
            if data is not None:
                data.taken = None  # what still reads it does so for nobody


class _Taken(io.BytesIO):
    """A body that tells when the next piece of it is asked for: all before it was taken."""

    taken: Callable[[], None] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.taken is not None:
            self.taken()
        return super().read(size)


def origin(url: str) -> str:
    """`http://HOST:PORT/`, by which servers are told apart."""
    return f"{URL(url).origin()}/"


def _error(url: str, said: _Said, refused: type[InputRefused] = InputRefused) -> Exception:
    text = answer.decode_error(said.body)
    status, told = said.status, retry_after(said.headers.get(hdrs.RETRY_AFTER))
    error: ClientError
    match status:
        case 429:
            error = Busy(text)
        case 503 | 404 | 405:  # no such service, or not in this mode: never about the image
            error = NoWorker(text)
        case 408 | 504:
            error = DeadlineExceeded(text)
        case _ if 400 <= status < 500:
            error = refused(text, status)
        case _:
            error = WorkerFailed(f"{url} answered {status}: {text}")
    return Failed(TELLING[status], error, told) if status in TELLING else error


def new_session() -> aiohttp.ClientSession:
    """Connections without a limit, no cookies, and no time but that for connecting: who asks keeps its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
    )


def reason(error: Exception) -> str:
    """`Connection refused`, without the address that aiohttp repeats; may be empty.

    What a resolver or TLS calls errno are numbers of their own, and not the system's.
    """
    foreign = isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError))
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode and not foreign:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)
