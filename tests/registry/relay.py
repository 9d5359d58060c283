"""A relay between a client and a server on this machine, for the faults that only a network makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Connections to `port` go on to `target`. `cut` ends them and takes no others; `freeze` lets them hang in silence."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._open: dict[asyncio.Task[None], bytearray] = {}
        self._frozen: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def mend(self) -> None:
        """Takes connections, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def freeze(self, request: bytes) -> int:
        """Those open connections on which `request` was said: nothing comes through any more. How many they are."""
        frozen = {task for task, said in self._open.items() if request in said}
        self._frozen |= frozen
        return len(frozen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        said = self._open[task] = bytearray()
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self.target)
            pipes = [self._pipe(task, reader, there, said), self._pipe(task, back, writer, None)]
            await asyncio.wait(map(asyncio.ensure_future, pipes), return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            self._frozen.discard(task)
            writer.transport.abort()
            if there:
                there.transport.abort()

    async def _pipe(
        self, task: asyncio.Task[None], source: asyncio.StreamReader, to: asyncio.StreamWriter, said: bytearray | None
    ) -> None:
        try:
            while data := await source.read(64 * 1024):
                if said is not None:
                    said += data
                if task not in self._frozen:
                    to.write(data)
                    await to.drain()
        except OSError:
            pass


@asynccontextmanager
async def relay_to(target: int) -> AsyncIterator[Relay]:
    relay = Relay(target)
    await relay.mend()
    try:
        yield relay
    finally:
        await relay.cut()
