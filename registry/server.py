"""The hub's shell: sockets, timers and the log around a Catalog. One port, two protocols, told apart by the first byte.

seaport's clients speak first (`["synced"]`), and so do HTTP's. Who says nothing for a second is greeted as seaport's
server greets: old clients may wait for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from itertools import count
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from .catalog import Catalog, Change, Gone, Put, Refused
from .config import RegistrySettings
from .consul import catalog_services, health_service
from .errors import ConfigurationError, WireError
from .instance import Query
from .wire import Free, Heartbeat, Helo, Message, Register, RowReader, Synced, encode

log = logging.getLogger("fairway.registry")

GREETING_DELAY = 1.0  # seconds of silence after which a peer is taken for a seaport client
MAX_UNSENT = 1024 * 1024  # bytes beyond its dump; who reads slower is cut off, and gets a full dump when it is back
SWEEP_SECONDS = 1.0  # silent peers are looked for at least this often, as new ones may be due before the known


class Hub:
    """`await start()`, then `port` is bound. `await close()` lets everybody go."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.allow)
        self.peers: dict[str, RowsProtocol] = {}
        self.doors: set[Doorman] = set()
        self._names = count(1)
        self._server: asyncio.Server | None = None
        self._timers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        app = web.Application(middlewares=[_json_errors])
        app.router.add_get("/v1/catalog/services", self._catalog_services)
        app.router.add_get("/v1/health/service/{name}", self._health_service)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=1)
        await self._runner.setup()
        self._http = cast(web.Server, self._runner.server)
        loop = asyncio.get_running_loop()
        host, port = self.settings.host, self.settings.port
        try:
            self._server = await loop.create_server(lambda: Doorman(self), host, port, backlog=1024)
        except OSError as error:
            raise ConfigurationError(f"the registry cannot listen on {host}:{port}: {error.strerror}") from error
        self._timers = [asyncio.create_task(self._beat()), asyncio.create_task(self._sweep())]
        log.info("registry listening on %s:%d (seaport rows and HTTP)", host, self.port)

    @property
    def port(self) -> int:
        assert self._server is not None
        return cast(int, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for task in self._timers:
            task.cancel()
        if self._server:
            self._server.close()
        for peer in list(self.peers.values()):
            peer.transport.close()
        for door in list(self.doors):
            door.transport.close()
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """Open ones of all kinds: seaport peers, HTTP, and those that have not said what they are."""
        return len(self.peers) + len(self.doors) + len(self._http.connections)

    def http_protocol(self) -> asyncio.Protocol:
        return self._http()

    # -- seaport peers -------------------------------------------------------------------------------------------

    def joined(self, peer: RowsProtocol, host: str) -> str:
        name = f"{host}#{next(self._names)}"
        self.peers[name] = peer
        self.catalog.join(name, host, self._now())
        known = [Register(instance.id, instance.as_meta()) for instance in self.catalog.query()]
        peer.greet([Helo(host), *known, Synced()])
        return name

    def heard(self, name: str, message: Message) -> None:
        self._publish(self.catalog.receive(name, message, self._now()), origin=name)

    def left(self, name: str) -> None:
        if self.peers.pop(name, None):
            self._publish(self.catalog.leave(name), origin=name)

    def _publish(self, changes: list[Change], origin: str) -> None:
        for change in changes:
            match change:
                case Refused(id, reason):
                    log.warning("refused %s from %s: %s", id, origin, reason)
                    continue
                case Put(instance):
                    row: Message = Register(instance.id, instance.as_meta())
                    log.info("%s %s at %s [%s]", instance.state, instance.role, instance.address, instance.id)
                case Gone(instance):
                    row = Free(instance.id)
                    log.info("gone %s at %s [%s]", instance.role, instance.address, instance.id)
            for name, peer in list(self.peers.items()):
                if name != origin:
                    peer.send(row)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_seconds)
            for peer in list(self.peers.values()):
                peer.send(Heartbeat())

    async def _sweep(self) -> None:
        while True:
            due = self.catalog.next_deadline()
            await asyncio.sleep(SWEEP_SECONDS if due is None else min(SWEEP_SECONDS, max(0.01, due - self._now())))
            for name in self.catalog.silent(self._now()):
                log.warning("nothing heard from %s for too long: it is let go", name)
                self.peers[name].transport.abort()
                self.left(name)

    # -- people --------------------------------------------------------------------------------------------------

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _catalog_services(self, _: web.Request) -> web.Response:
        return self._answer(catalog_services(self.catalog.services()))

    async def _health_service(self, request: web.Request) -> web.Response:
        found = self.catalog.query(Query.parse(request.match_info["name"]))
        return self._answer(health_service(found, passing="passing" in request.query))

    def _answer(self, body: object) -> web.Response:
        return web.json_response(body, headers={"X-Consul-Index": str(self.catalog.index)})

    def __repr__(self) -> str:
        return f"<Hub {self.catalog!r}>"


class Doorman(asyncio.Protocol):
    """Waits for the first byte, then hands the connection on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._hub.connections >= self._hub.settings.max_connections:
            log.warning("closed a connection: %d are open", self._hub.settings.max_connections)
            self.transport.abort()
        self._hub.doors.add(self)
        loop = asyncio.get_running_loop()
        self._greeting = loop.call_later(GREETING_DELAY, self._hand_on, b"[", b"")

    def data_received(self, data: bytes) -> None:
        self._hand_on(data[:1], data)

    def connection_lost(self, error: Exception | None) -> None:
        self._greeting.cancel()
        self._hub.doors.discard(self)

    def _hand_on(self, first: bytes, data: bytes) -> None:
        self._greeting.cancel()
        self._hub.doors.discard(self)
        next_up = RowsProtocol(self._hub) if first in b"[\r\n" else self._hub.http_protocol()
        self.transport.set_protocol(next_up)
        next_up.connection_made(self.transport)
        if data:
            next_up.data_received(data)


class RowsProtocol(asyncio.Protocol):
    """One seaport peer."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rows = RowReader()
        self._may_wait = MAX_UNSENT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.name = self._hub.joined(self, peer[0].removeprefix("::ffff:") if peer else "127.0.0.1")

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._rows.feed(data):
                self._hub.heard(self.name, message)
        except WireError as error:
            log.warning("closed %s: %s", self.name, error)
            self.transport.abort()
            self._hub.left(self.name)

    def connection_lost(self, error: Exception | None) -> None:
        self._hub.left(self.name)

    def greet(self, rows: Sequence[Message]) -> None:
        """The dump is ours to send, however long: cutting a peer off for it would only bring it back for another."""
        dump = b"".join(map(encode, rows))
        self._may_wait = MAX_UNSENT + len(dump)
        self.transport.write(dump)

    def send(self, message: Message) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(encode(message))
        if self.transport.get_write_buffer_size() > self._may_wait:
            log.warning("%s does not read: it is cut off", self.name)
            self.transport.abort()


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        text = f"{request.method} {request.path}: {error.reason}; this registry answers GET on /v1/catalog/services, "
        text += "/v1/health/service/NAME and /healthz, and seaport rows on the same port"
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.Response(
            status=error.status, text=json.dumps({"error": text}), content_type="application/json", headers=allow
        )
