"""The nouns of inference. Pure, and free of heavy imports: clients use them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Prediction:
    """Labels with their scores, best first. Iterates as (label, score) pairs; equal to the worker's JSON answer."""

    pairs: tuple[tuple[str, float], ...]

    @classmethod
    def from_scores(cls, scores: Sequence[float], labels: Sequence[str], top: int) -> Prediction:
        """`scores[i]` belongs to `labels[i]`; ties keep the order of the labels."""
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:top]
        return cls(tuple([(labels[i], float(scores[i])) for i in best]))

    @property
    def label(self) -> str:
        """The best one."""
        return self.pairs[0][0]

    @property
    def score(self) -> float:
        return self.pairs[0][1]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __str__(self) -> str:
        return ", ".join(f"{label} {score:.3f}" for label, score in self.pairs)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `dtype`: NumPy's name (`float32`, `uint8`, `int64`, `bool`, ...), or `bytes`: byte strings of any length, which come in
    arrays of dtype object. `shape`: with the dimension that counts items; None where any size will do. No shape at all:
    not even the number of dimensions is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way to call a model: named tensors in, named tensors out.

    `method`: predict, classify or regress, TensorFlow Serving's words. `batch`: how many items one call takes: 0: any
    number, which is the first dimension of every input and output; k: always k of them; None: there is no such dimension.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method: str = "predict"
    batch: int | None = 0

    def loosened(self) -> Signature | None:
        """Of one that always takes a single item: the same with any number of them. None if it is no such thing."""
        shapes = [spec.shape for spec in (*self.inputs, *self.outputs)]
        if self.batch != 1 or not all(shapes):
            return None
        inputs, outputs = (
            tuple(replace(spec, shape=(None, *(spec.shape or ())[1:])) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        return replace(self, inputs=inputs, outputs=outputs, batch=0)
