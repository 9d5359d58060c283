"""How answers look, and in what order they come: each when it is its turn, at once, and no later than the next name."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import CancelledError, Future
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from ..errors import WorkerError

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..tensor import Prediction


class Page:
    """How an answer looks."""

    def __init__(self, json: bool, several: bool, bar: tqdm[Any]) -> None:
        self._json, self._several, self._bar = json, several, bar

    def answer(self, path: Path, prediction: Prediction) -> None:
        if self._json:
            from ..wire import answer

            found = {"file": shown(path), "predictions": json.loads(answer.encode(prediction))}  # a worker's digits
            lines = [json.dumps(found)]
        else:
            lines = [f"{label} (score = {score:.5f})" for label, score in prediction]
            if self._several:
                lines.insert(0, shown(path))
        print("\n".join(lines), flush=True)
        self._bar.update()

    def failure(self, path: Path, error: WorkerError | OSError) -> None:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if self._json:
            print(json.dumps({"file": shown(path), "error": text}), flush=True)
        self._bar.write(f"{shown(path)}: {text}", file=sys.stderr)
        self._bar.update()


def shown(path: Path) -> str:
    """Fit for printing: a name may hold bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "replace")


def print_all(
    queue: Queue[tuple[Path, Future[Prediction]] | None], gone: threading.Event, page: Page
) -> tuple[int, int]:
    """-> how many there were, and how many failed. After trouble, as when the reader goes away, the queue is only emptied:
    whoever fills it must not wait for ever.
    """
    done = failed = 0
    trouble: Exception | None = None
    while (entry := queue.get()) is not None:
        path, future = entry
        if trouble is not None:
            future.cancel()
            continue
        try:
            error = future.exception()
            done += 1
            if error is None:
                page.answer(path, future.result())
            elif isinstance(error, WorkerError | OSError):
                failed += 1
                page.failure(path, error)
            else:
                raise error
        except CancelledError:
            continue
        except Exception as error:
            trouble = error
            gone.set()
    if trouble is not None:
        raise trouble
    return done, failed
