"""Connections to workers, kept open between requests."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from ..client.pool import Upstream
from ..registry.instance import Address
from .reactor import Reactor, Task
from .stream import Stream, connect, stream_kind

IDLE_SECONDS = 60.0  # shorter than a worker keeps idle connections: it is we who close them
SWEEP_SECONDS = 5.0
NAME_SECONDS = 30.0  # how long a resolved host name is believed
MOST_RESTING = 256  # per worker


class Links:
    """`take` one that rests, or `open` one; `give` it back when its answer was read to the end, and nothing beyond."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._resting: dict[Upstream, dict[Stream, float]] = {}
        self._places: dict[Address, tuple[float, int, Any]] = {}
        self._kind = stream_kind()

    def start(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def take(self, upstream: Upstream) -> Stream | None:
        """The one used last: those beyond what the load needs grow old, and are closed."""
        resting = self._resting.get(upstream)
        if not resting:
            return None
        stream, _ = resting.popitem()
        stream.on_stir = None
        return stream

    def give(self, upstream: Upstream, stream: Stream) -> None:
        resting = self._resting.get(upstream)
        if resting is None:
            resting = self._resting[upstream] = {}
        if stream.readable or stream.ended or len(resting) >= MOST_RESTING:
            stream.close()  # it said more than its answer, or is going
            return
        resting[stream] = self._reactor.now
        stream.rest(self._stirred)

    async def open(self, task: Task, address: Address) -> Stream:
        """Raises OSError, TimeoutError at the task's deadline."""
        place = self._places.get(address)
        if place is None or self._reactor.now > place[0]:
            place = self._places[address] = await self._resolve(address)
        _, family, where = place
        return await connect(self._reactor, task, family, where, self._kind)

    def forget(self, upstream: Upstream) -> None:
        """Closes what rests: the worker was started anew, or is gone."""
        for stream in self._resting.pop(upstream, {}):
            stream.close()

    async def _resolve(self, address: Address) -> tuple[float, int, Any]:
        try:
            ip = ipaddress.ip_address(address.host)
        except ValueError:
            looking = asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found = await asyncio.ensure_future(looking)
            family, _, _, _, where = found[0]
            return self._reactor.now + NAME_SECONDS, family, where
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        return float("inf"), family, (str(ip), address.port)

    def _stirred(self, stream: Stream) -> None:
        """A resting connection has news: its end, or words that nobody asked for. Both end it."""
        stream.close()
        for resting in self._resting.values():
            if resting.pop(stream, None) is not None:
                return

    def _sweep(self) -> None:
        before = self._reactor.now - IDLE_SECONDS
        for upstream, resting in list(self._resting.items()):
            for stream, since in list(resting.items()):
                if since < before:
                    del resting[stream]
                    stream.close()
            if not resting:
                del self._resting[upstream]
        self._places = {address: place for address, place in self._places.items() if place[0] > self._reactor.now}
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        self._sweeper.cancel()
        for upstream in list(self._resting):
            self.forget(upstream)

    def __repr__(self) -> str:
        return f"<Links {sum(map(len, self._resting.values()))} at rest>"
