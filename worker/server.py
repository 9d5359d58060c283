"""A worker's life: load, warm up, listen, register; at the end drain, in the order docs/house.md gives."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from aiohttp import web

from ..registry.instance import Address, Instance
from ..registry.link import Link, new_id
from .config import WorkerSettings
from .engine import Engine
from .errors import ConfigurationError
from .image import ImageLimits
from .listeners.http import HttpListener
from .runtimes import load

log = logging.getLogger("fairway.worker")


async def serve(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises ConfigurationError for what no restart can cure."""
    threads = settings.threads or os.cpu_count() or 1
    listener_socket = _bind(settings)  # before the model: a taken port should not cost its loading time
    loop = asyncio.get_running_loop()
    log.info("loading %s", settings.model)
    model = await loop.run_in_executor(None, load, settings, threads)
    limits = ImageLimits(settings.max_bytes, settings.max_pixels)
    engine = Engine(model, limits, threads, settings.max_waiting)
    await engine.warm_up()
    if stop.is_set():
        return

    http = HttpListener(engine, settings)
    runner = web.AppRunner(
        http.app, access_log=None, shutdown_timeout=1, handler_cancellation=True, auto_decompress=False
    )
    await runner.setup()
    site = web.SockSite(runner, listener_socket, backlog=1024)
    await site.start()
    host, port = listener_socket.getsockname()[:2]
    log.info("serving %s on http://%s:%d/ (%d threads)", model.name, host, port, threads)

    link, instance = None, None
    if settings.registry != "none":
        link = Link(Address.parse(settings.registry))
        address = Address.parse(settings.advertise, host) if ":" in settings.advertise else None
        address = address or Address(settings.advertise or _reachable(host), port)
        instance = Instance(
            new_id(),
            settings.service,
            address,
            settings.service_version,
            models=(model.name,),
            meta={"pid": os.getpid()},
        )
        link.announce(instance)
        await link.start()
    await stop.wait()
    engine.draining = True
    if link and instance:
        log.info("left the registry; for %g s whoever still holds this address is served", settings.drain_seconds)
        # Withdrawn rather than marked: seaport's own clients know no states, and must not be sent here either.
        await link.withdraw(instance.id)
        await asyncio.sleep(settings.drain_seconds)
        await link.close()
    await site.stop()
    log.info("draining: %d requests in flight", http.in_flight)
    # Waited for here, not by aiohttp: from its own shutdown on it drops what still arrives of an upload.
    try:
        async with asyncio.timeout(settings.finish_seconds):
            await http.idle()
    except TimeoutError:
        log.warning("%d requests were not finished in %g s", http.in_flight, settings.finish_seconds)
    await runner.cleanup()
    engine.close()
    log.info("stopped")


def _bind(settings: WorkerSettings) -> socket.socket:
    """Bound, but not yet listening: connections are refused, not left waiting, until the model is ready."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"the worker cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    return bound


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        raise ConfigurationError(f"--host {host} is no address others can reach: say --advertise HOST as well")
    return host
