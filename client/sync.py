"""The client for notebooks and scripts: the same calls, without `await`. Its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..worker.tensor import Prediction
from .client import Client, Source
from .config import Via
from .errors import ClientError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


class SyncClient:
    """Like `Client`; works inside a running event loop (Jupyter) too. `close()` it, or use `with`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:12480",
        *,
        via: Via = "address",
        service: str = "",
        timeout: float = 30.0,
        attempt_timeout: float | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fairway-client", daemon=True)
        self._thread.start()
        self._client = self._run(
            _open(Client(url, via=via, service=service, timeout=timeout, attempt_timeout=attempt_timeout))
        )
        self._unfinished: set[AsyncGenerator[object]] = set()

    def classify(self, image: Source, top: int = 5) -> Prediction:
        return self._run(self._client.classify(image, top))

    def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        model: str,
        *,
        version: str | int = "",
        outputs: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        return self._run(self._client.infer(inputs, model, version=version, outputs=outputs))

    def classify_many(
        self, images: Iterable[Source], *, concurrency: int = 16, top: int = 5
    ) -> Iterator[tuple[Source, Prediction | ClientError | OSError]]:
        answers = self._client.classify_many(images, concurrency=concurrency, top=top)
        self._unfinished.add(answers)
        try:
            while (answer := self._run(_next(answers))) is not None:
                yield answer
        finally:
            if answers in self._unfinished:  # else `close` was first
                self._unfinished.discard(answers)
                self._run(answers.aclose())

    def close(self) -> None:
        if not self._loop.is_closed():
            while self._unfinished:
                self._run(self._unfinished.pop().aclose())
            self._run(self._client.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _next(answers: AsyncIterator[T]) -> T | None:
    return await anext(answers, None)


async def _open(client: Client) -> Client:
    return await client.__aenter__()
