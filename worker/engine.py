"""The shell around a model: decoding in threads, inference in one thread of its own, a bounded number of requests.

The event loop never decodes and never infers, so health checks and heartbeats answer while the model is busy.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import image
from .errors import ConfigurationError, ModelError, NotReady, Overloaded, WorkerError
from .image import ImageLimits
from .tensor import Prediction

if TYPE_CHECKING:
    from .runtimes import Model


class Engine:
    def __init__(self, model: Model, limits: ImageLimits, threads: int, max_waiting: int) -> None:
        self.model, self.limits, self.max_waiting = model, limits, max_waiting
        self.waiting = 0  # requests taken and not yet answered
        self.draining = False
        self._warm = False
        self._decoding = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @property
    def ready(self) -> bool:
        return self._warm and not self.draining

    async def warm_up(self) -> None:
        """One gray picture through everything: the first real request then meets nothing new."""
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), (128, 128, 128)).save(picture, "PNG")
        loop = asyncio.get_running_loop()
        item = await loop.run_in_executor(self._decoding, self._decode, picture.getvalue())
        try:
            for _ in range(2):
                scores = await loop.run_in_executor(self._inference, self._predict, item)
        except ModelError as error:
            raise ConfigurationError(f"{self.model.name} fails on a plain picture: {error}") from error
        outputs, labels = len(scores), len(self.model.card.labels)
        if outputs != labels:
            raise ConfigurationError(f"{self.model.name} has {outputs} outputs, but there are {labels} labels")
        self._warm = True

    async def classify(self, upload: bytes | memoryview, top: int) -> Prediction:
        """An image file's bytes -> Prediction. Raises WorkerError's children."""
        if not self._warm:
            raise NotReady("the model is not loaded yet")
        if self.waiting >= self.max_waiting:
            raise Overloaded(f"{self.waiting} requests are waiting already; try again in a second, or elsewhere")
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            item = await loop.run_in_executor(self._decoding, self._decode, bytes(upload))
            scores = await loop.run_in_executor(self._inference, self._predict, item)
        finally:
            self.waiting -= 1
        return Prediction.from_scores(scores.tolist(), self.model.card.labels, top)

    def close(self) -> None:
        self._decoding.shutdown(cancel_futures=True)
        self._inference.shutdown(cancel_futures=True)

    def _decode(self, data: bytes) -> Any:
        return image.to_item(data, self.model.card.input, self.limits)

    def _predict(self, item: Any) -> Any:
        try:
            scores = activated(self.model.predict(item[None])[0], self.model.card.activation)
        except WorkerError:
            raise
        except Exception as error:  # whatever a runtime throws is the model's failure, not the caller's
            text = " ".join(str(error).split())
            raise ModelError(f"the model failed: {type(error).__name__}: {text[:200]}") from error
        if not np.isfinite(scores).all():
            raise ModelError("the model's scores are not finite numbers")
        return scores

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "loading"
        return f"<Engine {self.model.name} [{state} | {self.waiting} waiting of {self.max_waiting}]>"


def activated(scores: Any, activation: str) -> Any:
    """Raw outputs of shape (..., classes) -> probabilities, when the card says that the model does not do it itself."""
    if activation == "softmax":
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * scores)  # 1 / (1 + exp(-x)), without its overflow
    return scores
