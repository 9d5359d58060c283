"""The forms that a model can be exported to, and what each may cost. Pure: sans-io."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtimes.difference import Bounds

FLOAT32 = Bounds(1e-4)
# Whole numbers of 8 bits: a score may move, so that it counts more whether the best class stays the best.
WEIGHTS_IN_8_BITS = Bounds(0.1, 0.85, exact=False)
ALL_IN_8_BITS = Bounds(0.35, 0.85, exact=False)


@dataclass(frozen=True)
class Form:
    """`suffix`: of its file; empty for a folder of versions. `runtime`: the engine of ours that proves it. `extra`: what
    brings all that is needed for both. `bounds`: how far its answers may lie from those of the model.
    """

    suffix: str
    runtime: str
    extra: str
    bounds: Bounds


FORMS = {
    "savedmodel": Form("", "tensorflow", "tensorflow", FLOAT32),
    "litert": Form(".tflite", "litert", "litert", FLOAT32),
    "litert-dynamic": Form(".tflite", "litert", "litert", WEIGHTS_IN_8_BITS),
    "litert-int8": Form(".tflite", "litert", "litert", ALL_IN_8_BITS),
    "onnx": Form(".onnx", "onnx", "tf2onnx", FLOAT32),
}
