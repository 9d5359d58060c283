"""A worker's gRPC port over real sockets, around models that are understood at a glance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from fairway.worker.card import Card, InputSpec
from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.listeners.grpc.server import GrpcListener
from fairway.worker.listeners.http.message import Served
from fairway.worker.model import Model
from fairway.worker.repository import Repository
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.wire import predict

LIMIT = 50_000
PATIENCE = 10.0
COLOURS = ("red", "green", "blue")


class Half:
    """Numbers, halved; and examples, of which it knows what they are called. It fails on 13.

    While `gate` is clear it stands still inside `run`; `entered` says that it got there.
    """

    runtime, default, streams = "python", "serving_default", 1

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.calls = 0
        examples, number = (TensorSpec("inputs", "bytes", (None,)),), TensorSpec("x", "float32", (None, 2))
        half, total = TensorSpec("half", "float32", (None, 2)), TensorSpec("total", "float32", (None,))
        self.signatures: Mapping[str, Signature] = {
            "serving_default": Signature("serving_default", (number,), (half, total)),
            "texts": Signature("texts", (TensorSpec("t", "bytes", (None,)),), (TensorSpec("u", "bytes", (None,)),)),
            "kinds": Signature("kinds", examples, (
                TensorSpec("classes", "bytes", (None, None)), TensorSpec("scores", "float32", (None, None))), "classify"),
            "only_scores": Signature("only_scores", examples, (TensorSpec("scores", "float32", (None, None)),), "classify"),
            "value": Signature("value", examples, (TensorSpec("outputs", "float32", (None, 1)),), "regress"),
            "flat": Signature("flat", examples, (TensorSpec("scores", "float32", (None,)),), "classify"),
            "odd": Signature("odd", examples, (TensorSpec("something", "float32", (None,)),), "regress"),
        }  # fmt: skip

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        self.calls += 1
        self.entered.set()
        if not self.gate.wait(PATIENCE):
            raise TimeoutError("the test never opened the gate")
        if signature == "serving_default":
            if (inputs["x"] == 13).any():
                raise ArithmeticError("13 has no half")
            return {"half": inputs["x"] / 2, "total": inputs["x"].sum(axis=1)}
        if signature == "texts":
            return {"u": np.array([text.upper() for text in inputs["t"].tolist()] + [None], object)[:-1]}
        xs = np.array([predict.read_features(e)["x"][0] for e in inputs["inputs"].tolist()], np.float32)
        names = np.array([[b"small", b"large"]] * len(xs), object)
        return {
            "kinds": {"classes": names, "scores": np.stack([1 - xs, xs], axis=1)},
            "only_scores": {"scores": xs[:, None]},
            "value": {"outputs": xs[:, None] * 2},
            "flat": {"scores": xs},
            "odd": {"something": xs},
        }[signature]

    def close(self) -> None:
        pass


class Shares:
    """Pictures of 4 x 4 pixels; scores are the shares of red, green and blue, total is how much there is of all."""

    runtime, default, streams = "python", "serving_default", 1

    def __init__(self) -> None:
        image, scores = TensorSpec("image", "float32", (None, 4, 4, 3)), TensorSpec("scores", "float32", (None, 3))
        outputs = scores, TensorSpec("total", "float32", (None,))
        self.signatures: Mapping[str, Signature] = {"serving_default": Signature("serving_default", (image,), outputs)}

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        amounts = inputs["image"].sum(axis=(1, 2))
        total = amounts.sum(axis=1)
        return {"scores": (amounts / total[:, None]).astype(np.float32), "total": total}

    def close(self) -> None:
        pass


TWICE = """
class Twice:
    inputs, outputs = [("x", "float32", (None, 2))], [("y", "float32", (None, 2))]
    def __call__(self, x):
        return 2 * x
"""


def write_twice(folder: Path) -> str:
    """A model that --model can name, once `folder` is on the path of Python's modules: x (n, 2) -> y = 2 x."""
    (folder / "twice_of_the_grpc_tests.py").write_text(TWICE)
    return "python:twice_of_the_grpc_tests:Twice"


@dataclass
class GrpcDoor:
    half: Half
    engine: Engine
    repository: Repository
    listener: GrpcListener
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.port}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """For what nobody announces; gives the loop its turns meanwhile."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0)


@asynccontextmanager
async def open_door(
    max_waiting: int = 8, deadline_seconds: float = 30.0, settings: WorkerSettings | None = None
) -> AsyncIterator[GrpcDoor]:
    """Serves half/1, half/2 (the same) and colours/1; or what `settings` say."""
    half = Half()
    engine = Engine(ImageLimits(LIMIT, 10_000), threads=2, max_waiting=max_waiting)
    if settings is None:
        card = Card(InputSpec(width=4, height=4, filter="nearest"), COLOURS)
        colours = Model("colours", 1, Shares(), card, "image", "scores")
        models = [Model("half", 1, half), Model("half", 2, half), colours]
        for model in models:
            await engine.add(model)
        repository = Repository(models)
    else:
        repository = await Repository.open(settings, engine)
    served = Served(engine, repository, "classify")
    listener = GrpcListener(served, "127.0.0.1", 0, max_bytes=LIMIT, deadline_seconds=deadline_seconds)
    await listener.start()
    half.entered.clear()
    half.calls = 0
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            yield GrpcDoor(half, engine, repository, listener, channel)
    finally:
        half.gate.set()
        await listener.close(0)
        await repository.close()
        engine.close()
