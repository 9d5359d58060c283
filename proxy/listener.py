"""A listening socket on TCP or in the file system, and the accepting of who comes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from ..registry.errors import ConfigurationError

log = logging.getLogger("fairway.proxy")

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64  # then the loop's other work comes
PAUSE_SECONDS = 0.5  # without accepting, when there are no files left
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

LetIn = Callable[[socket.socket, str], None]


class Listener:
    """`start()` within the loop; `let_in(socket, address)` for each that comes. `host`: a name, an address, `unix:PATH`."""

    def __init__(self, host: str, port: int, shared: bool, let_in: LetIn) -> None:
        """Listens already. `shared`: other processes of ours listen on the same port. Raises ConfigurationError."""
        self.host, self._let_in = host, let_in
        self._path = Path(host.removeprefix("unix:")) if host.startswith("unix:") else None
        try:
            self._socket = _at_path(self._path) if self._path else _at_port(host, port, shared)
        except OSError as error:
            where = host if self._path else f"{host}:{port}"
            raise ConfigurationError(f"the proxy cannot listen on {where}: {error.strerror or error}") from error

    @property
    def port(self) -> int:
        return 0 if self._path else int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Lets in who is in the queue: the kernel has told them that they are connected, and a close would be a reset."""
        if self._socket.fileno() < 0:
            return
        if hasattr(self, "_loop"):
            for _ in range(BACKLOG // ACCEPTED_AT_ONCE + 1):
                self._accept()
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._path:
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    log.warning("no more connections for the moment: %s", error.strerror)
                    self._loop.remove_reader(self._socket.fileno())
                    self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            sock.setblocking(False)
            self._let_in(sock, peer[0] if self._path is None else "")

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def __repr__(self) -> str:
        return f"<Listener {self.host}{'' if self._path else f':{self.port}'}>"


def _at_port(host: str, port: int, shared: bool) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those who are let in inherit it
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return _listening(sock, where)


def _at_path(path: Path) -> socket.socket:
    """A socket file that nobody listens on is left by a process that was killed. Raises OSError when somebody does."""
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            except ConnectionRefusedError:
                path.unlink()
    return _listening(socket.socket(socket.AF_UNIX), str(path))


def _listening(sock: socket.socket, where: object) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.bind(where)  # type: ignore[arg-type]
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
