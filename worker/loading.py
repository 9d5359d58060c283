"""A model's files and settings -> a Model: loaded by a runtime, with the card that makes it one for pictures."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .card import (
    CARD_FILE,
    Card,
    InputSpec,
    InputUnknown,
    find_card,
    override,
    parse_card,
    read_notes,
    settle_input,
    settle_labels,
)
from .config import WorkerSettings
from .errors import ConfigurationError
from .image import to_item
from .model import Model
from .runtimes import Opened
from .runtimes.choice import open_best
from .source import Source, find_source
from .tensor import Signature, TensorSpec
from .tuning import Wish, wish_of

log = logging.getLogger("fairway.worker")

SCORES = ("scores", "predictions", "probabilities")


def load_model(name: str, version: int, path: str, settings: WorkerSettings, threads: int) -> Model:
    """`path`: what --model takes. `name`, `version`: empty or 0 for what the path suggests. Blocks for seconds.

    Raises ConfigurationError saying what to do.
    """
    source = find_source(path, settings)
    opened, choice = open_best(path, source, settings, threads)
    seen = as_image_model(source, opened, settings)
    if seen.reason:
        log.warning("%s is served for tensors, not for pictures: %s", name or source.name, seen.reason)
    return Model(
        name or source.name,
        version or source.version,
        opened,
        seen.card,
        seen.input,
        seen.scores,
        seen.reason,
        {"runtime": choice},
        _wish(source, opened),
    )


@dataclass(frozen=True)
class ImageUse:
    """How pictures are fed to a model's default signature; without a card `reason` says why they cannot be."""

    card: Card | None = None
    input: str = ""
    scores: str = ""
    reason: str = ""


def as_image_model(source: Source, opened: Opened, settings: WorkerSettings) -> ImageUse:
    """Who knows what: the flags, the card beside the model, its kind, its signature.

    Raises ConfigurationError for what is said and cannot be: a broken card, labels that are not as many as outputs.
    """
    card_path = find_card(source.path) if source.path else None
    said = read_notes(card_path) if card_path else dict(opened.hints.card)
    # A card may say how a model of tensors is called, and nothing of pictures.
    of_pictures = "input" in said or ("batching" not in said and (bool(said) or card_path is not None))
    card = parse_card(said, card_path or Path(CARD_FILE)) if of_pictures else None
    signature = opened.signatures[opened.default]
    names = [spec.name for spec in signature.inputs]
    if len(names) != 1:
        return ImageUse(reason=f"it takes {len(names)} inputs ({', '.join(names)}); a picture is one")
    scores = _scores(signature)
    if scores is None:
        outputs = ", ".join(f"{spec.name} {spec.dtype} {_shown(spec.shape)}" for spec in signature.outputs)
        return ImageUse(reason=f"none of its outputs ({outputs}) holds scores: floating point numbers, one a class")
    fed = signature.inputs[0]
    seen = _seen(fed, signature.batch)
    known = opened.hints.input or _known(fed, signature, seen)
    try:
        spec = settle_input(card, known, seen, settings.input_overrides())
    except InputUnknown as error:
        return ImageUse(reason=str(error))
    spec = override(spec, {"flatten": seen.get("flatten"), "layout": seen.get("layout")})
    if card is None and not settings.labels and opened.hints.labels:
        labels = opened.hints.labels
    else:
        width = scores.shape[-1] if scores.shape else None
        classes = width or _count_outputs(opened, signature, spec, scores.name)
        labels = settle_labels(settings.labels, card, source.folder, classes)
    activation = card.activation if card else "none"
    return ImageUse(Card(spec, labels, activation, card.notes if card else {}), fed.name, scores.name)


def _wish(source: Source, opened: Opened) -> Wish | None:
    """What the model's card says of batching, if anything. Raises ConfigurationError."""
    path = find_card(source.path) if source.path else None
    said = read_notes(path) if path else opened.hints.card
    return wish_of(said["batching"], f"{path or 'model card'}: batching") if "batching" in said else None


def _scores(signature: Signature) -> TensorSpec | None:
    """The output with one number a class: by its name, else the first of floating point numbers."""
    wanted = 1 if signature.batch is None else 2
    fitting = [
        spec
        for spec in signature.outputs
        if spec.dtype.startswith(("float", "bfloat")) and (spec.shape is None or len(spec.shape) == wanted)
    ]
    named = {spec.name: spec for spec in fitting}
    return next((named[name] for name in SCORES if name in named), fitting[0] if fitting else None)


def _seen(fed: TensorSpec, batch: int | None) -> dict[str, Any]:
    """What an input's shape and dtype show, in the model card's words."""
    seen: dict[str, Any] = {"dtype": "uint8" if fed.dtype == "uint8" else "float32"}
    size = () if fed.shape is None else fed.shape if batch is None else fed.shape[1:]
    if len(size) == 3:
        first = size[0] in (1, 3) and size[2] not in (1, 3)
        height, width, channels = (size[1], size[2], size[0]) if first else size
        if height and width:
            seen |= {"height": height, "width": width}
        if channels == 1:
            seen["channels"] = "L"
        if first:
            seen["layout"] = "chw"
    if len(size) == 1:
        seen["flatten"] = True
    return seen


def _known(fed: TensorSpec, signature: Signature, seen: dict[str, Any]) -> InputSpec | None:
    """Inputs whose dtype leaves nothing open: bytes 0..255, and encoded pictures."""
    if fed.dtype == "uint8" and seen.get("width"):
        return InputSpec(**seen)
    if fed.dtype == "int8" and seen.get("width"):  # a quantised model's: the same bytes, counted from the middle
        return InputSpec(**seen, mean=(128.0,))
    items = 0 if signature.batch is None else 1
    if fed.dtype == "bytes" and signature.method == "predict" and (fed.shape is None or len(fed.shape) == items):
        return InputSpec(kind="encoded", resize="none")
    return None


def _count_outputs(opened: Opened, signature: Signature, spec: InputSpec, scores: str) -> int:
    """The signature does not tell: one gray picture is run through."""
    picture = io.BytesIO()
    Image.new("RGB", (spec.width or 224, spec.height or 224), (128, 128, 128)).save(picture, "PNG")
    item = to_item(picture.getvalue(), spec)
    fed = item if signature.batch is None else np.stack([item] * (signature.batch or 1))
    try:
        return int(opened.run({signature.inputs[0].name: fed}, opened.default)[scores].shape[-1])
    except Exception as error:
        raise ConfigurationError(f"the model fails on a trial image: {str(error)[:300]}") from error


def _shown(shape: tuple[int | None, ...] | None) -> str:
    return "of unknown shape" if shape is None else f"({', '.join('?' if n is None else str(n) for n in shape)})"
