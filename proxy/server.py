"""The door itself: it lets clients in, knows what it is asked for, and closes in good order."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
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
from ..registry.lookup import AT_MOST, Lookup, rows
from ..registry.process import allow_files
from ..registry.tls import ServerTls
from . import address
from .config import ProxySettings
from .connection import Connection
from .errors import ClientGone, MethodNotAllowed, ProxyError
from .forward import Exchange, Forwarder, no_worker
from .head import RequestHead
from .reactor import Reactor, Task
from .reply import Reply
from .route import Route, route
from .stream import stream_kind
from .upload import too_large

log = logging.getLogger("fairway.proxy")

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64  # then the loop's other work comes
PAUSE_SECONDS = 0.5  # without accepting, when there are no files left
REMEMBERED, MEMORABLE = (
    1024,
    1024,
)  # heads that ask for an address, and the bytes of one: repeated ones are not parsed again
REQUEST_ID = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=/:@")


class Proxy:
    """`await start()`, then `port` is bound. `await close()` finishes what is in flight."""

    def __init__(self, settings: ProxySettings, resolver: Resolver) -> None:
        self.settings, self.resolver = settings, resolver
        self.in_flight = 0
        self.reactor = Reactor()
        self.forwarder = Forwarder(settings, resolver, self.reactor)
        self.connections: set[Connection] = set()
        self.lookups: dict[bytes, tuple[RequestHead, Route]] = {}
        self.scheme = "https" if settings.tls_cert else "http"
        self.trusts = _trusting(settings.trusted)
        self._tls = (
            ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca) if settings.tls_cert else None
        )
        self._listener: socket.socket | None = None
        self._idle = asyncio.Event()
        self._routes: dict[bytes, Route] = {}
        self._id_prefix, self._ids = secrets.token_hex(6).encode() + b"-", 0
        self.most_in_flight = settings.max_in_flight

    @property
    def draining(self) -> bool:
        return self.forwarder.draining

    async def start(self) -> None:
        settings = self.settings
        await self.resolver.start()
        self._loop = asyncio.get_running_loop()
        self.reactor.start()
        self.forwarder.links.start()
        self._most = allow_files(settings.max_connections)
        try:
            self._listener = listen(settings.host, settings.port, settings.processes > 1)
        except OSError as error:
            await self.close()
            raise ConfigurationError(
                f"the proxy cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        self._kind = stream_kind()
        if self._tls is not None:
            self._tls.start()
        self._loop.add_reader(self._listener.fileno(), self._accept)
        log.info("proxy listening on %s (%s)", self.url, settings.mode)

    @property
    def port(self) -> int:
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        host = self.settings.host
        return host if host.startswith("unix:") else f"{self.scheme}://{Address(host, self.port)}/"

    async def close(self) -> None:
        """Readiness first, then no new connections, then the requests in flight get their time."""
        if self.draining:
            return
        self.forwarder.draining = True
        self.lookups.clear()
        if self._listener is not None:
            self._accept()  # who is in the queue has been let in by the kernel: a close would be a reset
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            if self.settings.host.startswith("unix:"):
                Path(self.settings.host.removeprefix("unix:")).unlink(missing_ok=True)
        log.info("draining: %d requests in flight", self.in_flight)
        for connection in list(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(self.settings.finish_seconds):
                if self.in_flight:
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests were not finished in %g s", self.in_flight, self.settings.finish_seconds)
        self.reactor.close()
        self.forwarder.close()
        if self._tls is not None:
            await self._tls.close()
        await self.resolver.close()

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("no more connections for the moment: %s", error.strerror)
                    self._loop.remove_reader(self._listener.fileno())
                    self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._let_in(sock, peer[0] if isinstance(peer, tuple) else "")

    def _resume(self) -> None:
        if not self.draining and self._listener is not None:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _let_in(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        crowded = len(self.connections) - self._most
        if crowded >= self._most:  # not even a refusal is to be had
            sock.close()
            return
        stream = self._kind(self.reactor, sock, None)
        connection = Connection(self, stream, peer)
        self.connections.add(connection)
        self.reactor.run(connection.refuse if crowded >= 0 else connection.serve)

    # What a connection tells of its requests.

    def ended(self) -> None:
        if not self.in_flight:
            self._idle.set()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def forwarded(
        self, connection: Connection, head: RequestHead, found: Route, exchange: Exchange, began: float
    ) -> None:
        pass

    def replied(
        self, connection: Connection, head: RequestHead, found: Route, status: int, sent: int, began: float
    ) -> None:
        pass

    def refused(
        self,
        connection: Connection,
        head: RequestHead | None,
        error: ProxyError,
        exchange: Exchange | None,
        began: float,
    ) -> None:
        pass

    def gone(
        self,
        connection: Connection,
        head: RequestHead | None,
        exchange: Exchange | None,
        error: ClientGone,
        began: float,
    ) -> None:
        pass

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
                return b"X-Request-Id: %b\r\n" % given
        self._ids += 1
        return b"X-Request-Id: %b%x\r\n" % (self._id_prefix, self._ids)

    def remember(self, head_bytes: bytes, head: RequestHead, found: Route) -> None:
        if found.manner == "address" and head.length == 0 and len(head_bytes) <= MEMORABLE and not self.draining:
            if len(self.lookups) >= REMEMBERED:
                self.lookups.clear()
            self.lookups[head_bytes] = head, found

    # The proxy's own answers.

    async def reply(self, head: RequestHead, found: Route, task: Task) -> Reply:
        """Raises ProxyError."""
        if found.manner == "address":
            format = address.wanted(
                found.target.partition("?")[2], head.noted.get(b"accept", b""), self.settings.address_format
            )
            return address.answer(await self._lookup(found, task), format)
        if found.manner == "redirect":
            return await self._redirect(head, found, task)
        if head.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(f"{head.method.decode()} {found.target}: only GET")
        if found.manner == "workers":
            return Reply(200, json.dumps(self._workers()).encode())
        if found.manner == "healthz":
            return Reply(200, b'{"status": "ok"}')
        return self._readyz(found)

    async def _lookup(self, found: Route, task: Task) -> Lookup:
        instances = tuple(self.resolver.some(found.service, AT_MOST))
        if not instances:
            task.deadline = float("inf")  # this wait has its own end
            await asyncio.ensure_future(self.resolver.available(found.service, self.settings.wait_seconds))
            instances = tuple(self.resolver.some(found.service, AT_MOST))
            if not instances:
                raise no_worker(found, self.resolver)
        return Lookup(found.service, instances, self.settings.address_ttl_seconds)

    async def _redirect(self, head: RequestHead, found: Route, task: Task) -> Reply:
        """307: the method and the body go along. With Expect the body has not been sent yet, and goes up only once."""
        if (head.length or 0) > self.settings.max_body:
            raise too_large(self.settings.max_body)
        instance = (await self._lookup(found, task)).instances[0]
        location = f"http://{instance.address}{found.target}"
        body = json.dumps({"location": location}).encode()
        return Reply(307, body, headers=(("Location", location), *address.NOT_KEPT))

    def _readyz(self, found: Route) -> Reply:
        ready = not self.draining and self.resolver.has(found.service)
        state = "draining" if self.draining else "ready" if ready else "no worker"
        return Reply(200 if ready else 503, json.dumps({"status": state, "service": found.service}).encode())

    def _workers(self) -> dict[str, object]:
        now = self.reactor.now
        services = {
            name: [
                rows([upstream.instance])[0]
                | {
                    "state": upstream.instance.state,
                    "available": upstream.available(now),
                    "in_flight": upstream.in_flight,
                }
                for upstream in pool.upstreams
            ]
            for name, pool in sorted(self.resolver.services().items())
        }
        return {"mode": self.settings.mode, "registry_connected": self.resolver.connected, "services": services}

    def __repr__(self) -> str:
        return f"<Proxy {self.settings.mode} [{self.in_flight} in flight | {self.resolver!r}]>"


def listen(host: str, port: int, shared: bool) -> socket.socket:
    """A listening socket; `shared`: others of our processes listen on the same port. Raises OSError."""
    if host.startswith("unix:"):
        path = host.removeprefix("unix:")
        listener = socket.socket(socket.AF_UNIX)
        _remove_stale(path)
        where: str | tuple[str, int] = path
    else:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]  # type: ignore[assignment]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.setblocking(False)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """A socket file that nobody listens on is left by a process that was killed. Raises OSError when somebody does."""
    if not os.path.exists(path):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


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
    """A fixed list if one is given, else a watch on the registry."""
    static = [Address.parse(text) for text in settings.static]
    return Resolver(None if static else settings.registry, static, settings.service, settings.credentials())
