"""A handler's coroutine, stepped by hand: an `asyncio.Task` would put three turns of the loop around each request.

It runs at once, up to its first wait, and goes on in the turn of the loop in which what it waits for is there. It is no
task: what asks for the current one (`asyncio.timeout`, `TaskGroup`) belongs into a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .message import Response

Done = Callable[[Response | None, BaseException | None], None]


class Call:
    """`start()` runs it; `done(response, error)` is called once, with one of the two, unless `cancel` came first."""

    __slots__ = ("_coroutine", "_done", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Response], done: Done) -> None:
        self._coroutine, self._done = coroutine, done
        self._waits_for: asyncio.Future[Any] | None = None

    def start(self) -> None:
        self._step(None)

    def cancel(self, reason: BaseException | None = None) -> None:
        """Raises CancelledError where it waits; whatever becomes of it, `done(None, reason)` is called, if there is one."""
        if reason is None:
            self._done = _forgotten
        else:
            done = self._done
            self._done = lambda response, error: done(None, reason)
        future, self._waits_for = self._waits_for, None
        if future is not None:
            future.remove_done_callback(self._step)
            future.cancel()
        self._step(None, asyncio.CancelledError())

    def _step(self, _: asyncio.Future[Any] | None, error: BaseException | None = None) -> None:
        self._waits_for = None
        try:
            waiting = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self._done(stop.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            self._done(None, failure)
        else:
            if waiting is None:  # asyncio.sleep(0)
                loop = asyncio.get_running_loop()
                waiting = loop.create_future()
                loop.call_soon(_settle, waiting)
            # As a task does it: an awaited future says so, and is told that somebody cares.
            waiting._asyncio_future_blocking = False
            self._waits_for = waiting
            waiting.add_done_callback(self._step)


def _forgotten(response: Response | None, error: BaseException | None) -> None:
    """Nobody waits for it any more."""


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
