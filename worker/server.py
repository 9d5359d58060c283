"""A worker's life: load, warm up, listen, register; at the end drain, in the order docs/house.md gives."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..registry.errors import StoreRefused, StoreUnavailable
from ..registry.instance import Address, Instance
from ..registry.store import new_id, open_store
from ..registry.threaded import ThreadedStore
from .config import WorkerSettings
from .engine import Engine
from .errors import ConfigurationError
from .guard import EXIT_HUNG
from .image import ImageLimits
from .listeners.http import HttpListener
from .listeners.http.message import Served
from .repository import Repository

if TYPE_CHECKING:
    from .listeners.grpc.server import GrpcListener

log = logging.getLogger("fairway.worker")

LAST_SECONDS = 2.0  # what a worker with a model that hangs takes for its last words
# Objects made and not yet gone when the collector looks for cycles among them. A request leaves none that hold
# much, and what a few dozen of them hold at a time made it look at each turn of the loop.
YOUNG = 10_000
CLOSE_SECONDS = 5.0  # how long models may take to give back what they hold


async def serve(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises ConfigurationError for what no restart can cure."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about odd uploads are no news for our log
    listener_socket = _bind(settings, settings.port)  # before the model: a taken port should not cost its loading time
    if settings.grpc_port:
        _bind(settings, settings.grpc_port).close()
    told_to_reload = _told_to_reload()
    instance = _instance(settings, *listener_socket.getsockname()[:2])
    store = _store(settings)
    engine = Engine(
        ImageLimits(settings.max_bytes, settings.max_pixels),
        settings.threads or os.cpu_count() or 1,
        settings.max_waiting,
        hang_seconds=settings.hang_seconds,
        batching=settings.batching,
    )
    stopping = asyncio.create_task(stop.wait())
    opening = asyncio.create_task(Repository.open(settings, engine))
    await asyncio.wait((stopping, opening), return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        log.info("stopped while loading")
        logging.shutdown()
        os._exit(0)  # nobody was served, and a thread that loads a model cannot be ended otherwise
    repository = await opening
    gc.set_threshold(YOUNG)

    served = Served(engine, repository, settings.service, settings.cors)
    http = HttpListener(served, settings)
    await http.start(listener_socket)
    listening = Address(*listener_socket.getsockname()[:2])
    log.info("serving %s on http://%s/", ", ".join(repository.names()) or "no model yet", listening)
    grpc = _grpc(served, settings)
    if grpc is not None:
        await grpc.start()
        instance = replace(instance, meta={**instance.meta, "grpc": grpc.port})
        log.info("serving gRPC on %s", Address(listening.host, grpc.port))

    register = Register(store, repository, instance)
    chores = [asyncio.create_task(repository.run()), asyncio.create_task(_reload(repository, told_to_reload))]
    if store:
        await store.start()
        await register.say()
        chores.append(asyncio.create_task(register.run()))
    hanging = asyncio.create_task(engine.hung())
    await asyncio.wait((stopping, hanging), return_when=asyncio.FIRST_COMPLETED)
    await _ended([hanging, stopping])
    if not stop.is_set():
        await _replaced(http, store, instance)
    engine.draining = True
    await _ended(chores)
    if store:
        # Said while it is served on: a registry that is away must not make the end longer.
        saying = asyncio.create_task(register.say("draining"))
        log.info("draining; for %g s whoever still holds this address is served", settings.drain_seconds)
        await asyncio.sleep(settings.drain_seconds)
        await _ended([saying])
        await store.close()
    http.stop_listening()
    log.info("draining: %d requests in flight", http.in_flight)
    calls = asyncio.create_task(grpc.close(settings.finish_seconds)) if grpc is not None else None
    try:
        async with asyncio.timeout(settings.finish_seconds):
            await http.idle()
    except TimeoutError:
        log.warning("%d requests were not finished in %g s", http.in_flight, settings.finish_seconds)
    await http.close()
    if calls is not None:
        await calls
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await repository.close()
    except TimeoutError:
        log.warning("models do not give back what they hold: they are left")
    engine.close()
    log.info("stopped")


class Register:
    """What the registry is told of a worker: its versions, as they come and go."""

    def __init__(self, store: ThreadedStore | None, repository: Repository, instance: Instance) -> None:
        self._store, self._repository, self._instance = store, repository, instance
        self._changed = asyncio.Event()
        repository.on_change = self._changed.set

    async def say(self, state: str = "") -> None:
        """The registry's troubles are not the worker's: it serves, and the store tries on."""
        models = self._repository.served()
        # One that has nothing to serve yet, or any more, is not sent uploads.
        now = state or ("passing" if models else "starting")
        instance = replace(self._instance, models=models, state=now)  # type: ignore[arg-type]
        assert self._store is not None
        try:
            await self._store.announce(instance)
            log.info("registered as %s %s at %s", instance.state, instance.role, instance.address)
        except (StoreUnavailable, StoreRefused) as error:
            log.warning("not registered yet: %s", error)

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.say()


async def _replaced(http: HttpListener, store: ThreadedStore | None, instance: Instance) -> None:
    """A call of a model hangs, and no thread can be ended from outside: the process ends, and whoever started it starts it
    anew. Who waits has been told already; nobody else is sent here meanwhile.
    """
    log.error("a model hangs: this worker ends, to be started anew")
    http.stop_listening()
    try:
        async with asyncio.timeout(LAST_SECONDS):
            if store is not None:
                await store.withdraw(instance.id)
            await http.idle()
    except (TimeoutError, StoreUnavailable, StoreRefused):
        pass
    logging.shutdown()
    os._exit(EXIT_HUNG)


def _told_to_reload() -> asyncio.Event:
    """Set by SIGHUP, which is expected from the first moment on: it ends a process that does not know it."""
    told = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    return told


async def _reload(repository: Repository, told: asyncio.Event) -> None:
    while True:
        await told.wait()
        told.clear()
        log.info("SIGHUP: looking for models")
        try:
            await repository.reload()
        except Exception:  # what is served is served on
            log.exception("looking for models failed")


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _store(settings: WorkerSettings) -> ThreadedStore | None:
    """In a thread of its own: a model that holds this one must not look like a dead worker."""
    if settings.registry == "none":
        return None
    credentials = settings.credentials()
    return ThreadedStore(lambda: open_store(settings.registry, credentials=credentials, services=()))


def _grpc(served: Served, settings: WorkerSettings) -> GrpcListener | None:
    """Where it is asked for. Raises ConfigurationError if its libraries are not there, or its port is taken."""
    if settings.grpc_port is None:
        return None
    try:
        from .listeners.grpc.server import GrpcListener
    except ImportError as error:
        raise ConfigurationError(
            f"--grpc-port needs more than is installed ({error.name} is missing): pip install 'fairway[grpc]'"
        ) from error
    return GrpcListener(
        served,
        settings.host,
        settings.grpc_port,
        max_bytes=settings.max_bytes,
        deadline_seconds=settings.deadline_seconds,
    )


def _bind(settings: WorkerSettings, port: int) -> socket.socket:
    """Bound, but not yet listening: connections are refused, not left waiting, until the model is ready."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"the worker cannot listen on {settings.host}:{port}: {error.strerror}") from error
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
