"""A relay on a thread's own loop between a proxy and a worker, that does what networks do: delay, reset, half-close, drip.

Its faults begin when an upload has gone through whole and its answer is due: nothing of the answer has passed yet.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal

Toxin = Literal["none", "reset", "half-close", "drip", "delay"]
RESET = struct.pack("ii", 1, 0)  # lingering for no time at all is how a socket is made to send RST instead of FIN


class Toxic:
    """From `port` to `target`, which is set before anybody comes. Every `each`th answer meets the toxin; `times` counts.

    reset       RST instead of the answer
    half-close  FIN instead of the answer; what the proxy still sends is taken
    drip        the answer comes byte by byte
    delay       each piece, in both directions, comes `seconds` later
    """

    def __init__(self, toxin: Toxin, each: int, seconds: float) -> None:
        self.toxin, self.each, self.seconds = toxin, each, seconds
        self.port = self.target = self.times = self._answers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self.target)
            ways = [asyncio.ensure_future(self._there(reader, there)), asyncio.ensure_future(self._back(back, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if there:
                there.transport.abort()

    async def _there(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(64 * 1024):
            if self.toxin == "delay":
                await asyncio.sleep(self.seconds)
            to.write(data)
            await to.drain()

    async def _back(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(64 * 1024):
            self._answers += 1
            if self.toxin == "none" or self._answers % self.each:
                to.write(data)
                await to.drain()
                continue
            self.times += 1
            match self.toxin:
                case "reset":
                    to.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, RESET)
                    to.transport.abort()
                    return
                case "half-close":
                    to.write_eof()
                    await asyncio.sleep(3600)  # until the proxy hangs up
                case "drip":
                    for at in range(len(data)):
                        to.write(data[at : at + 1])
                        await to.drain()
                        await asyncio.sleep(0)
                case "delay":
                    await asyncio.sleep(self.seconds)
                    to.write(data)


@contextmanager
def toxic(toxin: Toxin, each: int = 1, seconds: float = 0.02) -> Iterator[Toxic]:
    relay, loop = Toxic(toxin, each, seconds), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(relay.start(), loop).result(10)
        yield relay
    finally:
        asyncio.run_coroutine_threadsafe(relay.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
