"""Loads and unloads models beside those that are served: one at a time, in a thread of its own.

What else happens in the process must go on meanwhile. Reading a model is partly Python, which runs one thread at a time;
so the others get their turn more often while a model loads.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .image import ImageLimits
from .warmup import warm_up

if TYPE_CHECKING:
    from .config import WorkerSettings
    from .engine import Engine
    from .model import Model
    from .model_config import ModelEntry

Load = Callable[[str, int, str, "WorkerSettings", int], "Model"]

TURN_SECONDS = (
    0.0005  # how long the loading thread may keep the interpreter from others; Python's default is ten times it
)


class Rollout:
    def __init__(self, settings: WorkerSettings, engine: Engine, load: Load) -> None:
        self.settings, self._engine, self._load = settings, engine, load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._served_before = False

    async def load(self, entry: ModelEntry, version: int, path: str) -> Model:
        """The model, warmed up and known to the engine. Raises ConfigurationError, or whatever else went wrong."""
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._thread, self._read, entry, version, path)
        try:
            await self._engine.add(model)
        except BaseException:
            await loop.run_in_executor(self._thread, model.loaded.close)
            raise
        self._served_before = True
        return model

    async def unload(self, model: Model) -> None:
        """Returns when its last request is answered and its memory is given back."""
        await self._engine.remove(model)

    def close(self) -> None:
        """A load that is under way is not waited for; what it gives is nobody's."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, entry: ModelEntry, version: int, path: str) -> Model:
        settings = replace(self.settings, runtime=entry.runtime) if entry.runtime else self.settings
        threads = settings.threads or os.cpu_count() or 1
        with _short_turns() if self._served_before else _as_it_is():
            model = self._load(entry.name, version, path, settings, threads)
            try:
                warm_up(model, path, ImageLimits(settings.max_bytes, settings.max_pixels))
            except ConfigurationError as error:
                model.loaded.close()
                raise ConfigurationError(f"warm-up: {error}") from error
        return model


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
