"""TensorFlow: SavedModels, Keras models, frozen graphs.

A function is frozen and run by a session of one thread a call: several callers then share the cores, and on two of them
this took, measured, 0.8 of the CPU time of calling the signature for a MobileNetV2 and 0.6 of it for a small dense
network; calling the frozen function without a session was slower than either for the latter. What cannot be frozen is
called by its signature.

To read and freeze a model is a second and more of Python's work. While others are served by this process, another one does
it (apart.py), and here only the frozen graph is read.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..source import Source
from ..tensor import Signature
from . import Hints, Options, give_memory_back, in_chunks, record
from .apart import asked, beside_others
from .tensorflow_graphs import GPUS, Frozen, Function, Graphs, freeze, quiet, read, tf

log = logging.getLogger("fairway.worker")

Call = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]


def version() -> str:
    return str(tf.__version__)


def open(source: Source, options: Options) -> TensorFlowModel:
    """Raises ConfigurationError saying what to do."""
    settle(options.threads)
    if beside_others.get() and (found := _frozen_apart(source, options)) is not None:
        return found
    with quiet():
        graphs = read(source, options)
    return from_graphs(graphs, options)


def _frozen_apart(source: Source, options: Options) -> TensorFlowModel | None:
    """None where it cannot be frozen, or there is anything else that the usual way will tell."""
    with tempfile.TemporaryDirectory(prefix="fairway-") as name:
        said: dict[str, Any] = {}
        path = str(source.path) if source.path else None
        request = {
            "do": "freeze",
            "source": {**asdict(source), "path": path},
            "options": asdict(options),
            "folder": name,
        }
        for line in asked(request):
            said |= line
        if "error" in said:
            log.debug("%s is not frozen by another process: %s", source, said["error"])
            return None
        frozen, folder = said["frozen"], Path(name)
        entry = {**said["opened"], "files": {key: graph["file"] for key, graph in frozen.items()}, "variant": ""}
        converted = record.converted_from(entry, folder, source)
        sessions, calls = [], {}
        with quiet():
            for key, file in converted.files.items():
                graph = frozen[key]
                read_back = Frozen(
                    tf.compat.v1.GraphDef.FromString(file.read_bytes()), graph["feeds"], graph["fetches"]
                )
                calls[key], session = _by_session(read_back, graph["first"], options.threads)
                sessions.append(session)
    return TensorFlowModel(converted.signatures, converted.default, options, converted.hints, calls, sessions, None)


def from_graphs(graphs: Graphs, options: Options) -> TensorFlowModel:
    sessions: list[Any] = []
    calls: dict[str, Call] = {}
    keep: Any = None
    with quiet():
        for name, function in graphs.functions.items():
            frozen = freeze(function)
            if frozen is None:
                calls[name], keep = _by_signature(function), graphs.keep
            else:
                calls[name], session = _by_session(frozen, function.first, options.threads)
                sessions.append(session)
    return TensorFlowModel(graphs.signatures, graphs.default, options, graphs.hints, calls, sessions, keep)


class TensorFlowModel:
    runtime = "tensorflow"

    def __init__(
        self,
        signatures: Mapping[str, Signature],
        default: str,
        options: Options,
        hints: Hints,
        calls: dict[str, Call],
        sessions: list[Any],
        keep: Any,
    ) -> None:
        self.signatures, self.default, self.hints = signatures, default, hints
        self.streams, self._chunk = options.threads, options.chunk
        self._calls, self._sessions, self._keep = calls, sessions, keep

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        return in_chunks(self._call, self.signatures[signature], inputs, self._chunk)

    def _call(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        spec = self.signatures[signature]
        results = self._calls[signature]([inputs[tensor.name] for tensor in spec.inputs])
        return {tensor.name: result for tensor, result in zip(spec.outputs, results, strict=True)}

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._calls, self._sessions, self._keep = {}, [], None
        give_memory_back()


def settle(threads: int) -> None:
    """TensorFlow takes its settings before its first operation only: a process's first model decides for all."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))  # 1 would serialise everything silently
        for gpu in GPUS:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        log.debug("TensorFlow runs already, with its settings as they are: %s", error)


def _by_session(frozen: Frozen, first: bool, threads: int) -> tuple[Call, Any]:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=max(2, threads), allow_soft_placement=True
    )
    config.gpu_options.allow_growth = True
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.definition, name="")
    session = tf.compat.v1.Session(graph=graph, config=config)
    fetches = list(dict.fromkeys(frozen.fetches))  # one tensor may be an output under two names
    order = [fetches.index(name) for name in frozen.fetches]
    called = session.make_callable(fetches, feed_list=frozen.feeds)

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        results = called(*arrays)
        return [_shaped(results[i], first) for i in order]

    return call, session


def _by_signature(function: Function) -> Call:
    inputs, concrete = function.signature.inputs, function.concrete

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = [
            tf.constant(
                array.tolist() if spec.dtype == "bytes" else array, tf.string if spec.dtype == "bytes" else None
            )
            for spec, array in zip(inputs, arrays, strict=True)
        ]
        if function.keywords:
            results = concrete(**{spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)})
        else:
            results = concrete(*tensors)
        return [_shaped(tensor.numpy(), function.first) for tensor in tf.nest.flatten(results)]

    return call


def _shaped(result: Any, first: bool) -> NDArray[Any]:
    array = np.asarray(result) if not isinstance(result, bytes) else np.asarray(result, object)
    return array[0] if first and array.ndim and len(array) == 1 else array
