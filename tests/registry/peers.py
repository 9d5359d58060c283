"""A seaport peer as bare as can be: a real socket, and the rows on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fairway.registry import Hub
from fairway.registry.config import RegistrySettings
from fairway.registry.wire import Heartbeat, Helo, Message, Register, RowReader, Synced, encode

PATIENCE = 10.0  # seconds; no test waits that long unless something is broken


def row(id: str, port: int = 9001, **more: object) -> Register:
    return Register(id, {"role": "classify", "port": port} | more)


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._rows = RowReader()
        self._heard: list[Message] = []

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.writer.write(encode(message))

    async def hear(self) -> Message:
        """The next row, heartbeats too. Raises EOFError when the hub closed the connection."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard:
                if not (data := await self.reader.read(64 * 1024)):
                    raise EOFError
                self._heard += self._rows.feed(data)
        return self._heard.pop(0)

    async def next(self) -> Message:
        """The next row that is no heartbeat."""
        while isinstance(message := await self.hear(), Heartbeat):
            pass
        return message

    async def until(self, wanted: Callable[[Message], bool]) -> Message:
        while not wanted(message := await self.next()):
            pass
        return message

    async def dump(self) -> list[Register]:
        """What the hub says first: helo, all it knows, synced."""
        assert await self.next() == Helo("127.0.0.1", fairway=True)
        known: list[Register] = []
        while not isinstance(message := await self.next(), Synced):
            assert isinstance(message, Register)
            known.append(message)
        return known


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """A connection on which nothing was said yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass


@asynccontextmanager
async def greeted(port: int, *first: Message) -> AsyncIterator[Peer]:
    """A peer that spoke first and has been told all there is; `Hello()` first makes it one of ours."""
    async with connected(port) as peer:
        peer.say(*first, Synced())
        await peer.dump()
        yield peer


@asynccontextmanager
async def running_hub(**settings: object) -> AsyncIterator[Hub]:
    """In memory, and without dialling back: most tests' workers are names only."""
    hub = Hub(RegistrySettings(**({"port": 0, "store": "embedded:", "dial_back": False} | settings)))  # type: ignore[arg-type]
    await hub.start()
    try:
        yield hub
    finally:
        await hub.close()


@asynccontextmanager
async def listening(port: int = 0) -> AsyncIterator[int]:
    """Something that can be dialled, and says nothing. The kernel answers: no connection is left to a loop that ends."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        yield server.getsockname()[1]
