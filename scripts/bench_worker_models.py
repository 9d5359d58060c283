"""The models of the worker's bench: MobileNetV2 as SavedModel, .keras and .onnx; and a model that does nothing.

Usage: bench_worker_models.py FOLDER WEIGHTS [LABELS]   (a process of its own: TensorFlow stays out of the bench's)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NOTHING = '''"""A model that answers at once: what is left is the server."""

import numpy as np


class Nothing:
    inputs, outputs = [("upload", "bytes", (None,))], [("scores", "float32", (None, 5))]
    card = {"input": {"kind": "raw", "resize": "none"}, "output": {"labels": ["a", "b", "c", "d", "e"]}}

    def __call__(self, uploads):
        return np.zeros((len(uploads), 5), np.float32)
'''


def make(folder: Path, weights: str, labels: str = "") -> None:
    import keras
    import tf2onnx

    from fairway.worker.runtimes.keras_applications import build

    model, spec = build("MobileNetV2", weights)
    saved = folder / "mobilenet" / "1"
    model.export(str(saved), verbose=False)
    model.save(folder / "mobilenet.keras")
    names = Path(labels).read_text().splitlines() if labels else [f"class {i}" for i in range(1000)]
    card = {
        "input": {
            "width": spec.width, "height": spec.height, "resize": "crop", "resize_to": spec.resize_to,
            "mean": list(spec.mean), "std": list(spec.std),
        },
        "output": {"labels": [name for name in names if name != "background"][:1000]},
    }  # fmt: skip
    for place in (folder / "mobilenet", folder):
        (place / "model_card.json").write_text(json.dumps(card))
    signature = [keras.InputSpec(shape=(None, *model.input_shape[1:]), dtype="float32")]
    import tensorflow as tf

    specs = [tf.TensorSpec(each.shape, tf.float32, name="image") for each in signature]
    call = tf.function(lambda image: model(image, training=False), input_signature=specs)
    proto, _ = tf2onnx.convert.from_function(call, input_signature=specs, opset=17)
    (folder / "mobilenet.onnx").write_bytes(proto.SerializeToString())
    (folder / "nothing.py").write_text(NOTHING)


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:])
