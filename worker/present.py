"""Today's engine behind tomorrow's contract, until the new one is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .engine import Engine


class PresentEngine:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.metrics = SimpleNamespace(text=lambda: "")
        self.model: Any = engine.model
        self.alive = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def describe(self, model: Any) -> dict[str, Any]:
        return {}

    def load(self) -> tuple[int, int, float]:
        waiting = max(0, self._engine.waiting - 1)
        return self._engine.waiting, waiting, self._engine.waiting / self._engine.max_waiting

    async def classify(self, model: Any, uploads: Any, deadline: float | None = None) -> Any:
        labels = self.model.card.labels
        scores = dict(await self._engine.classify(uploads[0], len(labels)))
        row = np.array([[scores[label] for label in labels]], np.float32)
        return SimpleNamespace(outputs={"scores": row}, queue=0.0, decode=0.0, infer=0.0, batch=1)


class PresentRepository:
    def __init__(self, engine: PresentEngine) -> None:
        self._model, self.ready = engine.model, True

    def find(self, name: str = "", version: int | None = None, label: str = "") -> Any:
        return self._model

    def names(self) -> list[str]:
        return [self._model.name]

    def statuses(self, name: str, version: int | None = None) -> list[Any]:
        return []
