"""A worker's HTTP door over real sockets, around a model that is understood at a glance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from fairway.worker.engine import Engine
from fairway.worker.listeners.http import HttpListener
from fairway.worker.repository import Repository

from .colours import Colours, plain

RED, BLUE = plain("#c02020"), plain("#2020c0")
LIMIT = 50_000
PATIENCE = 10.0


@dataclass
class Door:
    """A listening worker, and ways to knock."""

    model: Colours
    engine: Engine
    repository: Repository
    http: HttpListener
    port: int
    session: aiohttp.ClientSession

    async def warm_up(self) -> None:
        """From here on the model is served."""
        await self.engine.add(self.repository.find())

    async def send(self, method: str, path: str = "/", **more: Any) -> tuple[int, Any]:
        """Status and JSON of the answer; whatever is answered, it must be JSON."""
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **more) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def raw(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        return reader, writer

    async def until(self, condition: Callable[[], bool]) -> None:
        """For what nobody announces; gives the loop its turns meanwhile."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0)

    async def is_well(self) -> None:
        """Nothing hangs, and the next request is served."""
        async with asyncio.timeout(PATIENCE):
            await self.http.idle()
            assert (self.http.in_flight, self.engine.waiting) == (0, 0)
            assert (await self.send("POST", data=RED))[1][0][0] == "red"


def head(method: str = "POST", path: str = "/", **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: w", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def answer(reader: asyncio.StreamReader, empty: bool = False) -> tuple[int, dict[str, str], Any]:
    """One response from a bare socket; its body is JSON, unless it is to be `empty`."""
    async with asyncio.timeout(PATIENCE):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, None if empty and not body else json.loads(body)
