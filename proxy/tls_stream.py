"""A client's connection under TLS. What it sends is deciphered here, so the kernel cannot move it: it is copied."""

from __future__ import annotations

import logging
import socket
import ssl

from .reactor import EVENT, Reactor, Task
from .stream import Buffer, Stream

log = logging.getLogger("fairway.proxy")


class TlsStream(Stream):
    """Reads may bring less than there is, as a record is decoded at a time: only 'want read' means that nothing is left."""

    __slots__ = ("_tls",)

    def __init__(self, reactor: Reactor, sock: socket.socket, task: Task | None, context: ssl.SSLContext) -> None:
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True)
        super().__init__(reactor, wrapped, task)
        self._tls = wrapped
        self.spliceable, self.encrypted = False, True

    async def handshake(self, task: Task, seconds: float) -> bool:
        """Whether it came about, within `seconds`."""
        task.deadline = task.now + seconds
        while True:
            try:
                self._tls.do_handshake()
                self.readable = True  # the first request may have come along with its last message
                return True
            except ssl.SSLWantReadError:
                self.unreadable()
                while not self.readable:
                    if self.ended:
                        return False
                    await EVENT
            except ssl.SSLWantWriteError:
                self.unwritable()
                while not self.writable:
                    await EVENT
            except OSError as error:  # a stranger who speaks no TLS, or has no certificate, is worth a line
                log.debug("no TLS handshake: %s", error)
                return False

    def try_recv(self, size: int) -> bytes | None:
        try:
            return self._recv(size)
        except ssl.SSLWantReadError:
            self.unreadable()
            return None
        except ssl.SSLWantWriteError:
            self.unreadable()
            return None
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS: {error.reason}") from error

    async def recv_into(self, view: memoryview) -> int:
        data = await self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def try_send(self, data: Buffer, more: bool = False) -> int:
        if not len(data):
            return 0
        try:
            return self._send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self.unwritable()
            return 0
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS: {error.reason}") from error

    def try_send_two(self, first: bytes, second: Buffer) -> int:
        return self.try_send(first + second)

    def peek(self) -> bool:
        return self.readable or self._tls.pending() > 0

    def finish_sending(self) -> None:
        """Says goodbye in TLS too, so that the end is known to be ours and not an attacker's."""
        try:
            self._tls.unwrap()
        except (OSError, ValueError):
            pass  # it does not wait for the other side's goodbye
        try:
            socket.socket.shutdown(self._tls, socket.SHUT_WR)
        except OSError:
            pass
