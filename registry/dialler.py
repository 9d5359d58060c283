"""Dials an advertised address to see whether anybody listens there: no dead address is served because somebody named it.

An attempt that fails by a fault of ours, as one on which no file descriptor was left, says nothing about the address.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from .changes import Dial
from .instance import Address

log = logging.getLogger("fairway.registry")

DIAL_SECONDS = 2.0
AT_ONCE, OF_ONE_HOST = 64, 8  # dials; who names addresses that swallow connections keeps nobody else waiting
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between attempts, doubling: it may only not listen yet
HELD_UP_SECONDS = 0.5  # if an attempt ends so late, it was we who were stopped
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
REMEMBERED_SECONDS = 1.0  # an address just reached is not dialled again for its other rows


class Dialler:
    """`reached(dial)` and, once, `failed(dial, reason)` are called back; `wanted(dial)` says whether to go on trying."""

    def __init__(
        self,
        wanted: Callable[[Dial], bool],
        reached: Callable[[Dial], None],
        failed: Callable[[Dial, str], None],
    ) -> None:
        self._wanted, self._reached, self._failed = wanted, reached, failed
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by the peers' hosts
        self._lately: dict[Address, float] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}  # one for each row that each peer speaks of

    def dial(self, dial: Dial) -> None:
        """Instead of what the same peer said of the same row before."""
        key = (dial.id, dial.peer)
        if former := self._tasks.get(key):
            former.cancel()
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._try(dial))
        task.add_done_callback(partial(self._done, key))

    def _done(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, dial: Dial) -> None:
        pause, said = FIRST_PAUSE, False
        gate = self._gates.setdefault(dial.peer.partition("#")[0], asyncio.Semaphore(OF_ONE_HOST))
        while self._wanted(dial):
            try:
                async with gate, self._gate:
                    reason = await self._attempt(dial.address)
            except OSError as error:
                log.debug("%s could not be dialled: %s", dial.address, error)
            else:
                if reason is None:
                    self._reached(dial)
                    return
                if not said:
                    self._failed(dial, reason)
                    said = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def _attempt(self, address: Address) -> str | None:
        """Why it could not be reached; None if it was. Raises OSError if that was not for us to find out."""
        now = asyncio.get_running_loop().time()
        while self._lately and now - next(iter(self._lately.values())) >= REMEMBERED_SECONDS:
            del self._lately[next(iter(self._lately))]
        if address in self._lately:
            return None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except (OSError, UnicodeError) as error:
            late = asyncio.get_running_loop().time() - now > DIAL_SECONDS + HELD_UP_SECONDS
            if isinstance(error, OSError) and (error.errno in OURS or late):
                raise
            return f"nobody can be reached at {address}: {error or 'no answer'}"
        writer.transport.abort()
        self._lately.pop(address, None)  # the last one reached stands last
        self._lately[address] = asyncio.get_running_loop().time()
        return None
