"""A store in a thread of its own: heartbeats go on while the caller's event loop is held by a model.

The thread has its own event loop, and wakes between two bytecodes of whatever Python runs elsewhere. Only what holds the
interpreter for longer than a lease in one go (a C extension that does not let go of it) can still make us look dead.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .changes import Change
from .errors import StoreUnavailable
from .instance import Instance
from .store import Store

log = logging.getLogger("fairway.registry.threaded")

CLOSE_SECONDS = 5.0  # how long an engine may take to be told that we go


class ThreadedStore:
    """The writing half of a `Store`, for any event loop: `make` is called in the thread, and so is its `on_change`.

    Errors of `make` and of the store's methods come through unchanged.
    """

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._store: Store | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._thread: threading.Thread | None = None
        self._started: concurrent.futures.Future[None]
        self._ended: concurrent.futures.Future[None]

    async def start(self) -> None:
        """Returns when the store has started, which may be long before it is connected. Once only."""
        self._started, self._ended = concurrent.futures.Future(), concurrent.futures.Future()
        for future in (self._started, self._ended):
            future.set_running_or_notify_cancel()  # who stops waiting for it does not undo it
        self._thread = threading.Thread(target=self._run, name="fairway-store", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._started)
        except Exception:
            await self.close()
            raise

    async def write(self, changes: Sequence[Change]) -> None:
        await self._call(lambda store: store.write(changes))

    async def announce(self, instance: Instance) -> None:
        await self._call(lambda store: store.announce(instance))

    async def withdraw(self, id: str) -> None:
        await self._call(lambda store: store.withdraw(id))

    async def close(self) -> None:
        """The store is closed, the thread has ended; or both were given up after CLOSE_SECONDS."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing = True
        if self._store and not self._ended.done():
            self._loop.call_soon_threadsafe(self._over.set)
        try:
            async with asyncio.timeout(CLOSE_SECONDS + 1):
                await asyncio.wrap_future(self._ended)
            thread.join()
        except TimeoutError:
            log.warning("%r does not close: leaving it", self._store)

    @property
    def connected(self) -> bool:
        return self._store is not None and self._store.connected

    async def _call(self, method: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
        if self._thread is None or self._store is None or self._ended.done():
            raise StoreUnavailable("the store is not open")
        done: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(method(self._store), self._loop)
        try:
            await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise StoreUnavailable("the store was closed meanwhile") from None  # by us: its loop ended under the call

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            if self._started.done():
                log.exception("the store's thread failed")
            else:
                self._started.set_exception(error)
        finally:
            self._ended.set_result(None)

    async def _live(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        store = self._make()
        await store.start()
        self._store = store
        self._started.set_result(None)
        if not self._closing:
            await self._over.wait()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await store.close()
        except TimeoutError:
            log.warning("%r was not closed in %g s", store, CLOSE_SECONDS)

    def __repr__(self) -> str:
        return f"<ThreadedStore {self._store!r}>"
