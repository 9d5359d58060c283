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


Naming = Callable[[Function], tuple[list[str], list[str]]]
"""What the inputs and the outputs of a function are called in its new form."""


def convert(graphs: Graphs, target: str, folder: Path) -> dict[str, Path]:
    """Signature -> file in `folder`. Raises ConfigurationError, or whatever the converter raises."""
    plain = {name: without_variables(function) for name, function in graphs.functions.items()}
    if target in ("litert", "litert-int8"):
        path = folder / f"{target}.tflite"
        signatures = {
            f"s{number}": serving(plain[name], function, numbered)
            for number, (name, function) in enumerate(graphs.functions.items())
        }
        path.write_bytes(lite(signatures, lightened if target == "litert-int8" else None))
        return dict.fromkeys(graphs.functions, path)
    write: Callable[[Any, Function, Path], Path] = {"onnx": _onnx, "openvino": _ir}[target]
    return {
        name: write(plain[name], function, folder / f"{target}-{number}")
        for number, (name, function) in enumerate(graphs.functions.items())
    }


def numbered(function: Function) -> tuple[list[str], list[str]]:
    """i0, i1, ... and o0, o1, ...: for files of ours, whatever a model's own names are."""
    inputs, outputs = function.signature.inputs, function.signature.outputs
    return [f"i{i}" for i in range(len(inputs))], [f"o{i}" for i in range(len(outputs))]


def named(function: Function) -> tuple[list[str], list[str]]:
    """The signature's own names: for files that others are given."""
    inputs, outputs = function.signature.inputs, function.signature.outputs
    return [spec.name for spec in inputs], [spec.name for spec in outputs]


def without_variables(function: Function) -> Any:
    """A GraphDef with the weights in it, whose tensors are called by number."""
    frozen = freeze(function)
    if frozen is None:
        raise ConfigurationError(f"{function.signature.name} holds what cannot be frozen, e.g. tables")
    graph = tf.Graph()
    feed_names, fetch_names = numbered(function)
    with graph.as_default():
        feeds = {
            feed: tf.compat.v1.placeholder(tf.string if spec.dtype == "bytes" else spec.dtype, spec.shape, name)
            for feed, spec, name in zip(frozen.feeds, function.signature.inputs, feed_names, strict=True)
        }
        results = tf.import_graph_def(frozen.definition, feeds, return_elements=frozen.fetches, name="model")
        for result, name in zip(results, fetch_names, strict=True):
            tf.identity(tf.squeeze(result, [0]) if function.first else result, name=name)
    return tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), fetch_names)


def serving(plain: Any, function: Function, naming: Naming) -> Any:
    """Such a GraphDef -> a tf.function that can be a SavedModel's signature."""
    feeds, fetches = numbered(function)
    ins, outs = naming(function)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(plain, name=""), [])
    pruned = wrapped.prune(
        [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in feeds],
        [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in fetches],
    )

    def serve(*tensors: Any) -> dict[str, Any]:
        return dict(zip(outs, pruned(*tensors), strict=True))

    specs = [
        tf.TensorSpec(spec.shape, tf.string if spec.dtype == "bytes" else spec.dtype, name=name)
        for spec, name in zip(function.signature.inputs, ins, strict=True)
    ]
    return tf.function(serve, input_signature=specs)


def lite(signatures: dict[str, Any], settle: Callable[[Any], None] | None = None) -> bytes:
    """One .tflite file for all signatures. `settle`: what is to be told the converter."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if settle is not None:
            settle(converter)
        written: bytes = converter.convert()
        return written


def lightened(converter: Any) -> None:
    """Weights in 8 bits; what is computed with them are floats, quantised as they come."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def onnx_model(plain: Any, function: Function, naming: Naming) -> Any:
    """Such a GraphDef -> ONNX's ModelProto."""
    import tf2onnx

    feeds, fetches = numbered(function)
    ins, outs = naming(function)
    model, _ = tf2onnx.convert.from_graph_def(
        plain,
        input_names=[f"{name}:0" for name in feeds],
        output_names=[f"{name}:0" for name in fetches],
        opset=OPSET,
        tensors_to_rename={f"{old}:0": new for old, new in zip([*feeds, *fetches], [*ins, *outs], strict=True)},
    )
    return model


def _onnx(plain: Any, function: Function, path: Path) -> Path:
    """The weights in a file of their own, which is mapped; a second copy of them stays in memory otherwise."""
    import onnx

    model, file = onnx_model(plain, function, numbered), path.with_suffix(".onnx")
    onnx.save(model, file, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    return file


def _ir(plain: Any, function: Function, path: Path) -> Path:
    from .openvino import write_ir

    graph = path.with_suffix(".pb")
    graph.write_bytes(plain.SerializeToString())
    write_ir(graph, path.with_suffix(".xml"))
    graph.unlink()
    return path.with_suffix(".xml")
