"""Examples put to an endpoint, and what became of each: answers are counted, whatever else happens is kept apart.

Latency is what a caller waits for one example: to write the request, the way there and back with all attempts, and to
read the answer. Reading the file from disk, and resizing it where the endpoint takes pixels, is not in it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...worker.accuracy import Report, tally
from ...worker.errors import ConfigurationError
from ...worker.tensor import Prediction
from ..courier import Failed
from ..errors import Busy, ClientError, DeadlineExceeded, ImageRefused, NoWorker, Unreachable, WorkerFailed
from .endpoint import Endpoint
from .forms import TOP, Heard
from .labelled import DIGITS, EMNIST, MERGED, Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GIVE_UP = 3  # examples in a row that found nobody, each after all its attempts: there is nobody left to ask
PROBES = 3  # examples that may be refused before it is the endpoint that refuses, and not they that are broken
KINDS = {
    ImageRefused: "refused by the model's server",
    NoWorker: "nobody serves the model",
    Busy: "everybody was busy",
    WorkerFailed: "the server failed",
    Unreachable: "nobody answered at the address",
    DeadlineExceeded: "no answer in time",
    OSError: "the file could not be read",
}


@dataclass(frozen=True)
class Outcome:
    """Of one example: a prediction, its five best, or an error. `among`: the best of the classes that the data has,
    where that is not all the endpoint's."""

    example: Example
    milliseconds: float = 0.0
    prediction: Prediction | None = None
    among: str | None = None
    error: Exception | None = None

    @property
    def right(self) -> bool:
        return self.prediction is not None and self.prediction.label == self.example.truth

    @property
    def kind(self) -> str:
        """Of the error, in words."""
        return next((words for kind, words in KINDS.items() if isinstance(self.error, kind)), "failed")


@dataclass
class Evaluation:
    """What was measured, as far as it came. `labels`: the data's classes; `missing`: examples that were never asked.

    `stopped`: why not, in words; empty if all were asked.
    """

    labels: tuple[str, ...]
    outcomes: list[Outcome] = field(default_factory=list)
    missing: int = 0
    stopped: str = ""
    seconds: float = 0.0
    few: bool = False  # the endpoint has five classes at most: the truth is always among the best five

    @property
    def answered(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.prediction is not None]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    @property
    def complete(self) -> bool:
        return not self.missing and not self.failed

    def errors(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.failed)

    def report(self) -> Report:
        pairs = [(one.example.truth, one.prediction.label) for one in self.answered if one.prediction]
        return tally(pairs, self.labels, self._top_5())

    def among(self) -> int | None:
        """How many are right if only the data's own classes may be called; None where the endpoint has no others."""
        named = [one for one in self.answered if one.among is not None]
        return sum(one.among == one.example.truth for one in named) if named else None

    def _top_5(self) -> int | None:
        if self.few:
            return None
        return sum(
            one.example.truth in [label for label, _ in one.prediction.pairs[:5]]
            for one in self.answered
            if one.prediction
        )


class Naming:
    """Class numbers -> names. `given`: those of a file; else the data's own classes, or EMNIST's, if their count is right.

    A length that is wrong is a ConfigurationError: better no figure than that of a table read one line off.
    """

    def __init__(self, given: tuple[str, ...], source: str, data: tuple[str, ...]) -> None:
        self._given, self._source, self._data = given, source, data

    def names(self, count: int) -> tuple[str, ...]:
        if self._given:
            if len(self._given) != count:
                raise ConfigurationError(
                    f"{self._source}: {len(self._given)} names, and the endpoint has {count} classes"
                )
            return self._given
        for names in (self._data, EMNIST, MERGED, DIGITS):
            if len(names) == count and set(self._data) <= set(names):
                return names
        raise ConfigurationError(
            f"the endpoint has {count} classes, the data {len(self._data)}: say what its numbers mean with --labels FILE"
        )

    def read(self, heard: Heard) -> tuple[Prediction, str | None]:
        """The best few, and the best of the data's classes where there are others. Raises ConfigurationError."""
        if heard.prediction is not None:
            return heard.prediction, None
        assert heard.scores is not None
        if len(heard.scores) != 1:
            raise WorkerFailed(f"one example was sent, and scores for {len(heard.scores)} came back")
        scores: NDArray[np.float64] = heard.scores[0]
        names = self.names(len(scores))
        numbers: Sequence[float] = scores.tolist()
        prediction = Prediction.from_scores(numbers, names, TOP)
        own = [i for i, name in enumerate(names) if name in self._data]
        if len(own) == len(names) or not own:
            return prediction, None
        return prediction, names[max(own, key=numbers.__getitem__)]


async def evaluate(
    examples: Sequence[Example],
    labels: tuple[str, ...],
    endpoint: Endpoint,
    naming: Naming,
    *,
    concurrency: int = 1,
    stop: asyncio.Event | None = None,
    heard: Callable[[Outcome], Any] = lambda outcome: None,
) -> Evaluation:
    """All of them, in order, unless `stop` is set or there is nobody left to ask; `heard` is told of each.

    The first one is asked twice: once before, unmeasured, so that connections are open and a model that is none is an
    error at once. Raises ConfigurationError for that; one that comes later ends it, and is told in `stopped`.
    """
    stop = stop or asyncio.Event()
    probe, stopping = asyncio.create_task(_probe(examples, endpoint, naming)), asyncio.create_task(stop.wait())
    await asyncio.wait({probe, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not probe.done():
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        return Evaluation(labels, missing=len(examples), stopped="interrupted")
    probe.result()
    return await _Course(examples, labels, endpoint, naming, stop, heard).run(concurrency)


class _Course:
    def __init__(
        self,
        examples: Sequence[Example],
        labels: tuple[str, ...],
        endpoint: Endpoint,
        naming: Naming,
        stop: asyncio.Event,
        heard: Callable[[Outcome], Any],
    ) -> None:
        self._examples, self._endpoint, self._naming = examples, endpoint, naming
        self._stop, self._heard = stop, heard
        self._evaluation = Evaluation(labels)
        self._found: dict[int, Outcome] = {}
        self._next = self._gone = 0
        self._nobody: Exception | None = None  # the last who found nobody

    async def run(self, concurrency: int) -> Evaluation:
        evaluation, began = self._evaluation, time.perf_counter()
        workers = [asyncio.create_task(self._work()) for _ in range(min(concurrency, len(self._examples)))]
        stopping = asyncio.create_task(self._stop.wait())
        working, stopped = set(workers), ""
        try:
            while working and not stopping.done() and not stopped:
                done, _ = await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & working:
                    try:
                        task.result()
                    except ConfigurationError as error:  # e.g. another model serves by now; what was measured stands
                        stopped = str(error)
                working -= done
            if working and not stopped:
                stopped = "interrupted"
        finally:
            for task in (stopping, *workers):
                task.cancel()
            await asyncio.gather(stopping, *workers, return_exceptions=True)
        evaluation.seconds = time.perf_counter() - began
        evaluation.outcomes = [self._found[index] for index in sorted(self._found)]
        evaluation.missing = len(self._examples) - len(self._found)
        if evaluation.missing:
            evaluation.stopped = stopped or f"{GIVE_UP} in a row found nobody: {self._nobody}"
        answered = [outcome.prediction for outcome in evaluation.answered if outcome.prediction is not None]
        evaluation.few = bool(answered) and max(map(len, answered)) < TOP
        return evaluation

    async def _work(self) -> None:
        while self._next < len(self._examples) and self._gone < GIVE_UP:
            index = self._next
            self._next += 1
            outcome = await ask(self._examples[index], self._endpoint, self._naming)
            self._found[index] = outcome
            if _nobody(outcome.error):
                self._gone, self._nobody = self._gone + 1, outcome.error
            else:
                self._gone = 0
            self._heard(outcome)


async def ask(example: Example, endpoint: Endpoint, naming: Naming) -> Outcome:
    """One example, once. Raises ConfigurationError where it is no use to go on."""
    try:
        prepared = await asyncio.to_thread(endpoint.prepare, example)
    except OSError as error:
        return Outcome(example, error=error)
    began = time.perf_counter()
    try:
        heard = await endpoint.ask(prepared)
        milliseconds = (time.perf_counter() - began) * 1000
        return Outcome(example, milliseconds, *naming.read(heard))
    except ClientError as error:
        return Outcome(example, (time.perf_counter() - began) * 1000, error=error)


def _nobody(error: Exception | None) -> bool:
    """Whether it says that there is nobody to ask, and nothing of the example. Who is busy is there."""
    gone = isinstance(error, (NoWorker, DeadlineExceeded)) or isinstance(getattr(error, "__cause__", None), Failed)
    return gone and not isinstance(error, Busy)


async def _probe(examples: Sequence[Example], endpoint: Endpoint, naming: Naming) -> None:
    """Whether the endpoint answers at all; some files may be broken, but not all."""
    refused: Exception | None = None
    for example in examples[:PROBES]:
        outcome = await ask(example, endpoint, naming)
        if outcome.prediction is not None or isinstance(outcome.error, OSError):
            return
        if not isinstance(outcome.error, ImageRefused):
            raise ConfigurationError(f"{endpoint.base}: {outcome.error}") from outcome.error
        refused = outcome.error
    raise ConfigurationError(f"{endpoint.base} refuses what it is asked: {refused}") from refused
