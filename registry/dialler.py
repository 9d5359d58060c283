"""Dials an advertised address to see whether anybody listens there: no dead address is served because somebody named it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .changes import Dial
from .instance import Address

log = logging.getLogger("fairway.registry")

DIAL_SECONDS = 2.0
AT_ONCE = 64
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between attempts, doubling: it may only not listen yet
REMEMBERED_SECONDS = 1.0  # an address just reached is not dialled again for its other rows


class Dialler:
    """`reached(dial)` and `failed(dial, reason)` are called back; `wanted(dial)` says whether to go on trying."""

    def __init__(
        self,
        wanted: Callable[[Dial], bool],
        reached: Callable[[Dial], None],
        failed: Callable[[Dial, str], None],
    ) -> None:
        self._wanted, self._reached, self._failed = wanted, reached, failed
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._lately: dict[Address, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, dial: Dial) -> None:
        task = asyncio.get_running_loop().create_task(self._try(dial))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _try(self, dial: Dial) -> None:
        pause, said = FIRST_PAUSE, False
        while self._wanted(dial):
            async with self._gate:
                reason = await self._attempt(dial.address)
            if reason is None:
                self._reached(dial)
                return
            if not said:
                self._failed(dial, reason)
                said = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def _attempt(self, address: Address) -> str | None:
        """Why it could not be reached; None if it was."""
        now = asyncio.get_running_loop().time()
        self._lately = {at: when for at, when in self._lately.items() if now - when < REMEMBERED_SECONDS}
        if address in self._lately:
            return None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except (OSError, UnicodeError) as error:
            return f"nobody can be reached at {address}: {error or 'no answer'}"
        writer.transport.abort()
        self._lately[address] = asyncio.get_running_loop().time()
        return None
