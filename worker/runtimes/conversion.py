"""A model that TensorFlow reads -> files for other engines: .tflite, .onnx, OpenVINO's IR. See `Converted` for the names.

Weights are frozen into the graph first: converters that meet variables may leave them behind, uninitialised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .tensorflow_graphs import Function, Graphs, freeze, tf

OPSET = 18  # the newest that tf2onnx writes


def convert(graphs: Graphs, target: str, folder: Path) -> dict[str, Path]:
    """Signature -> file in `folder`. Raises ConfigurationError, or whatever the converter raises."""
    definitions = {name: _numbered(function) for name, function in graphs.functions.items()}
    if target in ("litert", "litert-int8"):
        return _lite(graphs, definitions, folder / f"{target}.tflite", small=target == "litert-int8")
    write: Callable[[Any, Function, Path], Path] = {"onnx": _onnx, "openvino": _ir}[target]
    return {
        name: write(definitions[name], function, folder / f"{target}-{number}")
        for number, (name, function) in enumerate(graphs.functions.items())
    }


def _numbered(function: Function) -> Any:
    """A GraphDef without variables, whose tensors are i0, i1, ... and o0, o1, ..."""
    frozen = freeze(function)
    if frozen is None:
        raise ConfigurationError(f"{function.signature.name} holds what cannot be frozen, e.g. tables")
    graph = tf.Graph()
    with graph.as_default():
        feeds = {
            feed: tf.compat.v1.placeholder(tf.string if spec.dtype == "bytes" else spec.dtype, spec.shape, f"i{i}")
            for i, (feed, spec) in enumerate(zip(frozen.feeds, function.signature.inputs, strict=True))
        }
        results = tf.import_graph_def(frozen.definition, feeds, return_elements=frozen.fetches, name="model")
        for i, result in enumerate(results):
            tf.identity(tf.squeeze(result, [0]) if function.first else result, name=f"o{i}")
    outputs = [f"o{i}" for i in range(len(results))]
    return tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs)


def _names(function: Function) -> tuple[list[str], list[str]]:
    inputs = [f"i{i}:0" for i in range(len(function.signature.inputs))]
    return inputs, [f"o{i}:0" for i in range(len(function.signature.outputs))]


def _lite(graphs: Graphs, definitions: dict[str, Any], path: Path, small: bool) -> dict[str, Path]:
    """One file for all signatures. `small`: weights in 8 bits."""
    signatures = {
        f"s{number}": _serving(definitions[name], function)
        for number, (name, function) in enumerate(graphs.functions.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if small:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        path.write_bytes(converter.convert())
    return dict.fromkeys(graphs.functions, path)


def _serving(definition: Any, function: Function) -> Any:
    feeds, fetches = _names(function)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    pruned = wrapped.prune(
        [wrapped.graph.get_tensor_by_name(n) for n in feeds], [*map(wrapped.graph.get_tensor_by_name, fetches)]
    )

    def serve(*tensors: Any) -> dict[str, Any]:
        return {f"o{i}": tensor for i, tensor in enumerate(pruned(*tensors))}

    specs = [
        tf.TensorSpec(spec.shape, tf.string if spec.dtype == "bytes" else spec.dtype, name=f"i{i}")
        for i, spec in enumerate(function.signature.inputs)
    ]
    return tf.function(serve, input_signature=specs)


def _onnx(definition: Any, function: Function, path: Path) -> Path:
    """The weights in a file of their own, which is mapped; a second copy of them stays in memory otherwise."""
    import onnx
    import tf2onnx

    feeds, fetches = _names(function)
    model, _ = tf2onnx.convert.from_graph_def(
        definition, input_names=feeds, output_names=fetches, opset=OPSET,
        tensors_to_rename={name: name.removesuffix(":0") for name in (*feeds, *fetches)},
    )  # fmt: skip
    file = path.with_suffix(".onnx")
    onnx.save(model, file, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    return file


def _ir(definition: Any, function: Function, path: Path) -> Path:
    from .openvino import write_ir

    graph = path.with_suffix(".pb")
    graph.write_bytes(definition.SerializeToString())
    write_ir(graph, path.with_suffix(".xml"))
    graph.unlink()
    return path.with_suffix(".xml")
