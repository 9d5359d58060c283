"""SavedModels with their weights frozen into the graph: one file, and faster to start.

Signatures: `serving_default` takes pixels; `classify` takes what TensorFlow Serving's classify sends, each example as the
bytes of a tf.Example, and does all of the preprocessing itself. Of an example one feature counts, a byte string: the
encoded picture (JPEG, PNG, or still GIF), called `image/encoded`, `image` or `image_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ..card import Activation, InputSpec
from ..wire.examples import CLASSIFY
from .preprocessing import item_shape, to_item

if TYPE_CHECKING:
    import keras

FEATURES = ("image/encoded", "image", "image_bytes")  # as in the worker's own classify


def write_saved_model(
    model: keras.Model,
    path: Path,
    labels: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    softmax: bool = True,
    spec: InputSpec | None = None,
) -> None:
    """`model`: one input of pictures, one output of scores. `path`: the folder to be, new or empty.

    `serving_default`: image (n, height, width, channels) float32 -> scores (n, classes) float32; with `softmax` it is
    applied to what the model gives. `size`: (height, width) that it is called with; None: the model's own, or any.
    `labels`: one an output; with them there is also `classify`: inputs (n,) serialized tf.Examples -> classes (n, k)
    strings and scores (n, k) float32, best first, k being the number of labels. `spec`: how a picture in an example becomes
    the model's input, the same that the model card says; None: squashed to the size, pixels 0..255.

    Raises ValueError if the labels are not as many as the outputs.
    """
    own_height, own_width, channels = model.input_shape[1:]
    height, width = size or (own_height, own_width)
    image = tf.TensorSpec((None, height, width, channels), tf.float32, name="image")

    @tf.function(input_signature=[image])
    def scores(image: Any) -> Any:
        given = model(image, training=False)
        return tf.nn.softmax(given) if softmax else given

    frozen = convert_variables_to_constants_v2(scores.get_concrete_function())

    @tf.function(input_signature=[image])
    def serving_default(image: Any) -> dict[str, Any]:
        return {"scores": frozen(image)[0]}

    signatures = {"serving_default": serving_default}
    if labels:
        if spec is None:
            resize: Any = "squash" if height and width else "none"
            spec = InputSpec(width or 0, height or 0, "L" if channels == 1 else "RGB", resize)
        signatures[CLASSIFY] = classify(lambda items: frozen(items)[0], spec, labels)
    save(signatures, path)


def classify(
    scores: Callable[[Any], Any], spec: InputSpec, labels: Sequence[str], activation: Activation = "none"
) -> Any:
    """The signature `classify`. `scores`: a batch of items -> (n, classes) float32, to which `activation` is applied.

    Raises ValueError if the labels are not as many as the classes, as far as these are known.
    """
    item = tf.TensorSpec(item_shape(spec), tf.string if spec.kind != "pixels" else spec.dtype)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def signature(inputs: Any) -> dict[str, Any]:
        absent = tf.io.FixedLenFeature((), tf.string, "")
        features = tf.io.parse_example(inputs, dict.fromkeys(FEATURES, absent))
        encoded = tf.strings.join([features[name] for name in FEATURES])  # all but one are empty
        items = encoded
        if spec.kind == "pixels":
            items = tf.map_fn(lambda one: to_item(one, spec), encoded, fn_output_signature=item)
        given = scores(items)
        if given.shape[-1] not in (None, len(labels)):
            raise ValueError(f"{len(labels)} labels, but the model has {given.shape[-1]} outputs")
        apply = {"none": tf.identity, "softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[activation]
        best = tf.math.top_k(apply(given), len(labels))
        return {"classes": tf.gather(tf.constant(list(labels)), best.indices), "scores": best.values}

    return signature


def save(signatures: Mapping[str, Any], path: Path, methods: Mapping[str, str] | None = None) -> None:
    """Functions without variables, by signature. `methods`: signature -> classify or regress, where it is not predict;
    that of `classify` is known.
    """
    tf.saved_model.save(tf.Module(), str(path), signatures=dict(signatures))
    methods = {CLASSIFY: "classify", **(methods or {})}
    # TensorFlow 2 calls all of them predict.
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
    for name in methods.keys() & signatures.keys():
        updater.replace_method_name(name, f"tensorflow/serving/{methods[name]}")
    updater.save()
