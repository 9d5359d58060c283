"""A model exported for one item at a time takes several at once, if an engine answers them as it answers each alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.tensor import Signature, TensorSpec

tf = pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

ROWS = np.random.default_rng(0).random((5, 6)).astype(np.float32)
WEIGHT = np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3)


def load(folder: Path, function: Callable[[Any], Any]) -> Model:
    """Of a signature that takes one row of six numbers, as LiteRT runs it."""
    module = tf.Module()
    module.weight = tf.Variable(WEIGHT)
    spec = tf.TensorSpec((1, 6), tf.float32, name="row")
    serve = tf.function(lambda row: {"scores": function(row @ module.weight)}, input_signature=[spec])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(folder / "one"), signatures={"serving_default": serve})
    return load_model("", 0, str(folder / "one"), WorkerSettings(runtime="litert"), 2)


def test_rows_share_a_call(tmp_path: Path) -> None:
    model = load(tmp_path, tf.nn.relu)
    (signature,) = model.loaded.signatures.values()
    assert (signature.batch, signature.inputs[0].shape, signature.outputs[0].shape) == (0, (None, 6), (None, 3))
    scores = model.loaded.run({"row": ROWS}, "serving_default")["scores"]
    np.testing.assert_allclose(scores, np.maximum(ROWS @ WEIGHT, 0), atol=1e-6)


def test_not_if_they_change_each_other(tmp_path: Path) -> None:
    model = load(tmp_path, lambda scores: scores / tf.reduce_sum(tf.abs(scores)))  # over all that comes in a call
    (signature,) = model.loaded.signatures.values()
    assert (signature.batch, signature.inputs[0].shape) == (1, (1, 6))


def test_only_of_single_items() -> None:
    def signature(batch: int | None, *shapes: Any) -> Signature:
        return Signature(
            "s", (TensorSpec("x", "float32", shapes[0]),), (TensorSpec("y", "float32", shapes[1]),), "predict", batch
        )

    loosened = signature(1, (1, 4), (1, 2)).loosened()
    assert loosened == signature(0, (None, 4), (None, 2))
    for other in (signature(0, (None, 4), (None, 2)), signature(2, (2, 4), (2, 2)), signature(None, (4,), (2,)),
                  signature(1, (1, 4), None)):  # fmt: skip
        assert other.loosened() is None
