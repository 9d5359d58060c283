"""LiteRT: .tflite files. One interpreter for each thread that calls, all on the same mapped file.

Quantised outputs (int8, uint8) are given as the numbers they stand for, in float32; quantised inputs are taken as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from queue import LifoQueue
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Converted, Hints, Options, batch_of, give_memory_back, in_chunks, require_shapes

INTEGERS = (np.int8, np.uint8)


def version() -> str:
    return str(ai_edge_litert.__version__)


def open(source: Source, options: Options) -> LiteRTModel:
    """Raises ConfigurationError."""
    assert source.path is not None, "it is a file"
    return LiteRTModel(source.path, options)


def open_converted(converted: Converted, options: Options) -> LiteRTModel:
    return LiteRTModel(next(iter(converted.files.values())), options, converted)


class LiteRTModel:
    def __init__(self, path: Path, options: Options, converted: Converted | None = None) -> None:
        self.runtime = "litert" if converted is None else f"litert{converted.variant}"
        self.hints = Hints() if converted is None else converted.hints
        self.streams, self._chunk = options.threads, options.chunk
        self._path = path
        self._free: LifoQueue[_Calls] = LifoQueue()
        self._made, self._lock, self._wide_lock = 1, threading.Lock(), threading.Lock()
        try:
            first = _Calls(path, 1)
        except Exception as error:
            raise ConfigurationError(f"{path}: LiteRT cannot load it: {_text(error)}") from error
        self._wide: _Calls | None = first if options.threads == 1 else None
        if converted is None:
            self.signatures: Mapping[str, Signature] = first.signatures()
            self.default = "serving_default" if "serving_default" in self.signatures else next(iter(self.signatures))
        else:
            self.signatures, self.default = converted.signatures, converted.default
            first.rename(converted)
        self._converted = converted
        self._free.put(first)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        called = self.signatures[signature]
        require_shapes(called, inputs)
        if wide and self._wide is None and self.streams > 1:
            with self._wide_lock:
                if self._wide is None:
                    self._wide = self._calls(self.streams)
        if wide and self.streams > 1:
            with self._wide_lock:
                assert self._wide is not None, "made above"
                return in_chunks(self._wide, called, inputs, self._chunk)
        calls = self._lease()
        try:
            return in_chunks(calls, called, inputs, self._chunk)
        finally:
            self._free.put(calls)

    def close(self) -> None:
        self._wide, self._free = None, LifoQueue()
        give_memory_back()

    def _lease(self) -> _Calls:
        """A free interpreter; a new one while there are fewer than callers may come."""
        with self._lock:
            make = self._free.empty() and self._made < self.streams
            self._made += make
        return self._calls(1) if make else self._free.get()

    def _calls(self, threads: int) -> _Calls:
        calls = _Calls(self._path, threads)
        if self._converted is not None:
            calls.rename(self._converted)
        return calls


class _Calls:
    """One interpreter. Called by one thread at a time."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        listed = self._interpreter.get_signature_list()
        self._runners = {name: self._interpreter.get_signature_runner(name) for name in listed}
        self._details: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            name: (runner.get_input_details(), runner.get_output_details()) for name, runner in self._runners.items()
        }
        if not self._runners:  # a file from before signatures
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._details["serving_default"] = (
                {detail["name"]: detail for detail in inputs},
                {detail["name"]: detail for detail in outputs},
            )
            self._interpreter.allocate_tensors()
        self._names: dict[str, tuple[dict[str, str], dict[str, str]]] = {
            name: ({key: key for key in ins}, {key: key for key in outs}) for name, (ins, outs) in self._details.items()
        }

    def rename(self, converted: Converted) -> None:
        """The file's signatures are numbered, as are their tensors: which stand for which."""
        self._names = {
            name: (
                {spec.name: f"i{i}" for i, spec in enumerate(signature.inputs)},
                {spec.name: f"o{i}" for i, spec in enumerate(signature.outputs)},
            )
            for name, signature in converted.signatures.items()
        }
        numbers = {name: f"s{i}" for i, name in enumerate(converted.signatures)}
        self._runners = {name: self._runners[number] for name, number in numbers.items()}
        self._details = {name: self._details[number] for name, number in numbers.items()}

    def signatures(self) -> dict[str, Signature]:
        found = {}
        for name, (ins, outs) in self._details.items():
            inputs = tuple(_spec(key, detail) for key, detail in ins.items())
            outputs = tuple(_spec(key, detail, result=True) for key, detail in outs.items())
            found[name] = Signature(name, inputs, outputs, "predict", batch_of(inputs, outputs))
        return found

    def __call__(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        ins, outs = self._details[signature]
        feeds, fetches = self._names[signature]
        fed = {feeds[name]: _fed(array, ins[feeds[name]]["dtype"]) for name, array in inputs.items()}
        runner = self._runners.get(signature)
        results = runner(**fed) if runner is not None else self._without_signature(fed, ins, outs)
        return {name: _result(results[key], outs[key]) for name, key in fetches.items()}

    def _without_signature(self, fed: dict[str, Any], ins: dict[str, Any], outs: dict[str, Any]) -> dict[str, Any]:
        for key, array in fed.items():
            if tuple(ins[key]["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(ins[key]["index"], array.shape)
                ins[key]["shape"] = np.array(array.shape)
        self._interpreter.allocate_tensors()
        for key, array in fed.items():
            self._interpreter.set_tensor(ins[key]["index"], array)
        self._interpreter.invoke()
        return {key: self._interpreter.get_tensor(detail["index"]) for key, detail in outs.items()}


def _spec(name: str, detail: dict[str, Any], result: bool = False) -> TensorSpec:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    dtype = np.dtype(detail["dtype"])
    word = "bytes" if dtype.kind in "SO" else "float32" if result and _quantised(detail) else dtype.name
    return TensorSpec(name, word, tuple(None if n < 0 else int(n) for n in shape))


def _quantised(detail: dict[str, Any]) -> bool:
    return detail["dtype"] in INTEGERS and detail["quantization"][0] != 0.0


def _fed(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Pixels of a quantised model's input come as whole floats; the rest is of the right dtype already."""
    if dtype in INTEGERS and array.dtype != dtype:
        info = np.iinfo(dtype)
        return np.clip(np.rint(array), info.min, info.max).astype(dtype)
    return array.astype(np.bytes_) if array.dtype == object else array


def _result(array: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    if _quantised(detail):
        scale, zero = detail["quantization"]
        numbers: NDArray[Any] = (array.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return numbers
    return array.astype(object) if array.dtype.kind == "S" else array


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
