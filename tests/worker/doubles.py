"""A model of tensors that is understood at a glance: x (n, 2) -> y (n, 2), twice x. It notes what it was called with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.worker.model import Model
from fairway.worker.tensor import Signature, TensorSpec

SPOILT, SHORT, SCALAR, QUITS = -13.0, -7.0, -8.0, -666.0


class Doubles:
    """It fails where SPOILT stands anywhere, loses a row where SHORT does, all rows where SCALAR does, and wants to end the
    process where QUITS does. While `gate` is clear it stands still; `entered` says that it got there.
    """

    runtime, default = "python", "double"

    def __init__(self, batch: int | None = 0, streams: int = 1) -> None:
        shape = (2,) if batch is None else (batch or None, 2)
        x, y = TensorSpec("x", "float32", shape), TensorSpec("y", "float32", shape)
        half = Signature("half", (x, TensorSpec("scale", "int64", shape)), (y,), batch=batch)
        self.signatures: Mapping[str, Signature] = {
            "double": Signature("double", (x,), (y,), batch=batch),
            "half": half,
        }
        self.streams = streams
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.calls: list[NDArray[Any]] = []
        self.wide: list[bool] = []
        self.closed = False
        self.most_at_once = self._inside = 0
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        x = inputs["x"]
        with self._lock:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
            self.calls.append(x.copy())
            self.wide.append(wide)
        self.entered.set()
        try:
            self.pause(len(x))
            if not self.gate.wait(10):
                raise TimeoutError("the test never opened the gate")
        finally:
            with self._lock:
                self._inside -= 1
        if (x == SPOILT).any():
            raise ArithmeticError("thirteen brings bad luck")
        if (x == QUITS).any():
            raise SystemExit(1)
        if (x == SHORT).any():
            return {"y": x[1:]}
        if (x == SCALAR).any():
            return {"y": np.array(1, np.float32)}
        return {"y": x * 2 if signature == "double" else x / 2 * inputs["scale"]}

    def pause(self, items: int) -> None:
        """For those that take their time."""

    def close(self) -> None:
        self.closed = True

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]

    def model(self, version: int = 1) -> Model:
        return Model("doubles", version, self)

    def hold(self) -> None:
        """From now on it stands still, with what it has seen forgotten."""
        self.gate.clear()
        self.entered.clear()
        self.calls.clear()
        self.wide.clear()
        self.most_at_once = 0

    async def held(self) -> None:
        """Until it stands still."""
        assert await asyncio.to_thread(self.entered.wait, 10), "run was never called"


def rows(*values: float) -> dict[str, NDArray[Any]]:
    """An item for each value."""
    return {"x": np.array([[value, value] for value in values], np.float32)}
