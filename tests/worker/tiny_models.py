"""One model of every kind that TensorFlow's runtime loads, each made in milliseconds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .colours import LABELS

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
keras = tf.keras

CARD = {"input": {"width": 4, "height": 4, "mean": 0, "std": 255}, "output": {"labels": list(LABELS)}}


def shares(batch: Any) -> Any:
    """(n, height, width, 3) -> (n, 3): how much of each colour there is."""
    amounts = tf.reduce_sum(tf.cast(batch, tf.float32), axis=(1, 2))
    return amounts / tf.reduce_sum(amounts, axis=1, keepdims=True)


def save(path: Path, function: Callable[[Any], Any], *spec: Any, output: str = "scores") -> Path:
    """A SavedModel of one signature, with its weights beside it as training leaves them."""
    module = tf.Module()
    module.weight = tf.Variable(1.0)

    def serve(image: Any) -> Any:
        scores = function(image)
        return {output: scores * tf.cast(module.weight, scores.dtype)}

    signature = tf.function(serve, input_signature=[tf.TensorSpec(*spec, name="image")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures={"serving_default": signature})
    return path


def reordered(order: tuple[int, ...], batch: Any) -> Any:
    return tf.gather(shares(batch), order, axis=1)


def decoded(uploads: Any) -> Any:
    """(n,) encoded pictures -> their shares: a model that decodes by itself."""

    def one(upload: Any) -> Any:
        return tf.image.resize(tf.io.decode_image(upload, channels=3, expand_animations=False), (4, 4))

    return shares(tf.map_fn(one, uploads, fn_output_signature=tf.float32))


def several(path: Path) -> None:
    """Signatures of all three methods, as TensorFlow 1 wrote them."""
    graph = tf.Graph()
    v1 = tf.compat.v1
    with graph.as_default(), v1.Session(graph=graph) as session:
        image = v1.placeholder(tf.float32, (None, 4, 4, 3))
        scores, words = shares(image), tf.constant([label.encode() for label in LABELS])
        classes = tf.gather(words, tf.argmax(scores, axis=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder = v1.saved_model.Builder(str(path))
            define, info = v1.saved_model.build_signature_def, v1.saved_model.build_tensor_info
            signatures = {
                "serving_default": ("predict", "image", {"scores": scores}),
                "strongest": ("classify", "inputs", {"classes": classes, "scores": scores}),
                "brightness": ("regress", "inputs", {"outputs": tf.reduce_sum(image, axis=(1, 2, 3))}),
            }
            builder.add_meta_graph_and_variables(
                session,
                ["serve"],
                signature_def_map={
                    name: define(
                        {fed: info(image)},
                        {key: info(tensor) for key, tensor in outputs.items()},
                        f"tensorflow/serving/{method}",
                    )
                    for name, (method, fed, outputs) in signatures.items()
                },
            )
            builder.save()


def table(path: Path) -> None:
    """(n,) words -> their places in the list of labels."""
    module = tf.Module()
    keys, values = tf.constant(LABELS), tf.range(3.0)
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image")])  # type: ignore[untyped-decorator]
    def place(image: Any) -> Any:
        return {"scores": module.table.lookup(image)}

    tf.saved_model.save(module, str(path), signatures={"serving_default": place})


def build(folder: Path) -> Path:
    """A folder with one model of each kind; all of them name the strongest colour."""
    card, labels = json.dumps(CARD), "\n".join(LABELS)
    images = ((None, 4, 4, 3), tf.float32)

    save(folder / "float", shares, *images)
    (folder / "float" / "model_card.json").write_text(card)
    save(folder / "bare", shares, *images)
    save(folder / "one_1.0_4", shares, (1, 4, 4, 3), tf.float32)
    save(folder / "sizeless", shares, (None, None, None, 3), tf.float32)
    save(folder / "flat", lambda rows: shares(tf.reshape(rows, (-1, 4, 4, 3))), (None, 48), tf.float32)
    save(folder / "bytes", shares, (None, 4, 4, 3), tf.uint8)
    (folder / "bytes" / "labels.txt").write_text(labels)
    save(folder / "encoded", decoded, (None,), tf.string)
    # Here the signature does not tell how many outputs there are.
    save(
        folder / "encoded-vague",
        lambda u: tf.boolean_mask(decoded(u), tf.size(u) > [0, 0, 0], axis=1),
        (None,),
        tf.string,
    )
    for name in ("encoded", "encoded-vague"):
        (folder / name / "assets").mkdir(exist_ok=True)
        (folder / name / "assets" / "labels.txt").write_text(labels)
    save(folder / "no-scores", lambda image: tf.argmax(shares(image), axis=1), *images)

    two = [tf.TensorSpec(*images, name=name) for name in ("image", "mask")]
    both = tf.function(lambda image, mask: {"scores": shares(image * mask)}, input_signature=two)
    tf.saved_model.save(tf.Module(), str(folder / "two-inputs"), signatures={"serving_default": both})
    several(folder / "several")
    table(folder / "table")

    for version, order in ((1, (0, 1, 2)), (2, (1, 2, 0)), (10, (2, 0, 1))):  # each calls red by another name
        save(folder / "many" / str(version), partial(reordered, order), *images)
    (folder / "many" / "model_card.json").write_text(card)
    (folder / "many" / "11").mkdir()  # still being copied
    save(folder / "many" / "²", shares, *images)  # a digit, and yet no number

    picture = keras.Input((4, 4, 3))
    amounts = keras.layers.GlobalAveragePooling2D()(picture)
    keras.Model(picture, amounts / keras.ops.sum(amounts, axis=1, keepdims=True)).save(folder / "net.keras")
    (folder / "net.model_card.json").write_text(card)

    (folder / "article").mkdir()
    graph = tf.Graph()
    with graph.as_default():
        contents = tf.compat.v1.placeholder(tf.string, (), name="DecodeJpeg/contents")
        pixels = tf.raw_ops.DecodeJpeg(contents=contents, channels=3, name="DecodeJpeg")
        scaled = tf.compat.v1.image.resize_bilinear(tf.expand_dims(tf.cast(pixels, tf.float32), 0), (4, 4))
        tf.identity(shares(scaled), name="final_result")
    (folder / "article" / "output_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "article" / "output_labels.txt").write_text(labels)

    plain_graph = tf.Graph()
    with plain_graph.as_default():
        fed = tf.compat.v1.placeholder(tf.float32, (None, 4, 4, 3), name="input")
        tf.identity(shares(fed), name="softmax")
    (folder / "graph.pb").write_bytes(plain_graph.as_graph_def().SerializeToString())
    return folder
