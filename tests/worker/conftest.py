"""A worker's door, before and after its model is warm."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.listeners.http import HttpListener

from .colours import Colours
from .door import LIMIT, PATIENCE, Door


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    model = Colours()
    settings = WorkerSettings(service="colours", max_bytes=LIMIT)
    engine = Engine(model, ImageLimits(LIMIT, 10_000), threads=2, max_waiting=1)
    http = HttpListener(engine, settings)
    runner = web.AppRunner(
        http.app, access_log=None, shutdown_timeout=1, handler_cancellation=True, auto_decompress=False
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        yield Door(model, engine, http, runner.addresses[0][1], session)
    model.gate.set()
    await runner.cleanup()
    engine.close()


@pytest.fixture
async def warm(door: Door) -> Door:
    await door.engine.warm_up()
    door.model.entered.clear()
    return door
