"""The article's output_graph.pb: one frozen graph from the bytes of a JPEG to the probabilities of its classes.

    DecodeJpeg/contents:0   () string, one JPEG
    DecodeJpeg:0            (height, width, 3) uint8, its pixels; a worker feeds here, and so takes every format
    final_result:0          (1, classes) float32, softmax

Labels go into output_labels.txt, one a line. These are the names of retrain.py's graphs, which label_image.py feeds and
reads; its operations are those of today's TensorFlow, 1.14 at the earliest. The preprocessing of the model card is in the
graph, as far as TensorFlow has operations for it: see `export/preprocessing.py` for what differs from a worker's.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..card import CARD_FILE, InputSpec
from ..errors import ConfigurationError

if TYPE_CHECKING:
    import keras

CONTENTS, DECODED, RESULT = "DecodeJpeg/contents", "DecodeJpeg", "final_result"


def write_output_graph(network: keras.Model, spec: InputSpec, path: Path) -> None:
    """`network`: (n, height, width, 3) float32, after the mean and std of `spec`, -> (n, classes) logits.

    The file is there whole or not at all. A model card that lies in its folder is another model's: then the graph gets one
    of its own, NAME.model_card.json, which says that it wants pixels as they are.
    Raises ConfigurationError if it cannot be written, or if `spec` is not of pixels.
    """
    definition = output_graph(network, spec).SerializeToString(deterministic=True)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (path.parent / CARD_FILE).is_file():
            card = {"input": {"resize": "none", "dtype": "uint8"}}
            path.with_name(f"{path.stem}.{CARD_FILE}").write_text(json.dumps(card) + "\n", "utf-8")
        part.write_bytes(definition)
        os.replace(part, path)
    except OSError as error:
        raise ConfigurationError(f"cannot write the graph to {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def output_graph(network: keras.Model, spec: InputSpec) -> Any:
    """The same as a GraphDef, TensorFlow 1's: no variables, no functions."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from ..export.preprocessing import item_shape, to_item
    from ..runtimes.tensorflow_graphs import quiet, tf

    if spec.kind != "pixels":
        raise ConfigurationError(f"a graph that decodes JPEGs feeds pixels, but this model takes {spec.kind} uploads")
    item = tf.TensorSpec((None, *item_shape(spec)), tf.float32)
    scores = tf.function(lambda batch: network(batch, training=False), input_signature=[item])
    with quiet():
        frozen = convert_variables_to_constants_v2(scores.get_concrete_function())
    with tf.Graph().as_default() as graph:
        contents = tf.compat.v1.placeholder(tf.string, (), name=CONTENTS)
        batch = to_item(contents, spec)[None]
        (logits,) = tf.import_graph_def(
            frozen.graph.as_graph_def(),
            input_map={frozen.inputs[0].name: batch},
            return_elements=[frozen.outputs[0].name],
            name="network",
        )
        tf.nn.softmax(logits, name=RESULT)
        if graph.get_operation_by_name(DECODED).type != "DecodeJpeg":
            raise AssertionError("the decoder's name is part of the format")
        return graph.as_graph_def()
