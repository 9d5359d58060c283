"""OpenVINO: its own IR, and what it reads of others: SavedModels (their default signature), frozen graphs, .onnx, .tflite.

Computes in float32 unless bfloat16 is allowed, and integers in 32 bits: larger ones that come in are refused, but what a
model makes of smaller ones may overflow. Threads are not pinned to cores: separate processes would take the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Converted, Hints, Options, batch_of, give_memory_back, in_chunks

# Where this package is found, an import tells OpenVINO's makers of itself, from a fork of this process; else it is silent.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino

# OpenVINO's words -> NumPy's.
DTYPES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "boolean": "bool", "string": "bytes",
    **{f"{short}{bits}": f"{word}{bits}" for short, word in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}  # fmt: skip

# What it computes in 32 bits.
LONG = ("int64", "uint64", "uint32")
LEAST, MOST = -(2**31), 2**31 - 1


def version() -> str:
    return str(openvino.__version__)


def offers_bf16() -> bool:
    """True if the processor computes in bfloat16 by itself."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open(source: Source, options: Options) -> OpenVINOModel:
    """Raises ConfigurationError."""
    assert source.path is not None, "it is a file or a folder"
    model = OpenVINOModel({"serving_default": source.path}, options)
    read = model.network("serving_default")
    inputs, outputs = [_spec(port) for port in read.inputs], [_spec(port) for port in read.outputs]
    signature = Signature("serving_default", tuple(inputs), tuple(outputs), "predict", batch_of(inputs, outputs))
    model.signatures = {"serving_default": signature}
    model.compile("serving_default")
    return model


def open_converted(converted: Converted, options: Options) -> OpenVINOModel:
    model = OpenVINOModel(converted.files, options, converted.numbered)
    model.signatures, model.default, model.hints = converted.signatures, converted.default, converted.hints
    for signature in converted.signatures:
        model.compile(signature)
    return model


def write_ir(graph: Path, path: Path) -> None:
    """A frozen graph's file -> `path` (.xml) and its weights beside it (.bin), in full precision."""
    openvino.save_model(openvino.Core().read_model(graph), path, compress_to_fp16=False)


class OpenVINOModel:
    default = "serving_default"
    hints = Hints()
    signatures: Mapping[str, Signature]

    def __init__(self, files: Mapping[str, Path], options: Options, numbered: bool = False) -> None:
        self.runtime = "openvino-bf16" if options.bf16 else "openvino"
        self.streams, self._chunk = options.threads, options.chunk
        self._files, self._numbered = files, numbered
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if options.bf16 else "f32",
            "INFERENCE_NUM_THREADS": options.threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._core = openvino.Core()
        self._requests: dict[tuple[str, bool], LifoQueue[Any]] = {}
        self._lock = threading.Lock()

    def network(self, signature: str) -> Any:
        """As it was read, not yet compiled."""
        path = self._files[signature]
        try:
            return self._core.read_model(path)
        except Exception as error:
            raise ConfigurationError(f"{path}: OpenVINO cannot load it: {_text(error)}") from error

    def compile(self, signature: str, wide: bool = False) -> LifoQueue[Any]:
        """Requests, as many as may run at once. Ready for use if they are there."""
        with self._lock:
            if (signature, wide) not in self._requests:
                streams = 1 if wide else self.streams
                hint = "LATENCY" if wide else "THROUGHPUT"
                settings = self._settings | {"NUM_STREAMS": streams, "PERFORMANCE_HINT": hint}
                network = self.network(signature)
                try:
                    compiled = self._core.compile_model(network, "CPU", settings)
                except Exception as error:
                    raise ConfigurationError(
                        f"{self._files[signature]}: OpenVINO cannot compile it: {_text(error)}"
                    ) from error
                requests: LifoQueue[Any] = LifoQueue()
                for _ in range(streams):
                    requests.put(compiled.create_infer_request())
                self._requests[signature, wide] = requests
            return self._requests[signature, wide]

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        wide = wide and self.streams > 1
        requests = self._requests.get((signature, wide)) or self.compile(signature, wide)
        called = self.signatures[signature]
        request = requests.get()

        def call(_: str, part: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            fed = {
                (f"i{i}:0" if self._numbered else spec.name): _fed(part[spec.name], spec)
                for i, spec in enumerate(called.inputs)
            }
            request.infer(fed, share_inputs=True)
            results = (
                request.get_tensor(f"o{i}:0" if self._numbered else spec.name) for i, spec in enumerate(called.outputs)
            )
            return {spec.name: _array(tensor, spec) for spec, tensor in zip(called.outputs, results, strict=True)}

        try:
            return in_chunks(call, called, inputs, self._chunk)
        finally:
            requests.put(request)

    def close(self) -> None:
        self._requests.clear()
        give_memory_back()


def _spec(port: Any) -> TensorSpec:
    rank = port.partial_shape.rank
    shape = (
        tuple(n.get_length() if n.is_static else None for n in port.partial_shape) if rank.is_static else None
    )  # fmt: skip
    word = port.element_type.get_type_name()
    return TensorSpec(port.any_name, DTYPES.get(word, word), shape)


def _fed(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if spec.dtype in LONG and array.size and not (array.min() >= LEAST and array.max() <= MOST):
        raise ValueError(f"{spec.name} holds numbers that OpenVINO cannot count with: expected {LEAST} to {MOST}")
    return array


def _array(tensor: Any, spec: TensorSpec) -> NDArray[Any]:
    """A copy: the request's own memory is written to by its next call."""
    if spec.dtype == "bytes":
        return np.array(tensor.bytes_data, object)
    return np.array(tensor.data)


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
