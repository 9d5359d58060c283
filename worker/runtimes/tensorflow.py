"""TensorFlow: SavedModels, .keras files, frozen graphs (the article's), and Keras Applications by name."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..card import Card, InputSpec, find_card, override, read_card, settle_input, settle_labels
from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..image import to_item


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow's C++ side greets every start with a page of text that no log level stops; it is shown on errors only."""
    with tempfile.TemporaryFile() as greeting:
        stderr = os.dup(2)
        os.dup2(greeting.fileno(), 2)
        try:
            yield
        except BaseException:
            greeting.seek(0)
            os.write(stderr, greeting.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with _quiet():
    import tensorflow as tf

    GPUS = tf.config.list_physical_devices("GPU")

log = logging.getLogger("fairway.worker")

BUNDLED = Path(__file__).parents[1] / "models"


@dataclass
class TensorFlowModel:
    """`call` takes a (n, *item) array and gives (n, classes); `single`: it takes one item at a time."""

    name: str
    version: str
    card: Card
    call: Callable[[NDArray[Any]], NDArray[np.float32]]
    single: bool = False

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if self.single and len(batch) > 1:
            return np.concatenate([self.call(batch[i : i + 1]) for i in range(len(batch))])
        return self.call(batch)


@dataclass(frozen=True)
class _Loaded:
    """What a loader found out: `known` if the kind of model tells all about its input, else `seen`.

    `outputs` is 0 where only a trial can tell.
    """

    call: Callable[[NDArray[Any]], NDArray[np.float32]]
    outputs: int
    known: InputSpec | None
    seen: dict[str, Any]
    single: bool = False
    labels: tuple[str, ...] = ()


def load(settings: WorkerSettings, threads: int) -> TensorFlowModel:
    """Raises ConfigurationError saying what to do."""
    if settings.weights and not settings.model.startswith("keras:"):
        raise ConfigurationError("--weights goes with --model keras:NAME; other models bring their own")
    _settle(threads)
    name, version, path, card = settings.model, "", None, None
    if settings.model.startswith("keras:"):
        loaded = _load_application(settings.model.removeprefix("keras:"), settings.weights, bool(settings.labels))
    else:
        path = find_model(settings.model)
        card_path = find_card(path)
        card = read_card(card_path) if card_path else None
        whole = path.absolute()  # "." has no name
        name = whole.stem
        if path.is_dir():
            name, version = (whole.parent.name, whole.name) if _is_version(whole) else (whole.name, "")
            loaded = _load_saved_model(path)
        elif path.suffix == ".pb":
            loaded = _load_frozen_graph(path, settings.input_layer, settings.output_layer)
        else:
            loaded = _load_keras_file(path)
    said = settings.input_overrides()
    spec = settle_input(card, loaded.known, loaded.seen, said)
    spec = override(spec, {"flatten": loaded.seen.get("flatten")})
    if card is None and not settings.labels and loaded.labels:
        labels = loaded.labels
    else:
        beside = None if path is None else path if path.is_dir() else path.parent
        labels = settle_labels(settings.labels, card, beside, loaded.outputs or _count_outputs(loaded, spec))
    activation = card.activation if card else "none"
    notes = card.notes if card else {}
    return TensorFlowModel(name, version, Card(spec, labels, activation, notes), loaded.call, loaded.single)


def _settle(threads: int) -> None:
    """TensorFlow takes its settings before its first operation only: a process's first model decides for all."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(2)  # 1 would serialise everything silently
        for gpu in GPUS:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        log.debug("TensorFlow runs already, with its settings as they are: %s", error)


def find_model(wanted: str) -> Path:
    """The bundled model of that name, or a path; of a parent with numeric versions the highest."""
    names = sorted(p.name for p in BUNDLED.glob("*") if p.is_dir())
    path = BUNDLED / wanted if wanted in names else Path(wanted)
    if not wanted or not path.exists():
        raise ConfigurationError(f"no such model: {wanted}; bundled: {', '.join(names)}; or a path, or keras:NAME")
    if path.is_file():
        if path.name == "saved_model.pb":
            return path.parent
        if path.suffix not in (".pb", ".keras"):
            raise ConfigurationError(f"{path}: not a kind of model that is known: expected a folder, .keras or .pb")
        return path
    if (path / "saved_model.pb").is_file():
        return path
    versions = sorted((int(p.name), p) for p in path.iterdir() if _is_version(p) and (p / "saved_model.pb").is_file())
    if not versions:
        raise ConfigurationError(f"{path}: neither a SavedModel (saved_model.pb) nor a folder of numbered ones")
    return versions[-1][1]


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdigit()


def _load_application(name: str, weights: str, labelled: bool) -> _Loaded:
    from .keras_applications import build, imagenet_labels

    model, spec = build(name, weights)
    outputs = model.output_shape[-1]
    return _Loaded(_compiled(model), outputs, spec, {}, labels=() if labelled else imagenet_labels(outputs))


def _load_keras_file(path: Path) -> _Loaded:
    import keras

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ConfigurationError(f"{path}: Keras cannot load it: {str(error)[:300]}") from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigurationError(f"{path}: one input and one output are needed, it has {len(model.inputs)} and more")
    shape = model.inputs[0].shape
    return _Loaded(_compiled(model), model.outputs[0].shape[-1], None, _seen(shape, model.inputs[0].dtype))


def _load_saved_model(path: Path) -> _Loaded:
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise ConfigurationError(f"{path}: TensorFlow cannot load it: {str(error)[:300]}") from error
    signatures = loaded.signatures
    if not signatures:
        raise ConfigurationError(f"{path}: the SavedModel has no signature to call; export it with one")
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    signature = signatures[key]
    inputs = list(signature.structured_input_signature[1].items())
    if len(inputs) != 1:
        raise ConfigurationError(f"{path}: an image model with one input is needed; it has {[n for n, _ in inputs]}")
    input_name, tensor = inputs[0]
    outputs = signature.structured_outputs
    scores = [n for n, t in outputs.items() if t.dtype.is_floating]
    chosen = next((n for n in ("scores", "predictions", "probabilities") if n in scores), scores[0] if scores else None)
    if chosen is None:
        raise ConfigurationError(f"{path}: none of its outputs {list(outputs)} holds scores (floating point numbers)")

    def call(batch: NDArray[Any]) -> NDArray[np.float32]:
        fed = tf.constant(batch.tolist() if tensor.dtype == tf.string else batch, tensor.dtype)
        # By way of `loaded`, which keeps the variables alive: a signature alone is not bound to.
        result: NDArray[np.float32] = loaded.signatures[key](**{input_name: fed})[chosen].numpy()
        return result

    width = outputs[chosen].shape[-1] if outputs[chosen].shape.rank else None
    known = InputSpec(kind="encoded", resize="none") if tensor.dtype == tf.string else None
    seen = _seen(tensor.shape, tensor.dtype.name)
    if known is None and tensor.dtype == tf.uint8 and seen.get("width"):
        known = InputSpec(**seen)  # bytes 0..255 leave nothing open
    single = tensor.shape.rank is not None and tensor.shape.rank > 0 and tensor.shape[0] == 1
    return _Loaded(call, width or 0, known, seen, single)


def _load_frozen_graph(path: Path, input_layer: str, output_layer: str) -> _Loaded:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except Exception as error:
        raise ConfigurationError(f"{path}: not a frozen GraphDef: {str(error)[:200]}") from error
    nodes = {node.name: node for node in graph_def.node}
    if not nodes:
        raise ConfigurationError(f"{path}: not a frozen GraphDef: it holds no operation")
    known = None
    if not input_layer and "DecodeJpeg" in nodes:
        # The article's graph takes JPEG bytes. Fed behind its decoder, it takes every format we decode.
        input_layer, known = "DecodeJpeg:0", InputSpec(resize="none", dtype="uint8")
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
        read = wrapped.graph.as_graph_element(_tensor_name(output_layer))
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    function = wrapped.prune(fed, read)
    unbatched = known is not None

    def call(batch: NDArray[Any]) -> NDArray[np.float32]:
        scores = function(tf.constant(batch[0] if unbatched else batch, fed.dtype)).numpy()
        return np.asarray(scores.reshape(len(batch), -1), np.float32)

    seen = {} if unbatched else _seen(fed.shape, fed.dtype.name)
    width = read.shape[-1] if read.shape.rank else None
    return _Loaded(call, width or 0, known, seen, single=unbatched or bool(fed.shape.rank and fed.shape[0] == 1))


def _compiled(model: Any) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    function = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)

    def call(batch: NDArray[Any]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = function(tf.constant(batch)).numpy()
        return result

    return call


def _seen(shape: Any, dtype: str) -> dict[str, Any]:
    """What a signature's input shape (with its batch dimension) and dtype show, in the model card's words."""
    size = (
        [None if n is None else int(n) for n in shape] if getattr(shape, "rank", len(shape or ())) is not None else []
    )
    seen: dict[str, Any] = {"dtype": "uint8" if dtype == "uint8" else "float32"}
    if len(size) == 4 and size[1] and size[2]:
        seen |= {"height": size[1], "width": size[2]}
    if len(size) == 4 and size[3] == 1:
        seen["channels"] = "L"
    if len(size) == 2:
        seen["flatten"] = True
    return seen


def _count_outputs(loaded: _Loaded, spec: InputSpec) -> int:
    """The signature does not tell: one gray picture is run through."""
    picture = io.BytesIO()
    Image.new("RGB", (spec.width or 224, spec.height or 224), (128, 128, 128)).save(picture, "PNG")
    try:
        return int(loaded.call(to_item(picture.getvalue(), spec)[None]).shape[-1])
    except Exception as error:
        raise ConfigurationError(f"the model fails on a trial image: {str(error)[:300]}") from error


def _tensor_name(name: str) -> str:
    return name if ":" in name else name + ":0"
