"""A non-blocking socket on the reactor: what was read and written at once, and what has to be waited for.

Every method tries its system call first. EAGAIN, or a read that brought less than there was room for, means that nothing is
left, and the next edge will come (man 7 epoll); once the other side has ended there are no more edges, and only a read of
nothing tells the end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from .reactor import EVENT, Reactor, Task

Buffer = bytes | bytearray | memoryview
RESET = struct.pack("ii", 1, 0)  # linger, for no time: man 7 socket
MORE: Final = getattr(socket, "MSG_MORE", 0)
JOIN_BYTES: Final = 8192  # up to here copying two buffers into one costs less than a scattered write


class Stream:
    """`task`: who is told of news; None while it rests in a pool, where any news is its end (`on_stir` is called)."""

    __slots__ = ("_look", "_reactor", "_recv", "_recv_into", "_send", "closed", "encrypted", "ended", "fd",
                 "on_stir", "readable", "sock", "spliceable", "task", "writable")  # fmt: skip

    def __init__(self, reactor: Reactor, sock: socket.socket, task: Task | None) -> None:
        self._reactor, self.sock, self.task = reactor, sock, task
        self.fd = sock.fileno()
        self.readable, self.writable, self.ended, self.closed = False, True, False, False
        self.spliceable, self.encrypted = True, False
        self.on_stir: Callable[[Stream], None] | None = None
        self._recv, self._recv_into, self._send = sock.recv, sock.recv_into, sock.send
        self._look: Callable[[int], list[Any]] | None = None
        reactor.add(self)

    def unreadable(self) -> None:
        """Nothing is left to be read: the next edge will say when there is."""
        self.readable = False

    def unwritable(self) -> None:
        """It has no room left: the next edge will say when there is."""
        self.writable = False

    async def handshake(self, task: Task, seconds: float) -> bool:
        """Before the first byte; nothing to be done here. Whether the other side may go on."""
        return True

    async def recv(self, size: int) -> bytes:
        """Some bytes, at the most `size`; none at the end. Raises ConnectionError, TimeoutError."""
        while True:
            while not self.readable:
                await EVENT
            data = self.try_recv(size)
            if data is not None:
                return data

    def try_recv(self, size: int) -> bytes | None:
        """Like `recv`; None when nothing is there now."""
        try:
            data = self._recv(size)
        except BlockingIOError:
            self.unreadable()
            return None
        if len(data) < size and not self.ended:
            self.unreadable()
        return data

    async def recv_into(self, view: memoryview) -> int:
        """Like `recv`, into `view`, which must have room; how many bytes came."""
        while True:
            while not self.readable:
                await EVENT
            try:
                count = self._recv_into(view)
            except BlockingIOError:
                self.unreadable()
                continue
            if count < len(view) and not self.ended:
                self.unreadable()
            return count

    async def send(self, data: Buffer, listening: bool = False) -> bool:
        """All of it. `listening`: no more of it once the other side has something to say; False then."""
        sent = self.try_send(data)
        return sent == len(data) or await self.send_rest(data, sent, listening)

    async def send_rest(self, data: Buffer, sent: int, listening: bool = False) -> bool:
        """What follows the first `sent` bytes."""
        if sent < len(data):
            view = memoryview(data)
            while sent < len(data):
                while not self.writable:
                    if listening and self.readable:
                        return False
                    await EVENT
                sent += self.try_send(view[sent:])
        return True

    def try_send(self, data: Buffer, more: bool = False) -> int:
        """As much as the socket takes now. `more` follows at once: the kernel need not make a packet of this alone."""
        try:
            sent = self._send(data, MORE) if more else self._send(data)
        except BlockingIOError:
            self.unwritable()
            return 0
        if sent < len(data):
            self.unwritable()
        return sent

    def try_send_two(self, first: bytes, second: Buffer) -> int:
        """Both in one system call."""
        if len(second) <= JOIN_BYTES:
            return self.try_send(first + second)
        try:
            sent = self.sock.sendmsg((first, second))
        except BlockingIOError:
            self.unwritable()
            return 0
        if sent < len(first) + len(second):
            self.unwritable()
        return sent

    def peek(self) -> bool:
        """Whether the other side has said anything, or ended, by now. Asks the kernel."""
        look = self._look
        if look is None:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            look = self._look = poll.poll
        return bool(look(0))  # a read that finds nothing would cost an exception each time

    def rest(self, on_stir: Callable[[Stream], None]) -> None:
        """Into a pool: from now on any news is its end."""
        self.task, self.on_stir = None, on_stir

    def stirred(self) -> None:
        if self.on_stir is not None and (self.readable or self.ended):
            self.on_stir(self)

    def finish_sending(self) -> None:
        """Half-closes: the other side reads our last words, and then the end."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side was faster

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._reactor.remove(self)
            self.sock.close()

    def abort(self) -> None:
        """Closes with a reset: what was sent and not yet taken is thrown away, and the other side knows it is not whole."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass
            self.close()

    def __repr__(self) -> str:
        news = "".join(
            mark for mark, is_set in zip("rwe", (self.readable, self.writable, self.ended), strict=True) if is_set
        )
        return f"<{type(self).__name__} {self.fd} [{news or '-'}]>"


class LevelStream(Stream):
    """Where there is no epoll: the loop is asked for one event each time that nothing is left."""

    __slots__ = ("_loop",)

    def __init__(self, reactor: Reactor, sock: socket.socket, task: Task | None) -> None:
        super().__init__(reactor, sock, task)
        self._loop = asyncio.get_running_loop()
        self.spliceable = False
        self._loop.add_reader(self.fd, self._came)

    def unreadable(self) -> None:
        if self.readable:
            self.readable = False
            self._loop.add_reader(self.fd, self._came)

    def unwritable(self) -> None:
        if self.writable:
            self.writable = False
            self._loop.add_writer(self.fd, self._went)

    def _came(self) -> None:
        self._loop.remove_reader(self.fd)
        self.readable = True
        self._news()

    def _went(self) -> None:
        self._loop.remove_writer(self.fd)
        self.writable = True
        self._news()

    def _news(self) -> None:
        if self.task is not None:
            self.task.step()
        else:
            self.stirred()

    def close(self) -> None:
        if not self.closed:
            self._loop.remove_reader(self.fd)
            self._loop.remove_writer(self.fd)
        super().close()


def stream_kind() -> type[Stream]:
    return Stream if hasattr(select, "epoll") else LevelStream


async def connect(reactor: Reactor, task: Task, family: int, address: Any, kind: type[Stream] = Stream) -> Stream:
    """Raises OSError, TimeoutError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(code, os.strerror(code))
    stream = kind(reactor, sock, task)
    if code:
        stream.unwritable()
        try:
            while not stream.writable:
                await EVENT
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
        except BaseException:
            stream.close()
            raise
    return stream
