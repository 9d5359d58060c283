"""DNS over UDP, TCP and TLS (RFC 1035 section 4.2, RFC 7766, RFC 7858): sockets and their bounds around a Nameserver."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import cast

from ..buckets import Buckets, source_of
from ..instance import is_loopback
from ..nameserver import Nameserver, shortened
from ..ports import free_port
from ..zone import Source, Zone, packed

MAX_STREAMS = 256  # connections; a further one closes the one that has asked nothing for the longest
IDLE_SECONDS = 10.0  # without a whole query, or with answers that nobody reads
MAX_STREAM_QUERY = 4096  # bytes
HIGH_WATER = 128 * 1024  # bytes of answers that are not read; then no more queries are
BYTES_A_SECOND, BYTES_AT_ONCE = 100_000, 1_000_000  # over UDP to one source beyond loopback
HANDSHAKE_SECONDS = 5.0
RECEIVE_BUFFER = 1 << 20  # bytes of queries that wait while we do something else; the kernel may allow less
TRIES = 5  # ports tried until one is free for both UDP and TCP

UdpAddress = tuple[str, int]


class DnsListener:
    """`await start()`, then `port` is bound, UDP and TCP. `allowed()`: whether those who show no token may read."""

    def __init__(
        self,
        catalog: Source,
        *,
        zone: str = "fairway.",
        ttl: int = 0,
        allowed: Callable[[], bool],
        rng: random.Random | None = None,
    ) -> None:
        """`ttl`: seconds for which resolvers may keep an answer. Raises ConfigurationError."""
        draw = (rng or random.Random()).random
        self.zone = Zone(catalog, name=zone, ttl=ttl, draw=draw)
        self.nameserver = Nameserver(self.zone, draw)
        self.allowed = allowed
        self.buckets = Buckets(BYTES_A_SECOND, BYTES_AT_ONCE)
        self.streams: dict[_Stream, None] = {}  # the one that has asked nothing for the longest first
        self.port = self.tls_port = 0
        self._servers: list[asyncio.Server] = []
        self._sockets: list[_Datagrams] = []
        self.ending: set[_Stream] = set()

    @property
    def counters(self) -> Counter[str]:
        return self.nameserver.counters

    async def start(self, host: str, port: int) -> None:
        """0 takes a port that is free for both. Raises OSError."""
        for left in reversed(range(1 if port else TRIES)):
            try:
                await self._bind(host, port or free_port(host if packed(host) else "127.0.0.1"))
                return
            except OSError as error:
                await self.close()
                if error.errno != errno.EADDRINUSE or not left:
                    raise

    async def start_tls(self, host: str, port: int, ssl_context: ssl.SSLContext) -> None:
        """DNS over TLS, beside `start`; the port is `tls_port`. Raises OSError."""
        server = await asyncio.get_running_loop().create_server(
            lambda: _Stream(self), host, port, ssl=ssl_context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        self._servers.append(server)
        self.tls_port = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for end in self._sockets:
            end.transport.close()
        for stream in list(self.streams):
            stream.end()
        await asyncio.gather(*(end.closed for end in self._sockets), *(stream.closed for stream in self.ending))
        self._servers.clear()
        self._sockets.clear()
        self.zone.hosts.clear()

    async def _bind(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Stream(self), host, port, backlog=MAX_STREAMS)
        self._servers.append(server)
        for bound in server.sockets:
            where = bound.getsockname()
            _, datagrams = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), sock=_udp_socket(bound.family, where)
            )
            self._sockets.append(datagrams)
            if where[0] not in ("0.0.0.0", "::"):
                self.zone.hosts.append(where[0])
        self.port = port

    def __repr__(self) -> str:
        held = f"{len(self.streams)} streams | {len(self.buckets)} sources"
        return f"<DnsListener [:{self.port} | {held}] {self.nameserver!r}>"


class _Datagrams(asyncio.DatagramProtocol):
    closed: asyncio.Future[None]
    transport: asyncio.DatagramTransport

    def __init__(self, listener: DnsListener) -> None:
        self._listener, self._answer = listener, listener.nameserver.answer
        self._now = asyncio.get_running_loop().time
        self._flowing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)

    def datagram_received(self, data: bytes, addr: UdpAddress) -> None:
        if not self._flowing:
            return  # a full socket: as if it had been lost on the way
        listener, now = self._listener, self._now()
        answer = self._answer(data, now, allowed=listener.allowed())
        larger = len(answer) > len(data) and not is_loopback(addr[0])
        if larger and not listener.buckets.take(source_of(addr[0]), len(answer), now):
            listener.counters["limited"] += 1
            answer = shortened(data, answer)
        if answer:
            self.transport.sendto(answer, addr)

    def pause_writing(self) -> None:
        self._flowing = False

    def resume_writing(self) -> None:
        self._flowing = True

    def error_received(self, error: Exception) -> None:
        """Who asked is gone: no matter."""


class _Stream(asyncio.Protocol):
    """One connection: queries with their length before them, as many as one likes, answered in their order."""

    closed: asyncio.Future[None]
    transport: asyncio.Transport

    def __init__(self, listener: DnsListener) -> None:
        self._listener = listener
        self._rest = b""
        self._flowing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        streams = self._listener.streams
        if len(streams) >= MAX_STREAMS:
            next(iter(streams)).end()
        streams[self] = None
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        self._asked = self._loop.time()
        self._timer = self._loop.call_later(IDLE_SECONDS, self._look)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._listener.streams.pop(self, None)
        self._listener.ending.discard(self)
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self._work()

    def pause_writing(self) -> None:
        self._flowing = False
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._flowing = True
        self.transport.resume_reading()
        self._work()

    def end(self) -> None:
        if not self.closed.done():
            self._listener.streams.pop(self, None)
            self._listener.ending.add(self)
            self.transport.abort()

    def _work(self) -> None:
        rest, at = self._rest, 0
        while self._flowing and len(rest) >= at + 2:
            size = rest[at] << 8 | rest[at + 1]
            if size > MAX_STREAM_QUERY:
                self.end()
                return
            if len(rest) < at + 2 + size:
                break
            query = rest[at + 2 : at + 2 + size]
            at += 2 + size
            self._answer(query)
        self._rest = rest[at:]

    def _answer(self, query: bytes) -> None:
        listener = self._listener
        self._asked = self._loop.time()
        if self in listener.streams:
            del listener.streams[self]
            listener.streams[self] = None
        answer = listener.nameserver.answer(query, self._asked, stream=True, allowed=listener.allowed())
        if answer:
            self.transport.write(len(answer).to_bytes(2, "big") + answer)

    def _look(self) -> None:
        left = self._asked + IDLE_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.end()


def _udp_socket(family: int, where: tuple[str, int]) -> socket.socket:
    """Bound here: what uvloop says of a port that is taken has no errno, and its transport stays open."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock
