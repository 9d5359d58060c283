"""The load's ends of connections: seaport rows, HTTP, ZooKeeper's frames, DNS. They parse no more than the load needs.

A wire has one request under way: `ask` for one answer, `repeat` to ask again as soon as it was answered, with no task and
no future between two requests, so that one core of load is enough for a core of any server.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Self, cast

BEAT = b'["heartbeat"]\n'
SILENCE_PAUSE = 0.3  # seconds
Heard = Callable[[str], None]  # the id of an instance that appeared


class Wire(asyncio.Protocol):
    """Ends with its connection; `lost` says whether that was the server's doing."""

    silent = False  # of all: whoever is due to beat waits until it may

    def __init__(self) -> None:
        self.lost = False
        self.closing = False
        self._parts: list[bytes] = []
        self._answered: Callable[[bytes], None] | None = None
        self._asked: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, port: int) -> Self:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = not self.closing
        if self.lost and self._asked and not self._asked.done():
            self._asked.set_exception(ConnectionError("the server closed a connection with a request under way"))

    def close(self) -> None:
        self.closing = True
        if self._timer:
            self._timer.cancel()
        if hasattr(self, "transport"):  # else it was never opened
            self.transport.abort()

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._asked = answer = cast("asyncio.Future[bytes]", asyncio.get_running_loop().create_future())
        self._answered = answer.set_result
        self.transport.write(request)
        return answer

    @property
    def busy(self) -> bool:
        return self._answered is not None

    def repeat(self, request: bytes, until: float) -> asyncio.Future[int]:
        """-> how often it was answered until `until`, of time.monotonic()."""
        self._asked = done = cast("asyncio.Future[int]", asyncio.get_running_loop().create_future())
        count = 0

        def again(_: bytes) -> None:
            nonlocal count
            count += 1
            if time.monotonic() < until:
                self._answered = again
                self.transport.write(request)
            else:
                done.set_result(count)

        self._answered = again
        self.transport.write(request)
        return done

    def beat(self, seconds: float, say: Callable[[], None]) -> None:
        """`say` every so many seconds, give or take a tenth; the first time anywhere within them."""
        loop = asyncio.get_running_loop()

        def again() -> None:
            if self.lost:
                return
            if not Wire.silent:
                say()
            pause = seconds * random.uniform(0.9, 1.1) if not Wire.silent else SILENCE_PAUSE
            self._timer = loop.call_later(pause, again)

        self._timer = loop.call_later(seconds * random.random(), again)

    def _answer(self, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered:
            answered(body)


class Rows(Wire):
    """seaport's rows, to a hub of ours or of npm's. `hello`: the first thing it says.

    `accepted(id)` and `gone(id)` are futures; `heard(id)` is called with each registration it is told of.
    """

    def __init__(self, hello: bytes = b"", heard: Heard | None = None) -> None:
        super().__init__()
        self._hello, self.heard = hello, heard
        self._rest = b""
        self._waiting: dict[tuple[str, str], asyncio.Future[None]] = {}
        self.synced = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self._hello)

    def write(self, row: bytes) -> None:
        self.transport.write(row)

    def beats(self, seconds: float) -> None:
        self.beat(seconds, lambda: self.transport.write(BEAT))

    def when(self, kind: str, id: str) -> asyncio.Future[None]:
        """When a row of this kind comes: `accepted`, `register` or `free`."""
        future = self._waiting[kind, id] = asyncio.get_running_loop().create_future()
        return future

    def data_received(self, data: bytes) -> None:
        if data == BEAT or not (self._waiting or self.heard or not self.synced.done()):
            self._rest = b""
            return
        *rows, self._rest = (self._rest + data).split(b"\n")
        for row in rows:
            words = row.split(b'"', 4)
            kind = words[1].decode() if len(words) > 1 else ""
            if kind == "synced" and not self.synced.done():
                self.synced.set_result(None)
            if kind not in ("accepted", "register", "free", "refused"):
                continue
            id = words[3].decode()
            if kind == "refused":
                raise RuntimeError(f"the hub refused: {row!r:.300}")
            if kind == "register" and self.heard:
                self.heard(id)
            if future := self._waiting.pop((kind, id), None):
                future.set_result(None)


class Http(Wire):
    """One kept-alive connection; an answer has a length or comes in chunks. `strict`: a status but 200 is an error."""

    def __init__(self, heard: Callable[[bytes], None] | None = None, strict: bool = True) -> None:
        super().__init__()
        self._strict = strict
        self._heard = heard  # an endless answer: called with each piece
        self._missing = -1  # bytes of the answer still to come; -1: unknown, -2: it ends with the last chunk

    def data_received(self, data: bytes) -> None:
        if self._heard:
            self._heard(data)
            return
        if self._missing == -1:
            if self._parts:
                data = b"".join((*self._parts, data))
                self._parts.clear()
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts.append(data)
                return
            if self._strict and not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered {data[:300]!r}")
            at = data.find(b"Content-Length: ", 0, end)
            self._missing = -2 if at < 0 else int(data[at + 16 : data.index(b"\r", at)]) + end + 4
        self._parts.append(data)
        if self._missing == -2:
            done = data.endswith(b"0\r\n\r\n")
        else:
            self._missing -= len(data)
            done = self._missing <= 0
        if done:
            body = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            self._parts.clear()
            self._missing = -1
            self._answer(body)


class Frames(Wire):
    """A session of ZooKeeper's. Format: zookeeper.jute; each frame has a length before it. An answer may be several."""

    PING = struct.pack(">iii", 8, -2, 11)
    CREATE, DELETE, GET, CHILDREN = 1, 2, 4, 8
    NODE_EXISTS = -110
    ANYBODY = struct.pack(">ii", 1, 31) + b"\0\0\0\5world\0\0\0\6anyone"

    def __init__(self, changed: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._changed = changed  # something that is watched changed
        self._buffer = b""
        self._expected = 1
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self._began.done():
            self._began.set_exception(ConnectionError("ZooKeeper began no session"))

    async def begin(self, port: int, seconds: float) -> Self:
        await self.open(port)
        head = struct.pack(">iqiqi", 0, 0, int(seconds * 1000), 0, 16) + bytes(16) + b"\0"
        self.transport.write(struct.pack(">i", len(head)) + head)
        await self._began
        return self

    def request(self, kind: int, path: str, rest: bytes = b"") -> bytes:
        name = path.encode()
        body = struct.pack(">iii", next(self._numbers), kind, len(name)) + name + rest
        return struct.pack(">i", len(body)) + body

    def create(self, path: str, data: bytes = b"", lasting: bool = False) -> bytes:
        flags = struct.pack(">i", 0 if lasting else 1)
        return self.request(self.CREATE, path, struct.pack(">i", len(data)) + data + self.ANYBODY + flags)

    def delete(self, path: str) -> bytes:
        return self.request(self.DELETE, path, struct.pack(">i", -1))

    def children(self, path: str, watch: bool = False) -> bytes:
        return self.request(self.CHILDREN, path, bytes([watch]))

    def get(self, path: str) -> bytes:
        return self.request(self.GET, path, b"\0")

    def expect(self, frames: int) -> None:
        """So many make an answer."""
        self._expected = self._left = frames

    def beats(self, seconds: float) -> None:
        self.beat(seconds, lambda: self.transport.write(self.PING))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at = 0
        while len(data) - at >= 4:
            (length,) = struct.unpack_from(">i", data, at)
            if len(data) - at - 4 < length:
                break
            self._frame(data, at + 4, length)
            at += 4 + length
        self._buffer = data[at:]

    def _frame(self, data: bytes, at: int, length: int) -> None:
        if not self._began.done():
            self._left = self._expected
            self._began.set_result(None)
            return
        number, _, error = struct.unpack_from(">iqi", data, at)
        if number == -1 and self._changed:
            self._changed()
        if number < 0:
            return
        if error not in (0, self.NODE_EXISTS):
            raise RuntimeError(f"ZooKeeper's error {error}")
        self._left -= 1
        if not self._left:
            self._left = self._expected
            self._answer(data[at + 16 : at + length])


class Names(asyncio.DatagramProtocol):
    """A resolver's end: one question under way; asked again if no answer came within a second."""

    def __init__(self) -> None:
        self._answered: Callable[[bytes], None] | None = None

    async def open(self, port: int) -> Self:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=("127.0.0.1", port))
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def close(self) -> None:
        self.transport.abort()

    @staticmethod
    def question(name: str, payload: int = 4096) -> bytes:
        """SRV IN, with EDNS (RFC 6891) for answers of up to `payload` bytes."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
        additional = b"\0" + struct.pack(">HHIH", 41, payload, 0, 0)
        return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 1) + labels + b"\0" + struct.pack(">HH", 33, 1) + additional

    def repeat(self, request: bytes, until: float) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        count, seen = 0, -1

        def again(answer: bytes) -> None:
            nonlocal count
            if answer[3] & 15 or not answer[2] & 128:
                raise RuntimeError(f"DNS answered {answer[:12]!r}")
            count += 1
            if time.monotonic() < until:
                self.transport.sendto(request)
            elif not done.done():
                done.set_result(count)

        def look() -> None:
            nonlocal seen
            if done.done():
                return
            if seen == count:  # a datagram was lost
                if time.monotonic() >= until:
                    done.set_result(count)
                    return
                self.transport.sendto(request)
            seen = count
            loop.call_later(1.0, look)

        self._answered = again
        self.transport.sendto(request)
        loop.call_later(1.0, look)
        return done

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self._answered:
            self._answered(data)


class Listener:
    """Addresses to be advertised and dialled: `ports` of them, on which whoever comes is let go again."""

    def __init__(self, ports: int = 1) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(ports)]
        self.ports = [each.getsockname()[1] for each in self._sockets]
        for each in self._sockets:
            each.setblocking(False)
            asyncio.get_running_loop().add_reader(each, self._accept, each)

    def _accept(self, listening: socket.socket) -> None:
        try:
            while True:
                listening.accept()[0].close()
        except OSError:
            pass  # nobody else, or gone again

    def close(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
