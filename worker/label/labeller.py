"""A loaded model, asked for one picture at a time: the way of an upload, without the server around it."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import call, image, sample
from ..errors import ConfigurationError
from ..image import ImageLimits
from ..loading import as_image_model
from ..model import Model
from ..runtimes.choice import open_best
from ..source import find_source
from ..tensor import Prediction

if TYPE_CHECKING:
    from ..config import WorkerSettings
    from ..source import Source
    from .command import LabelSettings

DECODER = "DecodeJpeg/contents"  # where label_image feeds the article's graph, which ours feed behind that decoder


class Labeller:
    """A loaded model, asked for one picture at a time; by `streams` threads at once."""

    def __init__(self, model: Model, settings: LabelSettings) -> None:
        self._model, self._top = model, settings.top
        self._limits = ImageLimits(settings.max_bytes, settings.max_pixels)
        self.streams = model.loaded.streams

    def __call__(self, path: Path) -> Prediction:
        """Raises OSError or WorkerError saying what is wrong with this file."""
        model = self._model
        signature, card = model.loaded.signatures[model.loaded.default], model.card
        assert card is not None, "of a model for pictures"
        with path.open("rb") as file:
            data = file.read(self._limits.max_bytes + 1)  # one more is too many, and enough to say so
        item = {model.image_input: image.to_item(data, card.input, self._limits)}
        arrays = sample.repeated(item, signature, 1)
        outputs = call.run(model, signature, [arrays], [1], signature.batch or 1, False, pictures=True)
        return Prediction.from_scores(outputs[0]["scores"][0].tolist(), card.labels, self._top)


def open_labeller(settings: LabelSettings) -> Labeller:
    """Blocks for seconds. Raises ConfigurationError."""
    served = settings.served()
    source = find_source(settings.model, served)
    opened, choice = open_best(settings.model, source, _layers(source, served), settings.threads or os.cpu_count() or 1)
    seen = as_image_model(source, opened, served)
    if seen.card is None:
        raise ConfigurationError(f"{source}: it cannot be shown a picture: {seen.reason}")
    model = Model(source.name, source.version, opened, seen.card, seen.input, seen.scores, "", {"runtime": choice})
    _check_layers(source, model, served)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about odd files
    return Labeller(model, settings)


def _layers(source: Source, served: WorkerSettings) -> WorkerSettings:
    """Only frozen graphs can be fed and read anywhere; to the rest their names say nothing until they are loaded."""
    if source.kind != "frozen":
        return replace(served, input_layer="", output_layer="")
    return replace(served, input_layer="") if _bare(served.input_layer) == DECODER else served


def _check_layers(source: Source, model: Model, served: WorkerSettings) -> None:
    """Raises ConfigurationError for a layer that was asked for, and is not the one in use."""
    signature = model.loaded.signatures[model.loaded.default]
    inputs, outputs = ([spec.name for spec in specs] for specs in (signature.inputs, signature.outputs))
    fed, read = served.input_layer, served.output_layer
    if source.kind == "frozen":  # whose own runtime has looked for them, except for the one that it was not told of
        if _bare(fed) == DECODER and model.image_input not in (DECODER, "DecodeJpeg"):
            raise ConfigurationError(f"--input-layer {fed}: {source} has no such layer; it is fed at {inputs[0]}")
        return
    if fed and model.image_input not in (fed, _bare(fed)):
        raise ConfigurationError(f"--input-layer {fed}: {source} has no such input; it has {', '.join(inputs)}")
    if read and model.scores not in (read, _bare(read)):
        why = (
            "only of frozen graphs (.pb) another output can be chosen"
            if {read, _bare(read)} & set(outputs)
            else f"{source} has no such output; it has {', '.join(outputs)}"
        )
        raise ConfigurationError(f"--output-layer {read}: {why}; scores are read from {model.scores}")


def _bare(layer: str) -> str:
    return layer.removesuffix(":0")
