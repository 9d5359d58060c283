"""The forms that a model can be exported to, and what each may cost. Sans-io and light: --help reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """`suffix`: of its file; empty for a folder of versions. `runtime`: the engine of ours that proves it. `extra`: what
    brings all that is needed for both. The rest is how far its answers may lie from those of the model: see `Bounds`.
    """

    suffix: str
    runtime: str
    extra: str
    largest: float = 1e-4
    best: float = 1.0
    exact: bool = True


# Where 8 bits are to do, a score may move; so it counts more whether the best class stays the best.
FORMS = {
    "savedmodel": Form("", "tensorflow", "tensorflow"),
    "litert": Form(".tflite", "litert", "litert"),
    "litert-dynamic": Form(".tflite", "litert", "litert", 0.1, 0.85, exact=False),
    "litert-int8": Form(".tflite", "litert", "litert", 0.35, 0.85, exact=False),
    "onnx": Form(".onnx", "onnx", "tf2onnx"),
}
