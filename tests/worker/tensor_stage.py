"""Small models of tensors, and a worker's real HTTP server in front of them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fairway.worker.card import Card, InputSpec
from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.listeners.http import HttpListener
from fairway.worker.listeners.http.message import Served
from fairway.worker.model import Model
from fairway.worker.repository import Repository
from fairway.worker.rollout import Load
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.wire import datatypes

LABELS = ("red", "green", "blue")
LIMIT = 4_000_000
Arrays = Mapping[str, NDArray[Any]]


class Small:
    """A model of one signature. While `gate` is clear it stands still in `run`; `entered` says that it got there."""

    runtime, default, streams = "python", "serving_default", 1
    batch: int | None = 0

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.signatures: Mapping[str, Signature] = {
            self.default: Signature(self.default, inputs, outputs, batch=self.batch)
        }
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.closed = False

    def run(self, inputs: Arrays, signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        self.entered.set()
        if not self.gate.wait(10):
            raise TimeoutError("the test never opened the gate")
        return self.compute(inputs)

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Sums(Small):
    """x (n, 2, 3), k (n,) -> sum (n,), scaled (n, 2, 3): k times x. A sum of more than 1000 is too much for it."""

    def __init__(self) -> None:
        items = TensorSpec("x", "float32", (None, 2, 3)), TensorSpec("k", "int64", (None,))
        super().__init__(items, (TensorSpec("sum", "float32", (None,)), TensorSpec("scaled", "float32", (None, 2, 3))))

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        total = inputs["x"].sum(axis=(1, 2))
        if total.max() > 1000:
            raise ArithmeticError("that is too much")
        scaled = (inputs["x"] * inputs["k"].reshape(-1, 1, 1)).astype(np.float32)
        return {"scaled": scaled, "sum": total}


class Everything(Small):
    """One input of each datatype, (n, 2); they come back as they are."""

    def __init__(self) -> None:
        dtypes = {name: "bytes" if name == "BYTES" else dtype for name, dtype in datatypes.NUMPY.items()}
        specs = tuple(TensorSpec(name, dtype, (None, 2)) for name, dtype in (dtypes | {"BF16": "bfloat16"}).items())
        super().__init__(specs, specs)

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        assert inputs["BF16"].dtype == ml_dtypes.bfloat16
        return dict(inputs)


class Lengths(Small):
    """text BYTES (n,) -> length INT32 (n,), reversed BYTES (n,)."""

    def __init__(self) -> None:
        outputs = TensorSpec("length", "int32", (None,)), TensorSpec("reversed", "bytes", (None,))
        super().__init__((TensorSpec("text", "bytes", (None,)),), outputs)

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        texts = inputs["text"].tolist()
        turned = np.empty(len(texts), object)
        turned[:] = [text[::-1] for text in texts]
        return {"length": np.array([len(text) for text in texts], np.int32), "reversed": turned}


class Single(Small):
    """v (4,) -> ranks (4,): no dimension counts items."""

    batch = None

    def __init__(self) -> None:
        super().__init__((TensorSpec("v", "float32", (4,)),), (TensorSpec("ranks", "int64", (4,)),))

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return {"ranks": np.argsort(np.argsort(inputs["v"]))}


class Colours(Small):
    """pixels (n, 4, 4, 3), 0 to 255 -> shares (n, 3): how much of each colour there is."""

    def __init__(self) -> None:
        pixels = TensorSpec("pixels", "float32", (None, 4, 4, 3))
        super().__init__((pixels,), (TensorSpec("shares", "float32", (None, 3)),))

    def compute(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        amounts = inputs["pixels"].sum(axis=(1, 2)) + np.float32(1e-6)
        return {"shares": (amounts / amounts.sum(axis=1, keepdims=True)).astype(np.float32)}


def colours(version: int = 1) -> Model:
    card = Card(InputSpec(width=4, height=4, filter="nearest"), LABELS)
    return Model("colours", version, Colours(), card, "pixels", "shares")


def plain_models() -> list[Model]:
    """One of each."""
    made = {"sums": Sums(), "everything": Everything(), "lengths": Lengths(), "single": Single()}
    return [colours(), *(Model(name, 1, loaded, reason="it has no card") for name, loaded in made.items())]


@dataclass
class Stage:
    """A listening worker."""

    engine: Engine
    repository: Repository
    http: HttpListener
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(*models: Model, folder: Path | None = None, deadline_seconds: float = 30.0) -> AsyncIterator[Stage]:
    """`folder`: an empty one. In it lie folders of versions then, which the repository looks after as it does with any,
    though what is read out of them is `models`, while their gates are open.
    """
    settings = WorkerSettings(
        service="tensors", max_bytes=LIMIT, models=str(folder or ""), version_policy="all",
        deadline_seconds=deadline_seconds,
    )  # fmt: skip
    engine = Engine(ImageLimits(LIMIT, 100_000), 2, settings.max_waiting, batching="off")
    if folder is None:
        for model in models:
            await engine.add(model)
        repository = Repository(models)
    else:
        repository = await Repository.open(settings, engine, _shelf(models, folder))
    http = HttpListener(Served(engine, repository, settings.service), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    await http.start(listening)
    try:
        yield Stage(engine, repository, http, listening.getsockname()[1])
    finally:
        await http.close()
        await repository.close()
        await asyncio.to_thread(engine.close)


def _shelf(models: Sequence[Model], folder: Path) -> Load:
    for model in models:
        file = folder / model.name / str(model.version) / "saved_model.pb"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (0, 0))  # nobody is still writing it
        os.utime(file.parent, (0, 0))

    def load(name: str, version: int, path: str, settings: WorkerSettings, threads: int) -> Model:
        model = next(model for model in models if (model.name, model.version) == (name, version))
        assert isinstance(model.loaded, Small)
        assert model.loaded.gate.wait(10)
        return model

    return load
