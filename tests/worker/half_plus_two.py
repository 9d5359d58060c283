"""TensorFlow Serving's favourite example, and a model of pictures, behind a worker's real HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
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
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.versions import Policy

LABELS = ("red", "green", "blue")
LIMIT = 8_000_000
Arrays = Mapping[str, NDArray[Any]]


def signature(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str = "predict") -> Signature:
    """name -> dtype, or (dtype, shape)."""

    def specs(tensors: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(key, *value) if isinstance(value, tuple) else TensorSpec(key, value, None)
            for key, value in tensors.items()
        )

    return Signature(name, specs(inputs), specs(outputs), method)


class HalfPlusTwo:
    """y = x / 2 + `more`, of any shape; and one signature for everything else that can be asked for."""

    runtime, default, streams = "python", "serving_default", 1

    def __init__(self, more: float = 2) -> None:
        self.more = more
        made = [
            signature("serving_default", {"x": "float32"}, {"y": "float32"}),
            signature("whole", {"n": ("int32", (None,))}, {"n": ("int32", (None,))}),
            signature("words", {"word": "bytes"}, {"upper": "bytes", "raw_bytes": "bytes", "letters": "int64"}),
            signature("pair", {"a": "float32", "b": "float32"}, {"sum": "float32", "larger": "bool"}),
            signature("classify_x", {"inputs": ("float32", (None, 1))}, {"scores": ("float32", (None, 1))}, "classify"),
            signature("regress_x", {"inputs": ("float32", (None, 1))}, {"outputs": ("float32", (None, 1))}, "regress"),
        ]
        self.signatures: Mapping[str, Signature] = {one.name: one for one in made}

    def run(self, inputs: Arrays, signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        match signature:
            case "serving_default":
                return {"y": self._half(inputs["x"])}
            case "whole":
                return {"n": inputs["n"]}
            case "words":
                words = inputs["word"].reshape(-1).tolist()
                upper, raw = np.empty(len(words), object), np.empty(len(words), object)
                upper[:], raw[:] = [word.upper() for word in words], words
                letters = np.array([len(word) for word in words])
                shape = inputs["word"].shape
                return {
                    "upper": upper.reshape(shape),
                    "raw_bytes": raw.reshape(shape),
                    "letters": letters.reshape(shape),
                }
            case "pair":
                a, b = inputs["a"], inputs["b"]
                return {"sum": a + b, "larger": a > b}
            case "classify_x":
                return {"scores": self._half(inputs["inputs"])}
            case "regress_x":
                return {"outputs": self._half(inputs["inputs"])}
        raise AssertionError(signature)

    def close(self) -> None:
        pass

    def _half(self, x: NDArray[Any]) -> NDArray[Any]:
        half: NDArray[Any] = (x / np.float32(2) + np.float32(self.more)).astype(np.float32)
        return half


class Shares:
    """How much red, green and blue there is in pictures of 4 x 4 pixels."""

    runtime, default, streams = "python", "serve", 1

    def __init__(self) -> None:
        pixels, scores = {"pixels": ("float32", (None, 4, 4, 3))}, {"shares": ("float32", (None, 3))}
        self.signatures: Mapping[str, Signature] = {
            "serve": signature("serve", pixels, scores),
            "other": signature("other", pixels, scores),
        }

    def run(self, inputs: Arrays, signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        amounts = inputs["pixels"].sum(axis=(1, 2))
        return {"shares": amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1)}

    def close(self) -> None:
        pass


def models() -> list[Model]:
    card = Card(InputSpec(width=4, height=4, filter="nearest"), LABELS)
    return [
        Model("half_plus_two", 1, HalfPlusTwo(), reason="it is made for numbers"),
        Model("half_plus_two", 123, HalfPlusTwo(3), reason="it is made for numbers"),
        Model("colours", 1, Shares(), card, "pixels", "shares"),
    ]


@dataclass
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """A listening worker."""

    url: str
    engine: Engine
    http: HttpListener
    repository: Repository
    session: aiohttp.ClientSession

    async def send(self, method: str, path: str, **more: Any) -> Answered:
        async with self.session.request(method, self.url + path, **more) as response:
            return Answered(response.status, response.headers, await response.read())

    async def post(self, path: str, document: Any, status: int = 200) -> Any:
        """`document`: JSON, or bytes as they are. The JSON of the answer."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        answered = await self.send("POST", path, data=body)
        assert answered.status == status, answered.body
        assert answered.headers["Content-Type"] == "application/json"
        return answered.json

    async def refusal(self, path: str, document: Any, status: int = 400) -> str:
        found = await self.post(path, document, status)
        assert found.keys() == {"error"}
        return str(found["error"])

    async def get(self, path: str, status: int = 200) -> Any:
        answered = await self.send("GET", path)
        assert answered.status == status, answered.body
        return answered.json


@asynccontextmanager
async def serving(served: Sequence[Model], cors: bool = False, **more: Any) -> AsyncIterator[Site]:
    """A worker with these models; of half_plus_two the label `stable` means version 1."""
    engine = Engine(ImageLimits(LIMIT, 1_000_000), threads=2, max_waiting=64, batching="off")
    for model in served:
        await engine.add(model)
    repository = Repository(served)
    if "half_plus_two" in repository.names():
        repository._held["half_plus_two"].versions.configure(Policy("all"), {"stable": 1})
    settings = WorkerSettings(service="half", max_bytes=LIMIT, cors=cors, **more)
    http = HttpListener(Served(engine, repository, settings.service, settings.cors), settings)
    bound = socket.create_server(("127.0.0.1", 0))
    await http.start(bound)
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as session:
            yield Site(f"http://127.0.0.1:{bound.getsockname()[1]}", engine, http, repository, session)
    finally:
        await http.close()
        engine.close()
