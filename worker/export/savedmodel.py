"""A trained Keras model -> a SavedModel with its weights frozen into the graph: one file, and faster to start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def write_saved_model(model: Any, path: Path) -> None:
    """`serving_default`: image (n, height, width, 3) float32 -> scores (n, classes) float32, softmax applied."""
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="image")

    @tf.function(input_signature=[spec])
    def scores(image: Any) -> Any:
        return tf.nn.softmax(model(image, training=False))

    frozen = convert_variables_to_constants_v2(scores.get_concrete_function())

    @tf.function(input_signature=[spec])
    def serving_default(image: Any) -> dict[str, Any]:
        return {"scores": frozen(image)[0]}

    tf.saved_model.save(tf.Module(), str(path), signatures={"serving_default": serving_default})
