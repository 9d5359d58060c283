"""Requests that a model answers before anybody else's: those that came with it.

Either TensorFlow Serving's, `assets.extra/tf_serving_warmup_requests` in the model's folder: a TFRecord file of
PredictionLog, at most 1000 of them; or pictures that the model card names:

    {"input": {...}, "warmup": ["images/daisy.jpg", ...]}

relative to the card. A model with neither is warmed up by the engine, with a plain picture or zeros.
Source: tensorflow/serving/servables/tensorflow/saved_model_warmup_util.h.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import call
from .card import find_card
from .errors import ConfigurationError, WorkerError
from .image import to_item
from .sample import repeated
from .tfrecord import read_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image import ImageLimits
    from .model import Model
    from .source import Source
    from .tensor import Signature

log = logging.getLogger("fairway.worker")

FILE = "assets.extra/tf_serving_warmup_requests"
MOST = 1000  # TensorFlow Serving takes no more


def warm_up(model: Model, source: Source, limits: ImageLimits, tick: Callable[[], None]) -> int:
    """-> how many requests were answered. `tick` is called before each. Raises ConfigurationError that names the request.

    Blocks; for a thread of its own.
    """
    answered = 0
    for where, signature, inputs in _requests(model, source, limits):
        tick()
        try:
            meant = model.loaded.signatures.get(signature or model.loaded.default)
            if meant is None:
                raise ConfigurationError(f"the model has no signature {signature!r}")
            _answer(model, meant, inputs)
        except (WorkerError, ConfigurationError) as error:
            raise ConfigurationError(f"{where}: {error}") from error
        answered += 1
    return answered


def _answer(model: Model, signature: Signature, inputs: dict[str, NDArray[Any]]) -> None:
    arrays, items, stacked = call.fitting(signature, inputs)
    most = signature.batch or (1 if signature.batch is None else items)
    parts = [min(most, items - start) for start in range(0, items, most)]
    for count, piece in zip(parts, call.pieces(signature, arrays, parts, stacked), strict=True):
        call.run(model, signature, [piece], [count], most, False)


def _requests(model: Model, source: Source, limits: ImageLimits) -> Iterator[tuple[str, str, dict[str, NDArray[Any]]]]:
    """Each with where it stands."""
    file = source.folder / FILE if source.folder else None
    if file is not None and file.is_file():
        yield from _logged(file, model)
        return
    card_path = find_card(source.path) if source.path else None
    names = model.card.notes.get("warmup", []) if model.card is not None else []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ConfigurationError(f"model card: warmup is {names!r:.80}; expected a list of image files")
    if names and card_path is not None and model.card is not None:
        signature = model.loaded.signatures[model.loaded.default]
        for name in names:
            path = card_path.parent / name
            try:
                item = to_item(path.read_bytes(), model.card.input, limits)
            except (OSError, WorkerError) as error:
                raise ConfigurationError(f"{path}, which the model card names: {error}") from error
            yield str(path), "", repeated({model.image_input: item}, signature, signature.batch or 1)


def _logged(file: Path, model: Model) -> Iterator[tuple[str, str, dict[str, NDArray[Any]]]]:
    try:
        from google.protobuf.message import DecodeError

        from .wire.predict import read_examples
        from .wire.protobuf import message
        from .wire.tensor_proto import to_array
    except ImportError as error:
        log.warning("%s is not used: it needs %s: pip install 'fairway[grpc]'", file, error.name)
        return
    with file.open("rb") as stream:
        number = 0
        try:
            for number, record in enumerate(read_records(stream), 1):
                if number > MOST:
                    raise ConfigurationError(f"there are more than {MOST} requests")
                where = f"{FILE}, record {number}"
                logged = message("tensorflow.serving.PredictionLog").FromString(record)
                match logged.WhichOneof("log_type"):
                    case "predict_log":
                        request = logged.predict_log.request
                        inputs = {name: to_array(tensor, name) for name, tensor in request.inputs.items()}
                        yield where, request.model_spec.signature_name, inputs
                    case "classify_log" | "regress_log" as kind:
                        request = getattr(logged, kind).request
                        signature = request.model_spec.signature_name
                        yield where, signature, _fed(model, signature, read_examples(request))
                    case "multi_inference_log":
                        request = logged.multi_inference_log.request
                        for task in request.tasks:
                            signature = task.model_spec.signature_name
                            yield where, signature, _fed(model, signature, read_examples(request))
                    case _:
                        raise ConfigurationError("it holds no request that is known: expected a PredictionLog")
        except (ValueError, DecodeError, WorkerError, ConfigurationError) as error:
            raise ConfigurationError(f"{FILE}, record {number}: {error}") from error


def _fed(model: Model, signature: str, examples: list[bytes]) -> dict[str, NDArray[Any]]:
    """Serialised examples as the one input of such a signature."""
    meant = model.loaded.signatures.get(signature or model.loaded.default)
    if meant is None or len(meant.inputs) != 1 or meant.inputs[0].dtype != "bytes":
        raise ConfigurationError(f"signature {signature!r} takes no examples")
    values = np.empty(len(examples), object)
    values[:] = examples
    return {meant.inputs[0].name: values}
