"""What all servers of the worker's bench do with an upload: the same decoding and resizing, model and answer.

Told by the environment: BENCH_MODEL, BENCH_RUNTIME (onnx, tensorflow: the signature, keras: `predict`), BENCH_THREADS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fairway.worker.card import read_card
from fairway.worker.image import to_item
from fairway.worker.wire.multipart import image_field

MODEL, RUNTIME = Path(os.environ["BENCH_MODEL"]), os.environ["BENCH_RUNTIME"]
THREADS = int(os.environ.get("BENCH_THREADS", "1"))
CARD = read_card(Path(os.environ["BENCH_CARD"])) if os.environ.get("BENCH_CARD") else None


def upload(body: bytes) -> bytes:
    """The photo in a multipart body, for servers that do not look into it: its first line names the boundary."""
    boundary = body[2 : body.index(b"\r\n")].decode()
    return bytes(image_field(body, f"multipart/form-data; boundary={boundary}"))


def decoded(photo: bytes) -> Any:
    """(1, height, width, 3) float32."""
    assert CARD
    return to_item(photo, CARD.input)[None]


def loaded() -> Callable[[Any], Any]:
    """(n, height, width, 3) -> (n, classes)."""
    if RUNTIME == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import tensorflow as tf

    if RUNTIME == "keras":
        model = tf.keras.models.load_model(MODEL, compile=False)
        return lambda batch: model.predict(batch, verbose=0)
    module = tf.saved_model.load(str(MODEL))
    signature = module.signatures["serving_default"]
    ((argument, _),) = signature.structured_input_signature[1].items()

    def call(batch: Any) -> Any:
        (scores,) = module.signatures["serving_default"](**{argument: tf.constant(batch)}).values()
        return scores.numpy()

    return call


def best(scores: Any) -> list[list[Any]]:
    """The article's answer: five labels with their scores, best first."""
    assert CARD
    return [[CARD.labels[i], float(scores[i])] for i in np.argsort(-scores, kind="stable")[:5]]


def answer(scores: Any) -> bytes:
    return json.dumps(best(scores)).encode()
