"""A worker's door, before and after its model is warm."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import uvloop

from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.listeners.http import HttpListener
from fairway.worker.listeners.http.message import Served
from fairway.worker.repository import Repository

from .colours import Colours
from .door import LIMIT, PATIENCE, Door

ON_BOTH_LOOPS = ("test_http.py", "test_http_connection.py", "test_http_protocol.py", "test_http_fuzz.py")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Workers run on uvloop, and without it where there is none: what touches sockets is tested on both."""
    plain: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop, **plain} if item.path.name in ON_BOTH_LOOPS else plain


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    model = Colours()
    settings = WorkerSettings(service="colours", max_bytes=LIMIT)
    engine = Engine(ImageLimits(LIMIT, 10_000), threads=2, max_waiting=1, batching="off")
    repository = Repository([model.model()])
    http = HttpListener(Served(engine, repository, settings.service), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    await http.start(listening)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        yield Door(model, engine, repository, http, listening.getsockname()[1], session)
    model.gate.set()
    await http.close()
    engine.close()


@pytest.fixture
async def warm(door: Door) -> Door:
    await door.warm_up()
    door.model.entered.clear()
    return door
