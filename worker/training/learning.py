"""The head's training, step by step: what is learnt from in which epoch, when it is judged, and where it may stop."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .checkpoint import Checkpoint
from .head import Array, Head, batches, steps_of
from .stopping import Interrupted
from .summaries import Summaries

SAVE_SECONDS = 30.0  # between two checkpoints, at ends of epochs

Truth = NDArray[np.int64]
Labelled = tuple[Array, Truth]


class Lesson(Protocol):
    """What an epoch is learnt from."""

    def count(self, epoch: int) -> int:
        """How many pictures, without a look at them."""
        ...

    def __call__(self, epoch: int) -> Labelled:
        """(count, d) features and (count,) class numbers."""
        ...


class Views:
    """The same cached views of every photo in each epoch."""

    def __init__(self, features: Array, truth: Truth) -> None:
        self._both = features, truth

    def count(self, epoch: int) -> int:
        return len(self._both[1])

    def __call__(self, epoch: int) -> Labelled:
        return self._both


class GrowingViews:
    """Each epoch adds a random view of every photo, and learns from all there have been: looking costs the time, not
    learning.
    """

    def __init__(self, plain: Array, truth: Truth, view: Callable[[int], Array]) -> None:
        """`view(number)`, from 1 up -> (n, d), always the same for the same number."""
        self._sets, self._truth, self._view = [plain], truth, view

    def count(self, epoch: int) -> int:
        return len(self._truth) * (epoch + 2)

    def __call__(self, epoch: int) -> Labelled:
        while len(self._sets) < epoch + 2:
            self._sets.append(self._view(len(self._sets)))
        return np.concatenate(self._sets), np.tile(self._truth, len(self._sets))


def steps_for(lesson: Lesson, epochs: int, batch: int) -> int:
    return sum(steps_of(lesson.count(epoch), batch) for epoch in range(epochs))


def learn(
    head: Head,
    lesson: Lesson,
    validation: Labelled,
    every: int,
    stop: Callable[[], bool],
    checkpoint: Checkpoint,
    summaries: Summaries | None = None,
) -> None:
    """Until the recipe's last step, from wherever `head` is. Judged each `every` steps and at the end; what is best by
    `validation` is kept, or the last state if there is nothing to judge by.

    Raises Interrupted, with a checkpoint left, once `stop` says so.
    """
    validation = head.scale(validation[0]), validation[1]
    seen: list[tuple[float, float]] = []
    passed, saved = 0, time.monotonic()
    bar: tqdm[NoReturn] = tqdm(
        total=head.recipe.steps, initial=head.step, desc="head", unit="step", disable=None, leave=False
    )
    with bar:
        for epoch in itertools.count():
            if head.step >= head.recipe.steps:
                return
            count = lesson.count(epoch)
            steps = steps_of(count, head.recipe.batch)
            if passed + steps <= head.step:  # learnt before the interruption
                passed += steps
                continue
            try:
                features, truth = lesson(epoch)
            except Interrupted:
                checkpoint.save(head)
                raise
            for number, places in enumerate(batches(count, head.recipe, epoch)):
                if passed + number < head.step:
                    continue
                if stop():
                    checkpoint.save(head)
                    raise Interrupted(f"step {head.step} of {head.recipe.steps} is kept in {checkpoint.folder}")
                seen.append(head.learn(head.scale(features[places]), truth[places]))
                bar.update()
                if head.step % every == 0 or head.step == head.recipe.steps:
                    _judge(head, seen, validation, bar, summaries)
                    seen = []
                if head.step == head.recipe.steps:
                    break
            passed += steps
            if time.monotonic() - saved > SAVE_SECONDS:
                checkpoint.save(head)
                saved = time.monotonic()


def _judge(
    head: Head, seen: list[tuple[float, float]], validation: Labelled, bar: tqdm[NoReturn], summaries: Summaries | None
) -> None:
    """Train: the mean of the steps since the last time, each before it was learnt from. Lines as retrain.py wrote them."""
    accuracy, loss = (float(number) for number in np.mean(seen, axis=0))
    held_out, held_out_loss = head.judge(*validation)
    rows = {"train_accuracy": accuracy, "validation_accuracy": held_out, "cross_entropy": loss}
    head.history.append({"step": head.step, **rows, "validation_cross_entropy": held_out_loss})
    lines = [f"Step {head.step}: Train accuracy = {accuracy:.1%}", f"Step {head.step}: Cross entropy = {loss:.6f}"]
    if not math.isnan(held_out):
        head.keep_if_best(held_out, held_out_loss)
        lines.append(f"Step {head.step}: Validation accuracy = {held_out:.1%} (N={len(validation[1])})")
    bar.write("\n".join(lines), file=sys.stdout)
    if summaries is not None:
        summaries.scalars(head.step, "train", accuracy=accuracy, cross_entropy=loss)
        summaries.histograms(head.step, "train", weights=head.weights, biases=head.bias)
        if not math.isnan(held_out):
            summaries.scalars(head.step, "validation", accuracy=held_out, cross_entropy=held_out_loss)
