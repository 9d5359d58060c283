"""What a run leaves behind: the network with its new layer, its card, its pictures, published as the next version."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..accuracy import Report
from ..accuracy.picture import draw_confusion
from ..card import InputSpec
from ..errors import ConfigurationError
from ..export.savedmodel import write_saved_model
from ..runtimes.tensorflow_graphs import quiet
from .backbone import Backbone
from .frozen import write_output_graph
from .head import Array
from .pictures import draw_curves
from .publishing import publish

log = logging.getLogger("fairway.training")

LABELS = "labels.txt"
CURVES, CONFUSION = "training.png", "confusion.png"


def network(backbone: Backbone, weights: Array, bias: Array) -> keras.Model:
    """The backbone and the new layer as one model: pictures after mean and std -> (n, classes) logits."""
    layer = keras.layers.Dense(len(bias), name="logits")
    whole = keras.Model(backbone.model.inputs[0], layer(backbone.model.outputs[0]), name="retrained")
    layer.set_weights([weights, bias])
    return whole


def cool(network: keras.Model, temperature: float) -> None:
    """Divides its logits by `temperature`, in its last layer: nobody's answer changes, only how sure it is."""
    layer = network.get_layer("logits")
    layer.set_weights([array / np.float32(temperature) for array in layer.get_weights()])


def input_as_card(spec: InputSpec) -> dict[str, Any]:
    """What differs from the card's defaults, and the size."""
    plain = InputSpec(width=1, height=1)
    said = {field.name: getattr(spec, field.name) for field in fields(InputSpec)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in said.items()
        if value != getattr(plain, name) or name in ("width", "height", "channels", "resize", "filter")
    }


def publish_version(
    folder: Path,
    model: keras.Model,
    spec: InputSpec,
    labels: Sequence[str],
    card: dict[str, Any],
    report: Report | None,
    history: Sequence[Mapping[str, float]],
    judged_on: str = "test",
) -> tuple[int, Path]:
    """The SavedModel, labels.txt, and the two pictures if matplotlib is there -> its number, and where it lies.

    `judged_on`: which photos `report` is of.
    """

    def write(part: Path) -> None:
        with quiet():
            write_saved_model(model, part, labels, (spec.height, spec.width), spec=spec)
        (part / LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
        drawings: list[Callable[[], None]] = [lambda: draw_curves(history, part / CURVES)]
        if report is not None:
            title = f"{folder.name}: {judged_on} photos"
            drawings.append(lambda: draw_confusion(report, part / CONFUSION, title))
        try:
            for draw in drawings:
                draw()
        except ConfigurationError as error:
            log.warning("%s; the version goes without its pictures", error)

    return publish(folder, write, card)


def check_article_graph(graph: Path, names: str) -> None:
    """Makes the folders of the article's two files. Raises ConfigurationError if these cannot be written.

    To be called before hours of work.
    """
    for flag, place in (("--output-graph", graph), ("--output-labels", _labels_of(graph, names))):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{flag} {place}: cannot make its folder: {error.strerror}") from error
        if place.is_dir() or not os.access(place if place.exists() else place.parent, os.W_OK):
            raise ConfigurationError(f"{flag} {place}: it may not be written there; name another file")


def _labels_of(graph: Path, names: str) -> Path:
    return Path(names) if names else graph.with_name("output_labels.txt")


def write_article_graph(model: keras.Model, spec: InputSpec, labels: Sequence[str], graph: Path, names: str) -> None:
    """The article's two files: output_graph.pb, and output_labels.txt."""
    with quiet():
        write_output_graph(model, spec, graph)
    place = _labels_of(graph, names)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{label}\n" for label in labels), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write the labels to {place}: {error.strerror}") from error


def misclassified(names: Sequence[str], truth: np.ndarray[Any, Any], logits: Array, labels: Sequence[str]) -> list[str]:
    """Lines as retrain.py wrote them: the photo, and what it was called."""
    called = logits.argmax(1)
    wrong = [f"{name:>70}  {labels[i]}" for name, i, t in zip(names, called, truth, strict=True) if i != t]
    return ["=== MISCLASSIFIED TEST IMAGES ===", *wrong]
