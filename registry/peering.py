"""Exchanging all rows with another seaport hub, as `seaport`'s own `peer(port, host)` does.

For living together with hubs of old. For several registries that fail over to each other, run them on one engine.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial

from .instance import Address

log = logging.getLogger("fairway.registry")

RETRY_SECONDS = 1.0  # as seaport


class Peering:
    """Keeps a connection to the hub at `address`; `protocol()` makes each connection's end of ours."""

    def __init__(self, address: Address, protocol: Callable[[], asyncio.Protocol]) -> None:
        self.address = address
        self._protocol = protocol
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        loop, said, where = asyncio.get_running_loop(), False, (self.address.host, self.address.port)
        while True:
            ended = asyncio.Event()
            try:
                transport, _ = await loop.create_connection(partial(Ended, self._protocol(), ended), *where)
            except OSError as error:
                if not said:
                    log.warning("no hub at %s yet (%s): trying on", self.address, error)
                said = True
            else:
                log.info("exchanging rows with the hub at %s", self.address)
                try:
                    await ended.wait()
                finally:
                    transport.abort()
                log.warning("lost the hub at %s: trying on", self.address)
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.75, 1.25))


class Ended(asyncio.Protocol):
    """Passes everything on to `inner`, and tells when the connection is over."""

    def __init__(self, inner: asyncio.Protocol, ended: asyncio.Event) -> None:
        self._ended = ended
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._lost = inner.connection_lost

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(error)
        self._ended.set()
