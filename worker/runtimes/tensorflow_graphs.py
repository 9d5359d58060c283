"""What TensorFlow can load -> functions of named tensors: SavedModels, Keras files, Keras Applications, frozen graphs."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..card import InputSpec
from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Hints, Options, batch_of

__all__ = ["GPUS", "Frozen", "Function", "Graphs", "freeze", "quiet", "read", "tf"]

# How its C++ side begins a line of its log; the last two are its converter's and LiteRT's.
REMARK = re.compile(
    rb"(?:[IWE]\d{4} |\d{4}-\d\d-\d\d \S+ [IWE] |WARNING: All log messages before absl|fully_quantize: |INFO: Created )"
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TensorFlow's C++ side greets every start with a page of text that no log level stops; it is shown on errors only.

    What others say meanwhile comes when it is over.
    """
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            for line in said:
                if failed or not REMARK.match(line):
                    os.write(2, line)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with quiet():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.saved_model import loader_impl

    GPUS = tf.config.list_physical_devices("GPU")

# Its quarter of a million objects are never garbage: to look through them stops every thread for half a second, and is done
# several times while a model is loaded.
gc.freeze()

# Freezing warns of its own insides each time.
tf.get_logger().setLevel("ERROR")

log = logging.getLogger("fairway.worker")


@dataclass
class Function:
    """`concrete`: takes the tensors of the signature, by keyword if `keywords`; gives its outputs.

    `first`: its outputs have a first dimension of 1 that counts nothing, and is dropped.
    """

    signature: Signature
    concrete: Any
    keywords: bool = False
    first: bool = False


@dataclass
class Graphs:
    """All functions of a model. `keep`: what they need to stay alive."""

    functions: dict[str, Function]
    default: str
    keep: Any
    hints: Hints = field(default_factory=Hints)

    @property
    def signatures(self) -> dict[str, Signature]:
        return {name: function.signature for name, function in self.functions.items()}


@dataclass(frozen=True)
class Frozen:
    """A graph without variables. `feeds` and `fetches` in the order of the signature's inputs and outputs."""

    definition: Any
    feeds: list[str]
    fetches: list[str]


def read(source: Source, options: Options) -> Graphs:
    """Raises ConfigurationError saying what to do."""
    if source.kind == "savedmodel":
        return _saved_model(_path(source))
    if source.kind == "frozen":
        return _frozen_graph(_path(source), options.input_layer, options.output_layer)
    if source.kind == "application":
        from .keras_applications import build, imagenet_labels

        model, spec = build(source.target, options.weights)
        labels = () if options.labelled else imagenet_labels(model.output_shape[-1])
        return _keras(model, Hints(spec, labels))
    return _keras(_keras_file(_path(source)), Hints())


def freeze(function: Function) -> Frozen | None:
    """Its graph with the weights in it as constants; None for one that holds what cannot be frozen, e.g. tables."""
    try:
        frozen = convert_variables_to_constants_v2(function.concrete)
    except Exception as error:  # what it raises depends on what it meets
        log.debug("%s cannot be frozen: %s", function.signature.name, error)
        return None
    if len(frozen.inputs) != len(function.signature.inputs):
        return None
    names = [tensor.name for tensor in frozen.inputs], [tensor.name for tensor in frozen.outputs]
    return Frozen(frozen.graph.as_graph_def(), *names)


def _path(source: Source) -> Path:
    assert source.path is not None, "only applications have no path"
    return source.path


def _saved_model(path: Path) -> Graphs:
    try:
        loaded = tf.saved_model.load(str(path))
        definitions = loader_impl.parse_saved_model(str(path)).meta_graphs[0].signature_def
    except Exception as error:
        raise ConfigurationError(f"{path}: TensorFlow cannot load it: {str(error)[:300]}") from error
    functions = {}
    for name, concrete in loaded.signatures.items():
        # By the signature's own names: its tensors may be called otherwise, `image:0` among others.
        unnamed, named = concrete.structured_input_signature
        inputs = [(tensor.name, tensor) for tensor in tf.nest.flatten(unnamed)] + sorted(named.items())
        outputs = concrete.structured_outputs
        method = definitions[name].method_name.rpartition("/")[2] if name in definitions else ""
        functions[name] = _function(
            name,
            concrete,
            [_spec(alias, tensor) for alias, tensor in inputs],
            [_spec(key, outputs[key]) for key in sorted(outputs)],
            method if method in ("classify", "regress") else "predict",
        )
        functions[name].keywords = True
    if not functions:
        raise ConfigurationError(f"{path}: the SavedModel has no signature to call; export it with one")
    default = "serving_default" if "serving_default" in functions else next(iter(functions))
    return Graphs(functions, default, loaded)


def _keras_file(path: Path) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ConfigurationError(f"{path}: Keras cannot load it: {str(error)[:300]}") from error


def _keras(model: Any, hints: Hints) -> Graphs:
    """`serving_default`, with the names of the model's inputs and outputs."""
    inputs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    names = list(getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(model.outputs))])
    structure = getattr(model, "_inputs_struct", None)

    def serve(*tensors: Any) -> list[Any]:
        fed = tensors[0] if structure is None else tf.nest.pack_sequence_as(structure, list(tensors))
        return tf.nest.flatten(model(fed, training=False))

    concrete = tf.function(serve, input_signature=inputs).get_concrete_function()
    outputs = [_spec(name, tensor) for name, tensor in zip(names, concrete.outputs, strict=True)]
    function = _function("serving_default", concrete, [_spec(i.name, i) for i in inputs], outputs, "predict")
    return Graphs({"serving_default": function}, "serving_default", model, hints)


def _frozen_graph(path: Path, input_layer: str, output_layer: str) -> Graphs:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except Exception as error:
        raise ConfigurationError(f"{path}: not a frozen GraphDef: {str(error)[:200]}") from error
    nodes = {node.name: node for node in graph_def.node}
    if not nodes:
        raise ConfigurationError(f"{path}: not a frozen GraphDef: it holds no operation")
    hints = Hints()
    if not input_layer and "DecodeJpeg" in nodes:
        # The article's graph takes JPEG bytes. Fed behind its decoder, it takes every format we decode.
        input_layer, hints = "DecodeJpeg:0", Hints(InputSpec(resize="none", dtype="uint8"))
    if not input_layer:
        placeholders = [node.name for node in graph_def.node if node.op == "Placeholder"]
        if len(placeholders) != 1:
            raise ConfigurationError(f"{path}: say --input-layer; its placeholders are {placeholders}")
        input_layer = placeholders[0]
    if not output_layer:
        used = {name.split(":")[0].lstrip("^") for node in graph_def.node for name in node.input}
        ends = [name for name in nodes if name not in used]
        output_layer = "final_result" if "final_result" in nodes else ends[0] if len(ends) == 1 else ""
        if not output_layer:
            raise ConfigurationError(f"{path}: say --output-layer; the graph ends in {ends[:10]}")
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    try:
        fed = wrapped.graph.as_graph_element(_tensor_name(input_layer))
        fetched = wrapped.graph.as_graph_element(_tensor_name(output_layer))
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    first = hints.input is not None
    output = _spec(output_layer.split(":")[0], fetched)
    if first:
        output = TensorSpec(output.name, output.dtype, output.shape[1:] if output.shape else None)
    inputs = [_spec(input_layer.split(":")[0], fed)]
    function = _function("serving_default", wrapped.prune(fed, fetched), inputs, [output], "predict")
    function.first = first
    return Graphs({"serving_default": function}, "serving_default", wrapped, hints)


def _function(name: str, concrete: Any, inputs: list[TensorSpec], outputs: list[TensorSpec], method: str) -> Function:
    return Function(Signature(name, tuple(inputs), tuple(outputs), method, batch_of(inputs, outputs)), concrete)


def _spec(name: str, tensor: Any) -> TensorSpec:
    dtype = "bytes" if tensor.dtype == "string" else str(getattr(tensor.dtype, "name", tensor.dtype))
    rank = tensor.shape.rank
    return TensorSpec(name, dtype, None if rank is None else tuple(tensor.shape.as_list()))


def _tensor_name(name: str) -> str:
    return name if ":" in name else name + ":0"
