"""Find a worker, send it an image: the client library.

    async with Client("http://127.0.0.1:12480") as client:
        print(await client.classify("daisy.jpg"))

By address: the proxy is asked for a few workers at a time; their addresses are kept for the time it allows and used in
turn. A worker that cannot be reached is left out and the next is tried, all within one deadline.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import ClientTimeout, hdrs

from ..registry import lookup
from ..registry.errors import WireError
from ..worker.tensor import Prediction
from ..worker.wire import answer, multipart
from .addresses import AddressCache
from .config import Via
from .errors import Busy, ClientError, DeadlineExceeded, ImageRefused, NoWorker, Unreachable, WorkerFailed
from .retry import Failure, may_retry

Source = str | os.PathLike[str] | bytes

ATTEMPTS = 4  # for one image, each on another worker
CONNECT_SECONDS = 2.0
BACKOFF_SECONDS = 0.25  # before asking again when all that were offered failed


class Client:
    """`url`: the proxy's; `via`: address, forward or redirect; `timeout`: seconds for one image, attempts included."""

    def __init__(
        self, url: str = "http://127.0.0.1:12480", *, via: Via = "address", service: str = "", timeout: float = 30.0
    ) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.via = via
        self.timeout = timeout
        self._headers = {"X-Fairway-Service": service} if service else {}
        self._addresses = AddressCache()
        self._looking: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._session:
            await self._session.close()

    async def classify(self, image: Source, top: int = answer.DEFAULT_TOP) -> Prediction:
        """`image`: a path, or the bytes of an image file. Raises ClientError's children, and OSError for the path."""
        data = image if isinstance(image, bytes) else await asyncio.to_thread(_read, image)
        name = "image" if isinstance(image, bytes) else os.path.basename(image)
        asked = [self.url]
        try:
            async with asyncio.timeout(self.timeout):
                return await self._classify(data, name, top, asked)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer from {asked[-1]} within {self.timeout:g} s") from error

    async def classify_many(
        self,
        images: Iterable[Source] | AsyncIterable[Source],
        *,
        concurrency: int = 16,
        top: int = answer.DEFAULT_TOP,
    ) -> AsyncGenerator[tuple[Source, Prediction | ClientError | OSError]]:
        """(image, its prediction or its error) in the order of `images`; one bad image does not end the others.

        At most `concurrency` uploads at once; `images` is read only a little ahead of them.
        """
        source = images if isinstance(images, AsyncIterable) else _one_by_one(images)
        reader, slots = aiter(source), asyncio.Semaphore(concurrency)
        running: deque[tuple[Source, asyncio.Task[Prediction | ClientError | OSError]]] = deque()
        reading: asyncio.Task[Source | None] | None = None
        exhausted = False
        try:
            while running or not exhausted:
                if reading is None and not exhausted and len(running) < 4 * concurrency:
                    reading = asyncio.ensure_future(_next(reader))
                await asyncio.wait(
                    {task for task in (reading, running[0][1] if running else None) if task is not None},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading is not None and reading.done():
                    image, reading = reading.result(), None
                    if image is None:
                        exhausted = True
                    else:
                        running.append((image, asyncio.create_task(self._one_of_many(image, top, slots))))
                while running and running[0][1].done():
                    image, task = running.popleft()
                    yield image, task.result()
        finally:
            left: list[asyncio.Task[Any]] = [task for _, task in running]
            left += [reading] if reading is not None else []
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)  # nothing of it outlives the client's session

    async def _one_of_many(
        self, image: Source, top: int, slots: asyncio.Semaphore
    ) -> Prediction | ClientError | OSError:
        async with slots:
            try:
                return await self.classify(image, top)
            except (ClientError, OSError) as error:
                return error

    async def _classify(self, data: bytes, name: str, top: int, asked: list[str]) -> Prediction:
        """`asked` grows by each address that is asked, for the caller's error."""
        body, content_type = multipart.encode({"data": (name, data)})
        query = f"?top={top}" if top != answer.DEFAULT_TOP else ""
        last: ClientError = NoWorker(f"no worker could be reached through {self.url}")
        tried: set[str] = set()
        for attempt in range(ATTEMPTS):
            url, expect = self.url + "/" + query, False
            if self.via == "redirect":
                url, expect = f"{self.url}/-/direct/{query}", True
            elif self.via == "address":
                base = await self._next_address(tried)
                url = base + query
                tried.add(base)
            try:
                return await self._upload(url, body, content_type, expect, asked)
            except _Attempt as failed:
                last = failed.error
                if self.via == "address":
                    self._addresses.forget(base)
                elif self.via == "forward" and failed.failure is not Failure.NOT_SENT:
                    raise last from failed  # the proxy has tried other workers already
                if not may_retry(failed.failure, replayable=True):
                    raise last from failed
            if attempt and not self._addresses.fresh(self._now()):
                await asyncio.sleep(BACKOFF_SECONDS)
        raise last

    async def _upload(self, url: str, body: bytes, content_type: str, expect: bool, asked: list[str]) -> Prediction:
        assert self._session is not None, "use `async with Client(...)`"
        asked.append(url)
        headers = {hdrs.CONTENT_TYPE: content_type, **self._headers}
        try:
            # With `expect` a redirecting proxy answers before the body is sent, so it is uploaded only once.
            async with self._session.post(
                url, data=io.BytesIO(body), headers=headers, allow_redirects=False, expect100=expect
            ) as response:
                said = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Attempt(Failure.NOT_SENT, Unreachable(f"cannot reach {url}: {_reason(error)}")) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Attempt(Failure.BROKEN, WorkerFailed(f"{url} broke the connection: {error}")) from error
        if response.status == 307 and expect:
            location = response.headers.get(hdrs.LOCATION)
            if location is None:
                raise WorkerFailed(f"{url} answered 307, but not where to")
            return await self._upload(location, body, content_type, False, asked)
        if response.status == 200:
            try:
                return answer.decode(said)
            except ValueError as error:
                raise WorkerFailed(f"{url} answered 200, but not with a prediction: {error}") from error
        text = answer.decode_error(said)
        match response.status:
            case 429:
                raise _Attempt(Failure.BUSY, Busy(text))
            case 503:
                raise _Attempt(Failure.BUSY, NoWorker(text))
            case 504:
                raise DeadlineExceeded(text)
            case 404 | 405:
                raise NoWorker(text)  # no such service, or not in this mode: never about the image
            case status if 400 <= status < 500:
                raise ImageRefused(text, status)
            case status:
                raise WorkerFailed(f"{url} answered {status}: {text}")

    async def _next_address(self, tried: set[str]) -> str:
        """A worker's URL, from the cache or from the proxy; preferably none of `tried`."""
        while not self._addresses.fresh(self._now()):
            # Whoever comes meanwhile shares the look-up under way, and its failure.
            if self._looking is None:
                self._looking = asyncio.create_task(self._renew())
                self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen by somebody
            await asyncio.shield(self._looking)
            if self._addresses.known:  # even if they may be kept for no time at all
                break
        return self._addresses.next(tried)

    async def _renew(self) -> None:
        try:
            self._addresses.fill(await self._look_up(), self._now())
        finally:
            # Within the task, so that nobody can meet one that is over and still in its place.
            self._looking = None

    async def _look_up(self) -> lookup.Lookup:
        assert self._session is not None, "use `async with Client(...)`"
        try:
            async with self._session.get(
                self.url + "/", headers={hdrs.ACCEPT: "application/json", **self._headers}
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(
                f"no proxy answers at {self.url} ({_reason(error)}); start one with scripts/launch"
            ) from error
        if response.status in (404, 503):
            raise NoWorker(answer.decode_error(body))
        try:
            found = lookup.decode(body)
        except WireError as error:
            raise WorkerFailed(f"{self.url} does not hand out addresses ({response.status}): {error}") from error
        if not found.instances:
            raise NoWorker(f"{self.url} knows no worker of {found.service!r}")
        return found

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def __repr__(self) -> str:
        return f"<Client {self.url} via {self.via} [{self._addresses!r}]>"


class _Attempt(Exception):
    """One attempt failed, in a way that may be tried again; `error` is what the caller gets if it is not."""

    def __init__(self, failure: Failure, error: ClientError) -> None:
        super().__init__(str(error))
        self.failure, self.error = failure, error


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except ValueError as error:  # a NUL in it: no file is called so
        raise FileNotFoundError(errno.ENOENT, str(error), os.fspath(path)) from error


async def _one_by_one(images: Iterable[Source]) -> AsyncIterator[Source]:
    for image in images:
        yield image


async def _next(reader: AsyncIterator[Source]) -> Source | None:
    return await anext(reader, None)


def _reason(error: Exception) -> str:
    """`Connection refused`, without the address that aiohttp repeats."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
