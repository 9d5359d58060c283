"""ONNX Runtime: .onnx files. One session computes each call on the calling thread; a wide one is made when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Converted, Hints, Options, batch_of, give_memory_back, in_chunks

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it tells its makers of itself otherwise, from the import on
import onnxruntime

# onnxruntime's words -> NumPy's.
DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "bytes",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def version() -> str:
    return str(onnxruntime.__version__)


def open(source: Source, options: Options) -> OnnxModel:
    """Raises ConfigurationError."""
    assert source.path is not None, "it is a file"
    model = OnnxModel({"serving_default": source.path}, options)
    session = model.session("serving_default", wide=False)
    inputs = tuple(_spec(node, source.path) for node in session.get_inputs())
    outputs = tuple(_spec(node, source.path) for node in session.get_outputs())
    model.signatures = {
        "serving_default": Signature("serving_default", inputs, outputs, "predict", batch_of(inputs, outputs))
    }
    return model


def open_converted(converted: Converted, options: Options) -> OnnxModel:
    model = OnnxModel(converted.files, options, converted.numbered)
    model.signatures, model.default, model.hints = converted.signatures, converted.default, converted.hints
    for signature in converted.signatures:
        model.session(signature, wide=False)
    return model


class OnnxModel:
    runtime = "onnx"
    default = "serving_default"
    hints = Hints()
    signatures: Mapping[str, Signature]

    def __init__(self, files: Mapping[str, Path], options: Options, numbered: bool = False) -> None:
        self.streams, self._chunk, self._numbered = options.threads, options.chunk, numbered
        self._files = files
        self._sessions: dict[tuple[str, bool], Any] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        session = self.session(signature, wide and self.streams > 1)
        called = self.signatures[signature]
        feeds = {spec.name: f"i{i}" if self._numbered else spec.name for i, spec in enumerate(called.inputs)}
        fetches = {spec.name: f"o{i}" if self._numbered else spec.name for i, spec in enumerate(called.outputs)}
        texts = {spec.name for spec in called.inputs if spec.dtype == "bytes"}

        def call(_: str, part: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            fed = {feeds[name]: _texts(array) if name in texts else array for name, array in part.items()}
            results = session.run(list(fetches.values()), fed)
            return {
                spec.name: _bytes(result) if spec.dtype == "bytes" else result
                for spec, result in zip(called.outputs, results, strict=True)
            }

        return in_chunks(call, called, inputs, self._chunk)

    def session(self, signature: str, wide: bool) -> Any:
        if (signature, wide) not in self._sessions:
            with self._lock:
                if (signature, wide) not in self._sessions:
                    path = self._files[signature]
                    self._sessions[signature, wide] = _session(path, self.streams if wide else 1)
        return self._sessions[signature, wide]

    def close(self) -> None:
        self._sessions.clear()
        give_memory_back()


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are others' while nothing is asked
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    except Exception as error:
        raise ConfigurationError(
            f"{path}: ONNX Runtime cannot load it: {' '.join(str(error).split())[:300]}"
        ) from error


def _spec(node: Any, path: Path) -> TensorSpec:
    """`node.type` reads like tensor(float)."""
    word = node.type.removeprefix("tensor(").removesuffix(")")
    if word not in DTYPES:
        raise ConfigurationError(f"{path}: {node.name} is a {node.type}; tensors of {', '.join(DTYPES)} are served")
    shape = None if node.shape is None else tuple(n if isinstance(n, int) and n > 0 else None for n in node.shape)
    return TensorSpec(node.name, DTYPES[word], shape)


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    """ONNX knows texts, no bytes: those that are not UTF-8 pass through all the same."""
    decoded = [item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item for item in array.flat]
    return _objects(decoded, array.shape)


def _bytes(array: NDArray[Any]) -> NDArray[Any]:
    return _objects([str(item).encode("utf-8", "surrogateescape") for item in array.flat], array.shape)


def _objects(items: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    out = np.empty(len(items), object)
    out[:] = items
    return out.reshape(shape)
