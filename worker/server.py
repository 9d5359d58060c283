"""A worker's life: load, warm up, listen, register; at the end drain, in the order docs/house.md gives."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import warnings
from dataclasses import replace

from ..registry.errors import StoreRefused, StoreUnavailable
from ..registry.instance import Address, Instance
from ..registry.store import new_id, open_store
from ..registry.threaded import ThreadedStore
from .config import WorkerSettings
from .engine import Engine
from .errors import ConfigurationError
from .image import ImageLimits
from .listeners.http import HttpListener
from .listeners.http.message import Served
from .present import PresentEngine, PresentRepository
from .runtimes import load

log = logging.getLogger("fairway.worker")


async def serve(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises ConfigurationError for what no restart can cure."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about odd uploads are no news for our log
    threads = settings.threads or os.cpu_count() or 1
    listener_socket = _bind(settings)  # before the model: a taken port should not cost its loading time
    instance = _instance(settings, *listener_socket.getsockname()[:2])
    store = _store(settings)
    loop = asyncio.get_running_loop()
    log.info("loading %s", settings.model)
    model = await loop.run_in_executor(None, load, settings, threads)
    limits = ImageLimits(settings.max_bytes, settings.max_pixels)
    engine = Engine(model, limits, threads, settings.max_waiting)
    await engine.warm_up()
    if stop.is_set():
        return

    present = PresentEngine(engine)
    http = HttpListener(Served(present, PresentRepository(present), settings.service, settings.cors), settings)
    await http.start(listener_socket)
    listening = Address(*listener_socket.getsockname()[:2])
    log.info("serving %s on http://%s/ (%d threads)", model.name, listening, threads)

    if store:
        served = f"{model.name}/{model.version}" if model.version else model.name
        instance = replace(instance, models=(served,))
        await store.start()
        await _announce(store, instance)
    await stop.wait()
    engine.draining = True
    if store:
        # Said while it is served on: a registry that is away must not make the end longer.
        saying = asyncio.create_task(_announce(store, replace(instance, state="draining")))
        log.info("draining; for %g s whoever still holds this address is served", settings.drain_seconds)
        await asyncio.sleep(settings.drain_seconds)
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await store.close()
    http.stop_listening()
    log.info("draining: %d requests in flight", http.in_flight)
    try:
        async with asyncio.timeout(settings.finish_seconds):
            await http.idle()
    except TimeoutError:
        log.warning("%d requests were not finished in %g s", http.in_flight, settings.finish_seconds)
    await http.close()
    engine.close()
    log.info("stopped")


def _store(settings: WorkerSettings) -> ThreadedStore | None:
    """In a thread of its own: a model that holds this one must not look like a dead worker."""
    if settings.registry == "none":
        return None
    credentials = settings.credentials()
    return ThreadedStore(lambda: open_store(settings.registry, credentials=credentials, services=()))


async def _announce(store: ThreadedStore, instance: Instance) -> None:
    """The registry's troubles are not the worker's: it serves, and the store tries on."""
    try:
        await store.announce(instance)
        log.info("registered as %s %s at %s", instance.state, instance.role, instance.address)
    except (StoreUnavailable, StoreRefused) as error:
        log.warning("not registered yet: %s", error)


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


def _instance(settings: WorkerSettings, host: str, port: int) -> Instance:
    """What others will be told. Raises ConfigurationError or InvalidInstance, long before anybody is."""
    if not settings.advertise and host in ("0.0.0.0", "::") and settings.registry != "none":
        raise ConfigurationError(f"--host {host} is no address others can reach: say --advertise HOST as well")
    advertised = settings.advertise or host
    named_port = advertised.startswith("[") or advertised.count(":") == 1  # a bare IPv6 address has more colons
    address = Address.parse(advertised) if named_port else Address(advertised, port)
    instance = Instance(new_id(), settings.service, address, settings.service_version, meta={"pid": os.getpid()})
    return Instance.from_meta(instance.id, instance.as_meta(), host)  # judged as the hub will judge it
