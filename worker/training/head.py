"""The new last layer: one dense softmax layer on cached features, learnt by AdamW along a cosine. NumPy is enough for it.

Features are centred and scaled by what the training photos show; once learnt, that is folded into the weights, so the
layer that is served takes features as they come. All that is random is drawn from (seed, epoch): a run that was stopped
and goes on ends, bit for bit, where it would have ended.

AdamW: arXiv 1711.05101, algorithm 2, beta 0.9 and 0.999; label smoothing: arXiv
1512.00567, section 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BETAS = (0.9, 0.999)
TINY = 1e-8
ENOUGH = 50  # photos held out, to tell by them how sure scores should be
FLAT = 1e-6  # a feature that never changes has no deviation to be divided by

Array = NDArray[np.float32]


@dataclass(frozen=True)
class HeadRecipe:
    """What shapes a head's training. `steps`: in all; the learning rate falls to zero over them."""

    steps: int
    batch: int = 100
    learning_rate: float = 0.002
    weight_decay: float = 6.0
    label_smoothing: float = 0.1
    seed: int = 7


@dataclass(frozen=True)
class Scale:
    """`mean`, `deviation`: (d,) float32, of the features of the training photos."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, features: Array) -> Scale:
        return cls(features.mean(0), features.std(0) + np.float32(FLAT))

    def __call__(self, features: Array) -> Array:
        scaled: Array = (features - self.mean) / self.deviation
        return scaled


@dataclass
class Head:
    """A head while it learns: `weights` (d, classes) and `bias` (classes,) for scaled features, what AdamW remembers of
    their gradients, and the best state there was by the photos held out.
    """

    recipe: HeadRecipe
    scale: Scale
    weights: Array
    bias: Array
    moments: dict[str, Array]
    step: int = 0
    best: tuple[float, float] = (-1.0, -math.inf)  # accuracy, then minus cross entropy: a tie is decided by it
    best_step: int = 0
    best_weights: Array | None = None
    best_bias: Array | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def new(cls, recipe: HeadRecipe, scale: Scale, classes: int) -> Head:
        """Of zeros: for one layer there is no symmetry to break."""
        weights, bias = np.zeros((len(scale.mean), classes), np.float32), np.zeros(classes, np.float32)
        moments = {f"{kind}_{name}": np.zeros_like(array) for kind in ("first", "second")
                   for name, array in (("weights", weights), ("bias", bias))}  # fmt: skip
        return cls(recipe, scale, weights, bias, moments)

    def learn(self, features: Array, truth: NDArray[np.int64]) -> tuple[float, float]:
        """One step on a batch of scaled features -> its accuracy (0..1) and mean cross entropy (nats) before the step."""
        recipe, (first, second) = self.recipe, BETAS
        rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * self.step / recipe.steps))
        self.step += 1
        logits = self.logits(features)
        scores = softmax(logits)
        wanted = smoothed(truth, len(self.bias), recipe.label_smoothing)
        error = (scores - wanted) / np.float32(len(truth))
        gradients = {"weights": features.T @ error, "bias": error.sum(0)}
        self.weights -= np.float32(rate * recipe.weight_decay) * self.weights
        for name, gradient in gradients.items():
            mean, square = self.moments[f"first_{name}"], self.moments[f"second_{name}"]
            mean += np.float32(1 - first) * (gradient - mean)
            square += np.float32(1 - second) * (gradient * gradient - square)
            size = np.sqrt(square / np.float32(1 - second**self.step)) + np.float32(TINY)
            array: Array = getattr(self, name)
            array -= np.float32(rate / (1 - first**self.step)) * mean / size
        return judged(logits, truth)

    def logits(self, features: Array) -> Array:
        """(n, d) scaled features -> (n, classes)."""
        scores: Array = features @ self.weights + self.bias
        return scores

    def judge(self, features: Array, truth: NDArray[np.int64]) -> tuple[float, float]:
        """Accuracy (0..1) and mean cross entropy (nats) of the state as it is."""
        return judged(self.logits(features), truth)

    def keep_if_best(self, accuracy: float, cross_entropy: float) -> bool:
        """By the photos held out; a later state that is no better does not replace an earlier one."""
        if (accuracy, -cross_entropy) <= self.best:
            return False
        self.best, self.best_step = (accuracy, -cross_entropy), self.step
        self.best_weights, self.best_bias = self.weights.copy(), self.bias.copy()
        return True

    def folded(self, temperature: float = 1.0) -> tuple[Array, Array]:
        """The best state's weights and bias for features as they come; the last one's where none was judged. All logits
        are divided by `temperature`.
        """
        weights = self.weights if self.best_weights is None else self.best_weights
        bias = self.bias if self.best_bias is None else self.best_bias
        plain = weights / self.scale.deviation[:, None]
        return plain / np.float32(temperature), (bias - self.scale.mean @ plain) / np.float32(temperature)

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but the recipe, for a file."""
        rows = [[row[name] for name in HISTORY] for row in self.history]
        arrays: dict[str, NDArray[Any]] = {
            "weights": self.weights, "bias": self.bias, "mean": self.scale.mean, "deviation": self.scale.deviation,
            "step": np.array([self.step, self.best_step]), "best": np.array(self.best),
            "history": np.array(rows, np.float64).reshape(-1, len(HISTORY)), **self.moments,
        }  # fmt: skip
        if self.best_weights is not None and self.best_bias is not None:
            arrays |= {"best_weights": self.best_weights, "best_bias": self.best_bias}
        return arrays

    @classmethod
    def from_arrays(cls, recipe: HeadRecipe, arrays: Mapping[str, NDArray[Any]]) -> Head:
        """What `as_arrays` gave. Raises KeyError for what is missing."""
        moments = {f"{kind}_{name}": arrays[f"{kind}_{name}"] for kind in ("first", "second")
                   for name in ("weights", "bias")}  # fmt: skip
        history = [dict(zip(HISTORY, map(float, row), strict=True)) for row in arrays["history"]]
        accuracy, minus_cross_entropy = map(float, arrays["best"])
        step, best_step = map(int, arrays["step"])
        return cls(
            recipe, Scale(arrays["mean"], arrays["deviation"]), arrays["weights"], arrays["bias"], moments,
            step, (accuracy, minus_cross_entropy), best_step, arrays.get("best_weights"), arrays.get("best_bias"), history,
        )  # fmt: skip


HISTORY = ("step", "train_accuracy", "validation_accuracy", "cross_entropy", "validation_cross_entropy")


def batches(count: int, recipe: HeadRecipe, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Places of an epoch's batches among `count` photos: each once, in an order of this epoch's own."""
    order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
    for start in range(0, count, recipe.batch):
        yield order[start : start + recipe.batch]


def steps_of(count: int, recipe_batch: int) -> int:
    """Steps of an epoch."""
    return -(-count // recipe_batch)


def softmax(logits: Array) -> Array:
    """(n, classes) -> (n, classes), rows sum to 1."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    scores: Array = powers / powers.sum(1, keepdims=True)
    return scores


def smoothed(truth: NDArray[np.int64], classes: int, smoothing: float) -> Array:
    """(n,) class numbers -> (n, classes): 1 - smoothing on the truth, and smoothing spread over all."""
    wanted = np.full((len(truth), classes), smoothing / classes, np.float32)
    wanted[np.arange(len(truth)), truth] += np.float32(1 - smoothing)
    return wanted


def judged(logits: Array, truth: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy (0..1) and mean cross entropy (nats), without smoothing; NaN of nothing."""
    if not len(truth):
        return math.nan, math.nan
    right = softmax(logits)[np.arange(len(truth)), truth]
    return float((logits.argmax(1) == truth).mean()), -float(np.log(np.maximum(right, TINY)).mean())


def calibrating(logits: Array, truth: NDArray[np.int64]) -> float:
    """The temperature that logits must be divided by for the least cross entropy: scores are then as sure as they are
    right, and nobody's answer changes. Of the photos held out (arXiv 1706.04599); 1.0 if these are too few to tell.

    Of n photos and c classes, (n + 1) / (n + c) is wanted of the truth and 1 / (n + c) of each other class (Platt 1999,
    section 2.2; there of two): where every photo is right, no score would be sure enough else.
    """
    if len(truth) < ENOUGH:
        return 1.0
    classes = logits.shape[1]
    wanted = smoothed(truth, classes, classes / (len(truth) + classes))
    temperatures = np.exp(np.linspace(math.log(0.1), math.log(10.0), 401))
    centred = (logits - logits.max(1, keepdims=True)).astype(np.float64)
    losses = []
    for temperature in temperatures:
        scaled = centred / temperature
        losses.append(float((np.log(np.exp(scaled).sum(1)) - (wanted * scaled).sum(1)).mean()))
    return float(temperatures[int(np.argmin(losses))])


def labelled(names: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """Class names -> class numbers."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place[name] for name in names], np.int64)
