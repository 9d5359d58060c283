"""Loads and unloads models beside those that are served: one at a time, in a thread of its own.

What else happens in the process must go on meanwhile. Reading a model is partly Python, which runs one thread at a time;
so the others get their turn more often while a model loads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from .errors import ConfigurationError
from .runtimes.apart import beside_others
from .source import find_source
from .warmup import warm_up

if TYPE_CHECKING:
    from .config import WorkerSettings
    from .engine import Engine
    from .model import Model
    from .model_config import ModelEntry

T = TypeVar("T")
Load = Callable[[str, int, str, "WorkerSettings", int], "Model"]

# How long the loading thread may keep the interpreter from others. Python's default is fifty times as long, and a request
# needs the interpreter many times.
TURN_SECONDS = 0.0001


class Rollout:
    def __init__(self, settings: WorkerSettings, engine: Engine, load: Load) -> None:
        self.settings, self._engine, self._load = settings, engine, load

    async def load(self, entry: ModelEntry, version: int, path: str) -> Model:
        """The model, warmed up and known to the engine. Raises ConfigurationError, or whatever else went wrong."""
        settings = replace(self.settings, runtime=entry.runtime) if entry.runtime else self.settings
        threads = settings.threads or os.cpu_count() or 1
        beside = self._engine.ready

        def load() -> Model:
            beside_others.set(beside)  # of this thread, which does nothing else
            return self._load(entry.name, version, path, settings, threads)

        with _short_turns() if beside else _as_it_is():
            model = await _in_thread(load)
            try:
                await self._warm_up(model, path)
                await self._engine.add(model)
            except BaseException:
                threading.Thread(target=model.loaded.close, name="close", daemon=True).start()
                raise
        return model

    async def unload(self, model: Model) -> None:
        """Returns when its last request is answered and its memory is given back."""
        await self._engine.remove(model)

    async def _warm_up(self, model: Model, path: str) -> None:
        """A call that hangs is left to its thread."""
        source, limit, last = find_source(path, self.settings), self.settings.hang_seconds, time.monotonic()

        def tick() -> None:
            nonlocal last
            last = time.monotonic()

        warming = asyncio.ensure_future(_in_thread(lambda: warm_up(model, source, self._engine.limits, tick)))
        try:
            while not (await asyncio.wait((warming,), timeout=min(1.0, limit / 4) if limit else None))[0]:
                if time.monotonic() - last > limit:
                    raise ConfigurationError(f"a request did not end in {limit:g} s")
            warming.result()
        except ConfigurationError as error:
            raise ConfigurationError(f"warm-up: {error}") from error
        finally:
            warming.cancel()


async def _in_thread(work: Callable[[], T]) -> T:
    """In a new thread, which the end of the process does not wait for: nobody knows how long a model takes to load."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except SystemExit as error:  # a model's own code must not end the process
            failure = ConfigurationError(f"it wanted to end the process: {error}")
        except BaseException as error:
            failure = error  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=run, name="load", daemon=True).start()
    return await done


@contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
