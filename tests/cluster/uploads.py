"""Hundreds of uploads at once, each answer checked against its own image, and what became of every one of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from fairway.client import Client
from fairway.client.config import Via
from fairway.client.errors import ClientError

UPLOADS = 500
CONCURRENCY = 16
SIZES = (1_000, 4_000, 20_000, 20_000, 60_000, 150_000)  # bytes; all of them fit the proxy's window
PATIENCE = 60.0  # seconds for one upload: what is never answered fails its test, not the whole run

_NOISE = random.Random(4).randbytes(4_000_000)


@dataclass(frozen=True)
class Image:
    data: bytes
    digest: str


def images(count: int, sizes: Sequence[int] = SIZES) -> list[Image]:
    """No two alike."""
    made = []
    for i in range(count):
        size = sizes[i % len(sizes)]
        at = i * 7919 % (len(_NOISE) - size)
        data = b"%08d" % i + _NOISE[at : at + size]
        made.append(Image(data, hashlib.sha256(data).hexdigest()))
    return made


@dataclass(frozen=True)
class Said:
    """`status` 0: no answer at all. `right`: 200, and the answer for this image. `text`: what went wrong."""

    status: int
    right: bool
    worker: str = ""
    text: str = ""
    retry_after: str = ""
    seconds: float = 0.0


Send = Callable[[Image], Coroutine[Any, Any, Said]]


@asynccontextmanager
async def plainly(url: str) -> AsyncIterator[Send]:
    """By an ordinary HTTP client that tries nothing again: what is not lost, the proxy did not lose.

    `url`: also `unix:PATH`.
    """
    loop = asyncio.get_running_loop()
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0)
    if url.startswith("unix:"):
        connector, url = aiohttp.UnixConnector(url.removeprefix("unix:"), limit=0), "http://proxy"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE), connector=connector) as session:

        async def send(image: Image) -> Said:
            began = loop.time()
            try:
                async with session.post(f"{url}/", data=image.data) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                return Said(0, False, text=f"{type(error).__name__}: {error}", seconds=loop.time() - began)
            worker, later = answer.headers.get("X-Worker", ""), answer.headers.get("Retry-After", "")
            right = answer.status == 200 and json.loads(body) == [[image.digest, 1.0]]
            return Said(answer.status, right, worker, body.decode()[:200], later, loop.time() - began)

        yield send


@asynccontextmanager
async def by_library(url: str, via: Via, timeout: float = 30.0, attempt_timeout: float = 2.0) -> AsyncIterator[Send]:
    loop = asyncio.get_running_loop()
    async with Client(url, via=via, timeout=timeout, attempt_timeout=attempt_timeout) as client:

        async def send(image: Image) -> Said:
            began = loop.time()
            try:
                found = await client.classify(image.data)
            except ClientError as error:
                return Said(error.status, False, text=f"{type(error).__name__}: {error}", seconds=loop.time() - began)
            return Said(200, found.label == image.digest, seconds=loop.time() - began)

        yield send


class Load:
    """`async with Load(send) as load: await load.answered(100); ...`: at its end all are answered, and `said` has them.

    At least `count`; where `more()` was called, until `enough()`. `pause`: seconds of rest of each of the `concurrency`.
    """

    def __init__(
        self,
        send: Send,
        count: int = UPLOADS,
        *,
        concurrency: int = CONCURRENCY,
        sizes: Sequence[int] = SIZES,
        pause: float = 0.0,
    ) -> None:
        self.said: list[Said] = []
        self._send, self._count, self._concurrency, self._pause = send, count, concurrency, pause
        self._images = images(count, sizes)
        self._begun = 0
        self._more = False
        self._news = asyncio.Condition()

    def more(self) -> None:
        self._more = True

    def enough(self) -> None:
        self._more = False

    async def answered(self, count: int, seconds: float = PATIENCE) -> None:
        """Until so many more are answered than now."""
        wanted = len(self.said) + count
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: len(self.said) >= wanted)

    async def _lane(self) -> None:
        while self._more or self._begun < self._count:
            image = self._images[self._begun % self._count]
            self._begun += 1
            said = await self._send(image)
            async with self._news:
                self.said.append(said)
                self._news.notify_all()
            await asyncio.sleep(self._pause)

    @property
    def failed(self) -> list[Said]:
        return [said for said in self.said if not said.right]

    def workers(self, after: int = 0) -> Counter[str]:
        """Who answered how many, of those after the first so many."""
        return Counter(said.worker for said in self.said[after:] if said.right)

    async def __aenter__(self) -> Self:
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(self._concurrency)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._more = False
        if error is not None:
            for lane in self._lanes:
                lane.cancel()
        for ended in await asyncio.gather(*self._lanes, return_exceptions=True):
            if error is None and isinstance(ended, BaseException):
                raise ended
