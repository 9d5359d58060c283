"""seaport rows over TCP, and the door that tells them from HTTP by the first byte.

seaport's clients speak first (`["synced"]`), ours as well, and so do HTTP's. Who says nothing for a second is greeted as
seaport's server greets: old clients may wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ..errors import WireError
from ..instance import Instance
from ..rights import EVERYTHING, Rights
from ..watcher import Tell, Watcher
from ..wire import (
    HEARTBEAT,
    Accepted,
    Hello,
    Helo,
    Marked,
    Message,
    Register,
    Rejected,
    RowReader,
    Synced,
    encode,
)

if TYPE_CHECKING:
    from ..server import Hub

log = logging.getLogger("fairway.registry")

GREETING_DELAY = 1.0  # seconds of silence after which a peer is taken for a seaport client
HIGH_WATER = 256 * 1024  # bytes; who has more than this unread is told no more until it has read
MAX_UNREAD = 4 * HIGH_WATER  # bytes; our answers come on top: who asks and never reads is cut off
CHUNK_ROWS = 64  # rows of a backlog that are written at once
SYNCED = encode(Synced())


class Doorman(asyncio.Protocol):
    """Waits for the first byte, then hands the connection on."""

    def __init__(self, hub: Hub, http_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._hub, self._http_protocol = hub, http_protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._hub.connections >= self._hub.settings.max_connections:
            log.warning("closed a connection: %d are open", self._hub.settings.max_connections)
            self.transport.abort()
        self._hub.doors.add(self)
        self._greeting = asyncio.get_running_loop().call_later(GREETING_DELAY, self._hand_on, b"[", b"")

    def data_received(self, data: bytes) -> None:
        self._hand_on(data[:1], data)

    def connection_lost(self, error: Exception | None) -> None:
        self._greeting.cancel()
        self._hub.doors.discard(self)

    def _hand_on(self, first: bytes, data: bytes) -> None:
        self._greeting.cancel()
        self._hub.doors.discard(self)
        rows = RowsProtocol(self._hub) if first in b"[\r\n" else None
        next_up = rows or self._http_protocol()
        self.transport.set_protocol(next_up)
        next_up.connection_made(self.transport)
        if data:
            next_up.data_received(data)
        elif rows:
            rows.greet()


class RowsProtocol(asyncio.Protocol):
    """One peer: an npm seaport client or hub, or a Link. With `dialled` it was we who connected, to a hub."""

    __slots__ = (
        "_hub",
        "_reads",
        "_rows",
        "_watcher",
        "asking",
        "dialled",
        "fairway",
        "host",
        "name",
        "token",
        "transport",
    )

    def __init__(self, hub: Hub, dialled: bool = False) -> None:
        self._hub = hub
        self._rows = RowReader()
        self._watcher: Watcher | None = None
        self._reads = False
        self.asking: set[str] = set()  # ids of which it is to be told what became of them
        self.dialled = dialled
        self.fairway = False
        self.token = ""

    @property
    def rights(self) -> Rights:
        """Asked for anew each time: the token file may have changed. Whom we dialled was named by our operator."""
        return EVERYTHING if self.dialled else self._hub.rights(self.token)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.host = peer[0].removeprefix("::ffff:") if peer else "127.0.0.1"
        self.name = self._hub.joined(self)
        if self.dialled:
            self.greet()
        else:
            self.transport.write(encode(Helo(self.host, fairway=True)))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._rows.feed(data):
                self._heard(message)
        except WireError as error:
            log.warning("closed %s: %s", self.name, error)
            self.transport.abort()
            self._hub.left(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._hub.left(self)

    # -- what it says ----------------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        match message:
            case Hello(token, services) if self._watcher is None:
                self.fairway, self.token = True, token
                self._hub.heard(self, message)
                self.greet(Watcher(services, plain=False))
                return
            case Register(id, meta):
                entitled = self._entitled(id, dict(meta))
                if entitled is None:
                    return
                message = entitled
            case Marked(id, enabled, reason):
                self._hub.marked(self, id, enabled, reason)
                return
        if self._watcher is None:
            self.greet()
        self._hub.heard(self, message)

    def _entitled(self, id: str, meta: dict[str, object]) -> Register | None:
        """seaport's clients have no place for a token but their metadata; there it is taken, and never told."""
        token = meta.pop("token", None)
        if isinstance(token, str):
            self.token = token
            if self._watcher is not None and not self._reads and self.rights.may_read:
                self.greet()
        service = str(meta.get("role", "")).partition("@")[0]
        if not (rights := self.rights).may_register(service):
            self.refused(id, f"{rights.principal} may not register {service!r}: show a token that may")
            return None
        self._hub.catalog.owners.known_as(self.name, rights.principal)
        return Register(id, meta)

    # -- what it is told -------------------------------------------------------------------------------------------

    def greet(self, watcher: Watcher | None = None) -> None:
        """The dump, then every change; nothing to who may not read."""
        self._reads = self.rights.may_read
        if not self._reads and self.fairway and watcher is not None and watcher.wants_any:
            self._answer(Rejected("", f"{self.rights.principal} may not read: show a token that may"))
        self._watcher = watcher = (watcher or Watcher()) if self._reads else Watcher(services=())
        if self.dialled:
            self.transport.write(self._hub.own_row())
        watcher.greet(self._hub.hears(self, watcher.services))
        self._pump()

    def offer(self, id: str, before: Instance | None, now: Instance | None) -> None:
        if self._watcher is not None and (tell := self._watcher.offer(id, before, now)):
            self.transport.write(self._hub.row(tell))

    def accepted(self, id: str) -> None:
        if self.fairway:
            self._answer(Accepted(id))

    def refused(self, id: str, reason: str) -> None:
        log.warning("refused %s from %s: %s", id, self.name, reason)
        self._hub.counters["refused"] += 1
        if self.fairway:
            self._answer(Rejected(id, reason))

    def marked(self, id: str, enabled: bool, reason: str) -> None:
        if self.fairway:
            self._answer(Marked(id, enabled, reason))

    def beat(self) -> None:
        if self._watcher is None or self._watcher.flowing:  # who does not read needs no proof that we live
            self.transport.write(HEARTBEAT)

    def pause_writing(self) -> None:
        if self._watcher is not None:
            self._watcher.flowing = False

    def resume_writing(self) -> None:
        if self._watcher is not None:
            self._watcher.flowing = True
            self._pump()

    def _pump(self) -> None:
        watcher = self._watcher
        while watcher is not None and watcher.flowing and watcher.behind and not self.transport.is_closing():
            told = watcher.take(self._hub.published.get, CHUNK_ROWS)
            self.transport.write(b"".join(self._hub.row(t) if isinstance(t, Tell) else SYNCED for t in told))

    def _answer(self, message: Message) -> None:
        self.transport.write(encode(message))
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            log.warning("%s does not read: it is cut off", self.name)
            self.transport.abort()
