"""A way to a worker, one attempt at a time: no second try hides a failure, and a failure's kind is told.

By address each client keeps its own addresses, as the library's does; a look-up is part of the latency of the request that
needs it. By redirect the proxy is asked each time.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from ...registry import lookup
from ...registry.errors import ConfigurationError, WireError
from ...worker.wire import answer, timing
from ..addresses import AddressCache
from ..config import Via
from ..courier import new_session, origin, reason
from ..retry import CLIENT_AGAIN, Failure
from .tally import BROKEN, CONNECT, NO_PREDICTION, TIMEOUT, WRONG, Reply
from .uploads import Upload

OF_ONE_PIECE = 1 << 20  # bytes; longer bodies aiohttp wants as a file
# What it says of a worker whose address is kept, by kind; what is not here says nothing against him.
RESTS = {
    CONNECT: Failure.NOT_SENT,
    BROKEN: Failure.BROKEN,
    TIMEOUT: Failure.TIMEOUT,
    "429": Failure.BUSY,
    "503": Failure.BUSY,
}


# A line of the proxy's metrics: who, and how many.
FORWARDED = re.compile(r'^fairway_proxy_requests_total\{[^}]*worker="([^"]+)",code="200"\} ([0-9]+)', re.M)


class Book:
    """The addresses that one client holds."""

    def __init__(self) -> None:
        self.cache, self.asking = AddressCache(), asyncio.Lock()


class _Failed(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Way:
    """A context manager. `url`: a proxy's, or by forward also a worker's; `timeout`: seconds for one image."""

    def __init__(self, url: str, via: Via, timeout: float, model: str = "", service: str = "", several: bool = False):
        """`several`: there are other URLs, so that the name must tell them apart."""
        self.via, self._timeout = via, timeout
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        try:
            at = URL(self.url)
            if at.scheme not in ("http", "https") or not at.host:
                raise ValueError("http://HOST:PORT is expected")
        except ValueError as error:
            raise ConfigurationError(f"--url: {url!r} will not do: {error}") from error
        self.at = f"{at.host}:{at.port}"
        self.name = f"{via} {self.at}" if several else via
        self._path = f"v1/models/{quote(model, safe='')}:image" if model else ""
        self._service = {"X-Fairway-Service": service} if service else {}
        self._targets: dict[str, tuple[URL, str]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = new_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def send(self, upload: Upload, book: Book) -> Reply:
        """Never raises but when it is cancelled."""
        place, worker = "", ""
        try:
            async with asyncio.timeout(self._timeout):
                if self.via == "address":
                    place = await self._next(book)
                elif self.via == "redirect":
                    place = await self._redirect(upload)
                url, worker = self._target(place or f"{self.url}/")
                status, headers, body = await self._ask(hdrs.METH_POST, url, upload.headers, upload.body)
                if status != 200:
                    raise _Failed(str(status), _said(url, status, body))
        except _Failed as failed:
            return self._heard(place, book, Reply(failed.kind, failed.text, worker))
        except TimeoutError:
            text = f"no answer from {place or self.url} within {self._timeout:g} s"
            return self._heard(place, book, Reply(TIMEOUT, text, worker))
        if place:
            book.cache.answered(place)
        try:
            label = _label(body)
        except ValueError as error:
            return Reply(NO_PREDICTION, f"{url} answered 200, but not with a prediction: {error}", worker)
        if label != upload.label:
            if upload.label:
                return Reply(WRONG, f"{url} says {label} of {upload.name}, which was {upload.label} before", worker)
            upload.label = label
        known = worker if self.via != "forward" else ""
        return Reply("", "", known, ", ".join(headers.getall(timing.FIELD, ())), len(upload.body))

    async def served(self) -> dict[str, int] | None:
        """HOST:PORT of workers -> how many uploads this proxy has ever had answered by each; empty if it does not tell.

        None: it is no proxy of ours, and whoever answers is this one.
        """
        try:
            async with asyncio.timeout(5):
                status, _, page = await self._ask(hdrs.METH_GET, URL(f"{self.url}/-/workers?format=json"), {}, b"")
                if status != 200:
                    return None if status == 404 else {}
                _, _, text = await self._ask(hdrs.METH_GET, URL(f"{self.url}/-/metrics"), {}, b"")
            return _served(page, text)
        except (_Failed, TimeoutError, ValueError, KeyError, TypeError):
            return {}

    def _heard(self, place: str, book: Book, reply: Reply) -> Reply:
        failure = RESTS.get(reply.kind)
        if self.via == "address" and place and failure is not None:
            book.cache.failed(place, monotonic(), CLIENT_AGAIN[failure][1], ill=failure is not Failure.BUSY)
        return reply

    def _target(self, place: str) -> tuple[URL, str]:
        """`place`: a server's root, or where the proxy redirected to -> the URL to upload to, and HOST:PORT."""
        known = self._targets.get(place)
        if known is None:
            url = URL(place if self.via == "redirect" else place + self._path, encoded=True)
            known = self._targets[place] = (url, f"{url.host}:{url.port}")
        return known

    async def _next(self, book: Book) -> str:
        cache = book.cache
        if not cache.fresh(monotonic()):
            async with book.asking:
                if not cache.fresh(monotonic()):
                    await self._look_up(cache)
        return cache.next(monotonic())

    async def _look_up(self, cache: AddressCache) -> None:
        status, _, body = await self._ask(
            hdrs.METH_GET, URL(f"{self.url}/"), {hdrs.ACCEPT: "application/json", **self._service}, b""
        )
        if status != 200:
            raise _Failed(str(status), _said(self.url, status, body))
        try:
            found = lookup.decode(body)
        except WireError as error:
            raise _Failed(NO_PREDICTION, f"{self.url} does not hand out addresses: {error}") from error
        if not found.instances:
            raise _Failed("503", f"{self.url} knows no worker of {found.service!r}")
        cache.fill(found, monotonic())

    async def _redirect(self, upload: Upload) -> str:
        url = URL(f"{self.url}/-/direct/{self._path}", encoded=True)
        status, headers, body = await self._ask(hdrs.METH_POST, url, upload.headers, upload.body, expect=True)
        location = headers.get(hdrs.LOCATION)
        if status == 307 and location:
            try:
                origin(location)
            except ValueError as error:
                raise _Failed(
                    NO_PREDICTION, f"{url} redirects to {location!r}, which is no server's address"
                ) from error
            return str(location)
        if status in (200, 307):
            raise _Failed(NO_PREDICTION, f"{url} answered {status}, but not where to upload to")
        raise _Failed(str(status), _said(url, status, body))

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes, expect: bool = False
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        assert self._session is not None, "use `async with`"
        data = (io.BytesIO(body) if len(body) > OF_ONE_PIECE else body) if body else None
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, expect100=expect
            ) as response:
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Failed(CONNECT, f"cannot reach {url.origin()}: {reason(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):  # ours: the time for one image is over
                raise
            raise _Failed(BROKEN, f"{url.origin()} broke the connection: {reason(error)}") from error

    def __repr__(self) -> str:
        return f"<Way {self.via} {self.url}>"


@lru_cache(4096)  # the same answers come again and again
def _label(body: bytes) -> str:
    """The best label. Raises ValueError."""
    return next(iter(answer.decode(body)))[0]


def _said(url: object, status: int, body: bytes) -> str:
    return f"{url} answered {status}: {' '.join(answer.decode_error(body).split())}"


def _served(page: bytes, metrics: bytes) -> dict[str, int]:
    """From the proxy's two pages. Raises ValueError, KeyError, TypeError."""
    rows = [row for members in json.loads(page)["services"].values() for row in members]
    places = {row["id"]: f"{row['host']}:{row['port']}" for row in rows}
    return {places.get(id, id): int(count) for id, count in FORWARDED.findall(metrics.decode())}
