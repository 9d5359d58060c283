"""Uploads and ways for tests, and a server that stalls when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDict

from fairway.client.bench.uploads import Upload
from fairway.client.bench.way import Way
from fairway.client.config import Via
from fairway.worker.wire import multipart

from ...proxy.stage import DAISY, Seen


def upload(name: str = "daisy.jpg", data: bytes = b"\xff\xd8 a picture") -> Upload:
    body, content_type = multipart.encode({"data": (name, data)})
    return Upload(name, body, CIMultiDict({hdrs.CONTENT_TYPE: content_type}))


@asynccontextmanager
async def way_to(url: object, via: Via = "forward", timeout: float = 20.0, **more: Any) -> AsyncIterator[Way]:
    async with Way(str(url), via, timeout, **more) as way:
        yield way


class Stalling:
    """An answer of `Worker`: from the `after`th upload on nobody is answered for `seconds`; once."""

    def __init__(self, after: int, seconds: float) -> None:
        self.after, self.seconds = after, seconds
        self.count = 0
        self.began = self.ended = 0.0  # by time.monotonic
        self._over = asyncio.Event()

    async def __call__(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        self.count += 1
        if self.count == self.after:
            self.began = monotonic()
            await asyncio.sleep(self.seconds)
            self.ended = monotonic()
            self._over.set()
        elif self.count > self.after:
            await self._over.wait()
        return web.Response(body=DAISY, content_type="application/json")
