"""TensorBoard's event files of a run, as retrain.py left them: FOLDER/train and FOLDER/validation.

Written by TensorFlow alone; to look at them takes `tensorboard --logdir FOLDER` (`pip install 'fairway[summaries]'`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigurationError

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
EVENTS = "events.out.tfevents.*"
BUCKETS = 30


class Summaries:
    """Event files in `folder`/train and `folder`/validation; those of earlier runs are removed first, and nothing else,
    unless `resume` says that this run goes on.

    Raises ConfigurationError if the folder cannot be written to.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        import tensorflow as tf

        self._tf = tf
        self._writers: dict[Part, Any] = {}
        for part in PARTS:
            place = folder / part
            try:
                place.mkdir(parents=True, exist_ok=True)
                for old in place.glob(EVENTS) if not resume else ():
                    old.unlink()
                self._writers[part] = tf.summary.create_file_writer(str(place))
            except (OSError, tf.errors.OpError) as error:
                raise ConfigurationError(f"summaries cannot be written to {place}: {error}") from error

    def scalars(self, step: int, part: Part, **values: float) -> None:
        """One number a name, e.g. `accuracy` (0..1) and `cross_entropy` (nats)."""
        self._write(step, part, [_scalar(self._tf, name, value) for name, value in values.items()])

    def histograms(self, step: int, part: Part, **arrays: ArrayLike) -> None:
        """All numbers of an array, whatever its shape: a histogram, and `NAME/mean`, `stddev`, `max` and `min`."""
        for name, array in arrays.items():
            values = np.asarray(array, np.float64).reshape(-1)
            values = values[np.isfinite(values)]
            if not values.size:
                continue
            figures = {"mean": values.mean(), "stddev": values.std(), "max": values.max(), "min": values.min()}
            scalars = [_scalar(self._tf, f"{name}/{figure}", value) for figure, value in figures.items()]
            self._write(step, part, [_histogram(self._tf, name, values), *scalars])

    def close(self) -> None:
        """Everything is in the files after this; nothing may be added."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, step: int, part: Part, values: list[Any]) -> None:
        summary = self._tf.compat.v1.Summary(value=values)
        with self._writers[part].as_default():
            self._tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)


def _scalar(tf: Any, tag: str, value: float) -> Any:
    return tf.compat.v1.Summary.Value(tag=tag, simple_value=float(value))


def _histogram(tf: Any, tag: str, values: NDArray[np.float64]) -> Any:
    counts, edges = np.histogram(values, BUCKETS)
    histogram = tf.compat.v1.HistogramProto(
        min=values.min(), max=values.max(), num=values.size, sum=values.sum(), sum_squares=np.square(values).sum(),
        bucket_limit=edges[1:], bucket=counts,
    )  # fmt: skip
    return tf.compat.v1.Summary.Value(tag=tag, histo=histogram)
