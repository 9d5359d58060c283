"""Who waits for a service to change: blocking queries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Waiters:
    def __init__(self) -> None:
        self._waiting: dict[str | None, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def wait(self, service: str | None, deadline: float) -> bool:
        """Until the next `wake` of this service; False if the loop's `deadline` came first."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(service, set()).add(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._leave(service, waiter)
        return True

    def wake(self, services: Iterable[str | None]) -> None:
        for service in services:
            for waiter in self._waiting.pop(service, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _leave(self, service: str | None, waiter: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(service)
        if waiting is not None:
            waiting.discard(waiter)
            if not waiting:
                del self._waiting[service]
