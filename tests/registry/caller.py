"""A caller of the HTTP API: a real client of one hub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from fairway.registry import Hub

from .peers import PATIENCE

TTL = {"TTL": "60s", "Status": "passing"}


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self.body
        return json.loads(self.body)

    @property
    def index(self) -> int:
        return int(self.headers["X-Consul-Index"])


class Caller:
    """One HTTP client of one hub."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http, self._base = http, f"http://127.0.0.1:{port}"

    async def __call__(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self._http.request(method, self._base + path, data=data, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **more: Any) -> Any:
        answer = await self("GET", path, **more)
        assert answer.status == 200, answer.body
        return answer.json

    async def put(self, path: str, body: object = None, **more: Any) -> None:
        answer = await self("PUT", path, body, **more)
        assert (answer.status, answer.body) == (200, b""), answer.body

    async def register(self, **said: object) -> None:
        await self.put("/v1/agent/service/register", {"Name": "classify", "Port": 9001, "Check": TTL} | said)

    async def ids(self, path: str) -> list[str]:
        return [entry["Service"]["ID"] for entry in await self.get(path)]


@asynccontextmanager
async def calling(hub: Hub) -> AsyncIterator[Caller]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        yield Caller(http, hub.port)
