"""The door itself: it lets clients in, knows where each request goes, and closes in good order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..client.resolver import Resolver
from ..registry.errors import ConfigurationError
from ..registry.instance import Address
from ..registry.lookup import Format
from ..registry.process import allow_files
from ..registry.tls import ServerTls
from .accounts import Accounts
from .config import ProxySettings
from .connection import Connection
from .forward import Forwarder
from .head import RequestHead
from .listener import Listener
from .metrics import Metrics, Snapshot
from .pages import Pages
from .processes import SIBLINGS
from .reactor import FORM, SWEEP_SECONDS, Reactor
from .route import Route, route
from .siblings import Siblings
from .standing import View, view
from .stream import Stream, stream_kind
from .tls_stream import TlsStream
from .usage import usage

log = logging.getLogger("fairway.proxy")

Asked = tuple[RequestHead, Route, Format | None]

REMEMBERED, MEMORABLE = 1024, 512  # what was parsed once, and the bytes of it: the same again is not parsed again
REQUEST_ID = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=/:@")
ADMIN_HOST = "127.0.0.1"
GRACE_SECONDS = 0.5  # for a request that a client began to send as we stopped
FILES_EACH = 2  # a client's connection, and the worker's; pipes come on top, and are done without if need be


class Proxy:
    """`await start()`, then `port` is bound. `await close()` finishes what is in flight."""

    def __init__(self, settings: ProxySettings, resolver: Resolver) -> None:
        """Raises ConfigurationError."""
        self.settings, self.resolver = settings, resolver
        self.in_flight, self.draining = 0, False
        self.most_in_flight = settings.max_in_flight
        self.scheme = "https" if settings.tls_cert else "http"
        self.trusts = _trusting(settings.trusted)
        self.reactor, self.metrics = Reactor(), Metrics(settings.service)
        self.forwarder = Forwarder(settings, resolver, self.reactor, self.metrics)
        folder, _, number = os.environ.get(SIBLINGS, "").rpartition(":")
        self._siblings = Siblings(self._seen, Path(folder) if folder else None, number)
        self.pages = Pages(settings, resolver, lambda: not self.draining, self._siblings.all)
        self.connections: set[Connection] = set()
        self.lookups: dict[bytes, Asked] = {}
        self._routes: dict[bytes, Route] = {}
        self._tls = (
            ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca) if settings.tls_cert else None
        )
        self._listeners: list[Listener] = []
        self._idle, self._empty = asyncio.Event(), asyncio.Event()  # while it drains: no requests, no connections
        self._id_prefix, self._ids = secrets.token_hex(6).encode() + b"-", 0

    @property
    def port(self) -> int:
        return self._listeners[0].port

    @property
    def url(self) -> str:
        host = self.settings.host
        return host if host.startswith("unix:") else f"{self.scheme}://{Address(host, self.port)}/"

    async def start(self) -> None:
        """Raises ConfigurationError."""
        settings, shared = self.settings, self.settings.processes > 1
        self._most = max(1, allow_files(settings.max_connections * FILES_EACH) // FILES_EACH)
        self._listeners.append(Listener(settings.host, settings.port, shared, self._let_in))
        try:
            if settings.admin_port:
                self._listeners.append(Listener(ADMIN_HOST, settings.admin_port, shared, self._let_admin_in))
            await self.resolver.start()
        except BaseException:
            for listener in self._listeners:
                listener.close()
            raise
        self.accounts = Accounts(settings, self.metrics)
        self._kind = stream_kind()
        self.reactor.start()
        self.forwarder.links.start()
        await self._siblings.start()
        if self._tls is not None:
            self._tls.start()
        for listener in self._listeners:
            listener.start()
        log.info("proxy listening on %s (%s, %s)", self.url, settings.mode, FORM)

    async def close(self) -> None:
        """Readiness first, then no new connections, then the requests in flight get their time."""
        if self.draining:
            return
        self.draining = self.forwarder.draining = True
        self.lookups.clear()
        for listener in self._listeners:
            listener.close()
        log.info("draining: %d requests in flight", self.in_flight)
        grace = min(GRACE_SECONDS, self.settings.finish_seconds)
        for connection in self.connections:
            connection.drain(grace)
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace + 2 * SWEEP_SECONDS):
                    await self._empty.wait()
        try:
            async with asyncio.timeout(self.settings.finish_seconds):
                if self.in_flight:
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests were not finished in %g s", self.in_flight, self.settings.finish_seconds)
        self.reactor.close()
        self.forwarder.close()
        await self._siblings.close()
        if self._tls is not None:
            await self._tls.close()
        await self.resolver.close()
        await asyncio.to_thread(self.accounts.close)

    def _let_in(self, sock: socket.socket, peer: str, admin: bool = False) -> None:
        self.metrics.connections_opened += 1
        crowded = len(self.connections) - self._most
        if crowded >= self._most:  # not even a refusal is to be had
            self.metrics.connections_refused += 1
            sock.close()
            return
        stream: Stream
        if self._tls is not None and not admin:
            try:
                stream = TlsStream(self.reactor, sock, None, self._tls.context)
            except OSError:  # it left already
                sock.close()
                return
        else:
            stream = self._kind(self.reactor, sock, None)
        connection = Connection(self, stream, peer, admin)
        self.connections.add(connection)
        if crowded >= 0:
            self.metrics.connections_refused += 1
        self.reactor.run(connection.refuse if crowded >= 0 else connection.serve)

    def _let_admin_in(self, sock: socket.socket, peer: str) -> None:
        self._let_in(sock, peer, admin=True)

    def left(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._empty.set()

    def ended(self) -> None:
        """A request, while the door closes."""
        if not self.in_flight:
            self._idle.set()

    def route(self, head: RequestHead) -> Route:
        """Raises BadRequest, NotFound."""
        named = head.noted.get(b"x-fairway-service") if head.noted else None
        if named is None:
            found = self._routes.get(head.line)
            if found is not None:
                return found
        found = route(
            self.settings.mode,
            head.method.decode("ascii"),
            head.target.decode("ascii"),
            None if named is None else named.decode("latin-1"),
            self.settings.service,
        )
        if named is None and len(head.line) <= MEMORABLE:
            if len(self._routes) >= REMEMBERED:
                self._routes.clear()
            self._routes[head.line] = found
        return found

    def request_id(self, head: RequestHead) -> bytes:
        """As a line for both sides: the client's if it gave one that is fit to be passed on."""
        if head.noted:
            given = head.noted.get(b"x-request-id")
            if given and len(given) <= 128 and REQUEST_ID.issuperset(given):
                return b"X-Request-ID: %b\r\n" % given
        self._ids += 1
        return b"X-Request-ID: %b%d\r\n" % (self._id_prefix, self._ids)

    def remember(self, head_bytes: bytes, head: RequestHead, found: Route) -> None:
        if found.manner == "address" and head.length == 0 and len(head_bytes) <= MEMORABLE and not self.draining:
            if len(self.lookups) >= REMEMBERED:
                self.lookups.clear()
            self.lookups[head_bytes] = head, found, self.pages.plain_format(head, found)

    def _seen(self) -> tuple[Snapshot, View]:
        """What this process counted, and how it sees the workers."""
        metrics = self.metrics
        metrics.in_flight, metrics.connections = self.in_flight, len(self.connections)
        metrics.uploads_held, metrics.held_bytes = self.forwarder.holding.uploads, self.forwarder.holding.held
        if self.accounts.log is not None:
            metrics.lines_dropped = self.accounts.log.dropped
        seen = view(self.settings.mode, self.resolver.connected, self.resolver.services(), self.reactor.now)
        return metrics.snapshot(seen, usage()), seen

    def __repr__(self) -> str:
        return f"<Proxy {self.settings.mode} [{self.in_flight} in flight | {self.resolver!r}]>"


def _trusting(networks: tuple[str, ...]) -> Callable[[str], bool]:
    """Raises ConfigurationError."""
    try:
        known = [ipaddress.ip_network(text, strict=False) for text in networks]
    except ValueError as error:
        raise ConfigurationError(f"--trusted: {error}; expected addresses or networks like 10.0.0.0/8") from error

    @lru_cache(1024)
    def trusts(peer: str) -> bool:
        return any(ipaddress.ip_address(peer) in network for network in known) if known and peer else False

    return trusts


def resolver_of(settings: ProxySettings) -> Resolver:
    """A fixed list if one is given, else a watch on the registry. Raises ConfigurationError."""
    static = [Address.parse(text) for text in settings.static]
    return Resolver(
        None if static else settings.registry,
        static,
        settings.service,
        settings.credentials(),
        balance=settings.balance,
        slow_start_seconds=settings.slow_start_seconds,
        worker_limit=settings.worker_limit,
    )


def quiet_collector() -> None:
    """What a proxy makes for a request is gone with it: the garbage collector need not look for it all the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
