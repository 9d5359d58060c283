"""Folders of real models, published and broken as people do it, and a repository with a real engine in front of them."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.model import Model
from fairway.worker.repository import Repository

POLL = 0.03  # seconds
PATIENCE = 60.0


@cache
def adding(number: int) -> bytes:
    """A TensorFlow Lite model: y = x + `number`."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    function = tf.function(lambda x: {"y": x + float(number)}, input_signature=[tf.TensorSpec((None, 2), name="x")])
    module = tf.Module()
    module.serve = function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
        return bytes(converter.convert())


def publish(base: Path, version: int, number: int | None = None, *, broken: bool = False) -> Path:
    """As one should: beside its place first, and then renamed. The model adds `number`, or else its version's."""
    made = base / f".{version}"
    made.mkdir(parents=True)
    data = adding(version if number is None else number)
    (made / "model.tflite").write_bytes(data[: len(data) // 2] if broken else data)
    if (base / str(version)).exists():
        shutil.rmtree(base / str(version))
    return made.rename(base / str(version))


class Shelf:
    """`loads`: what was loaded, in order, whether it succeeded or not."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loads: list[str] = []
        self.repository = Repository()
        self.before_load: Callable[[str], None] = lambda _: None
        self.after_load: Callable[[Model], None] = lambda _: None
        self._changed = asyncio.Event()

    def load(self, name: str, version: int, path: str, settings: WorkerSettings, threads: int) -> Model:
        from fairway.worker.loading import load_model

        self.loads.append(f"{name}/{version}")
        self.before_load(f"{name}/{version}")
        model = load_model(name, version, path, settings, threads)
        self.after_load(model)
        return model

    async def added(self, name: str = "", version: int | None = None, label: str = "") -> int:
        """What the model that is meant adds."""
        model = self.repository.find(name, version, label)
        answer = await self.engine.infer(model, {"x": np.zeros((1, 2), np.float32)})
        return int(answer.outputs["y"][0, 0])

    def follow(self) -> None:
        self.repository.on_change = self._changed.set

    async def until(self, *served: str) -> None:
        """Until exactly this is served."""
        async with asyncio.timeout(PATIENCE):
            while self.repository.served() != served:
                self._changed.clear()
                await self._changed.wait()

    def states(self, name: str) -> dict[int, str]:
        return {status.version: status.state for status in self.repository.statuses(name)}

    def message(self, name: str, version: int) -> str:
        return self.repository.statuses(name, version)[0].message


@asynccontextmanager
async def opened(*, polled: bool = False, **settings: Any) -> AsyncIterator[Shelf]:
    """A worker's repository. `polled`: folders are looked at by themselves, and not only when the test says so."""
    engine = Engine(ImageLimits(1_000_000, 1_000_000), 2, 64, batching="off")
    shelf = Shelf(engine)
    fields: dict[str, Any] = {"poll_seconds": POLL, "runtime": "litert"} | settings
    given = WorkerSettings(**fields)
    try:
        shelf.repository = await Repository.open(given, engine, shelf.load)
        shelf.follow()
        polling = asyncio.create_task(shelf.repository.run()) if polled else None
        yield shelf
        if polling:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        await shelf.repository.close()
    finally:
        engine.close()
