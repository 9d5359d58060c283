"""The model card: how an upload becomes this model's input, and what its outputs are called.

Preprocessing is part of a model: another resize moves scores by tenths. So it stands in one small file beside the
model, `model_card.json`, which training writes and serving reads:

    {"input":  {"width": 144, "height": 144, "channels": "RGB", "resize": "crop", "resize_to": 160,
                "filter": "bilinear", "mean": 0, "std": 1, "dtype": "float32"},
     "output": {"labels": "labels.txt" or ["daisy", ...], "activation": "none"},
     "batching": {"max": 32, "wait_ms": 2, "sizes": [1, 8, 32]} or "off" or "auto",
     ... anything else is kept as notes, never interpreted ...}

`batching` overrides --batching for this model; a card of a model that takes no pictures may say that alone.

Formula of every number that reaches the model: `(pixel - mean) / std`, pixel in 0..255, per channel in `channels` order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import ConfigurationError

CARD_FILE = "model_card.json"
LABEL_FILES = ("labels.txt", "output_labels.txt", "assets/labels.txt")

Channels = Literal["RGB", "BGR", "L"]
Resize = Literal["crop", "squash", "pad", "none"]
Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "tf-bilinear"]
Activation = Literal["none", "softmax", "sigmoid"]
InputKind = Literal["pixels", "encoded", "raw"]
Layout = Literal["hwc", "chw"]


class InputUnknown(ConfigurationError):
    """Nobody said how a picture becomes this model's input; its text tells what to add."""


@dataclass(frozen=True)
class InputSpec:
    """How a decoded picture becomes one item of the model's input batch.

    `resize`: `crop` scales the shorter side to `resize_to` (default: the target is just filled) and cuts out the middle;
    `squash` ignores the aspect ratio; `pad` keeps it and fills with black; `none` leaves the size to the model.
    `filter`: Pillow's antialiased kernels by name, or `tf-bilinear`, the kernel of `tf.image.resize(antialias=False)`.
    `kind`: `pixels` (an array), `encoded` (the model decodes PNG/JPEG bytes itself, and gets nothing else), or `raw`
    (whatever was uploaded: what it is, and whether it can be read, is the model's business).
    `layout`: where the channels stand: `hwc` last, `chw` first, as PyTorch's models want them.
    `reduced`: JPEGs much larger than the target may be decoded at a half, a quarter or an eighth of their size. That is
    several times as fast, and moves scores.
    """

    width: int = 0
    height: int = 0
    channels: Channels = "RGB"
    resize: Resize = "squash"
    resize_to: int = 0
    filter: Filter = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: Literal["float32", "uint8"] = "float32"
    kind: InputKind = "pixels"
    flatten: bool = False
    layout: Layout = "hwc"
    reduced: bool = False

    def __post_init__(self) -> None:
        words = {"channels": Channels, "resize": Resize, "filter": Filter, "kind": InputKind, "layout": Layout}
        for name, allowed in words.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ConfigurationError(f"model card: input.{name} is {value!r}; expected one of {get_args(allowed)}")
        if self.dtype not in ("float32", "uint8"):
            raise ConfigurationError(f"model card: input.dtype is {self.dtype!r}; expected float32 or uint8")
        for name in ("width", "height", "resize_to"):
            value = getattr(self, name)
            if type(value) is not int:
                raise ConfigurationError(f"model card: input.{name} is {value!r}; expected a whole number of pixels")
        if self.resize_to < 0:
            raise ConfigurationError(f"model card: input.resize_to is {self.resize_to}; expected pixels, or 0")
        for name in ("flatten", "reduced"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"model card: input.{name} is {getattr(self, name)!r}; expected true or false")
        if self.reduced and (self.resize == "none" or self.kind != "pixels"):
            raise ConfigurationError(
                "model card: input.reduced needs pixels and a resize: otherwise there is no size to meet"
            )
        if self.kind == "pixels" and self.resize != "none" and not (self.width > 0 and self.height > 0):
            raise ConfigurationError("model card: input.width and input.height must be positive numbers of pixels")
        depth = 1 if self.channels == "L" else 3
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, depth) or not all(
                isfinite(number) for number in getattr(self, name)
            ):
                raise ConfigurationError(f"model card: input.{name} needs one number or {depth}, one per channel")
        if 0.0 in self.std:
            raise ConfigurationError("model card: input.std must not be 0: it is divided by")


@dataclass(frozen=True)
class Card:
    """One model's card. `labels[i]` names output i; `notes` holds whatever else the file says."""

    input: InputSpec
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
    notes: dict[str, Any] = field(default_factory=dict)


def input_spec(raw: dict[str, Any]) -> InputSpec:
    """`raw` as read from JSON -> InputSpec. A misspelt key is an error, not a silent default."""
    known = {f.name for f in fields(InputSpec)}
    if unknown := set(raw) - known:
        raise ConfigurationError(f"model card: unknown input key(s) {sorted(unknown)}; known: {sorted(known)}")
    values = dict(raw)
    for name in ("mean", "std"):
        if name in values:
            value = values[name] if isinstance(values[name], list | tuple) else (values[name],)
            # What is no number at all becomes NaN, and is refused with the rest of the bad values.
            values[name] = tuple(float(v) if isinstance(v, int | float) else nan for v in value)
    return InputSpec(**values)


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, trailing white space cut, as label_image.py reads its labels file."""
    try:
        return tuple(line.rstrip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the labels file {path}: {error}") from error


def read_card(path: Path) -> Card:
    """The card file `path` and the labels file it names (relative to the card)."""
    return parse_card(read_notes(path), path)


def read_notes(path: Path) -> dict[str, Any]:
    """All that a card file says, not yet judged. Raises ConfigurationError."""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the model card {path}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f'{path}: a model card is a JSON object with an "input" object; see docs/models.md')
    return raw


def parse_card(raw: Any, path: Path = Path(CARD_FILE)) -> Card:
    """What a card file says, already read from JSON. `path`: for the texts of errors, and where its labels file lies."""
    if not isinstance(raw, dict) or not isinstance(raw.get("input"), dict):
        raise ConfigurationError(f'{path}: a model card is a JSON object with an "input" object; see docs/models.md')
    raw = dict(raw)
    output = raw.pop("output", {})
    if not isinstance(output, dict):
        raise ConfigurationError(f'{path}: "output" is {output!r}; expected a JSON object')
    if unknown := set(output) - {"labels", "activation"}:
        raise ConfigurationError(f"{path}: unknown output key(s) {sorted(unknown)}; known: labels, activation")
    labels = output.get("labels", [])
    if isinstance(labels, str):
        labels = read_labels(path.parent / labels)
    elif not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise ConfigurationError(f"{path}: output.labels is {labels!r:.80}; expected a file's name, or a list of texts")
    activation = output.get("activation", "none")
    if activation not in get_args(Activation):
        raise ConfigurationError(f"{path}: output.activation is {activation!r}; expected {get_args(Activation)}")
    return Card(input_spec(raw.pop("input")), tuple(labels), activation, raw)


def find_card(model: Path) -> Path | None:
    """The card that belongs to `model`: inside it, beside it, or one folder up (a parent with numeric versions)."""
    folders = (model, model.parent) if model.is_dir() else (model.parent,)
    beside = [model.parent / f"{model.stem}.{CARD_FILE}"] if not model.is_dir() else []
    for candidate in (*beside, *(folder / CARD_FILE for folder in folders)):
        if candidate.is_file():
            return candidate
    return None


def override(spec: InputSpec, raw: dict[str, Any]) -> InputSpec:
    """`spec` with the flags a user gave; None means not given."""
    given = {key: value for key, value in raw.items() if value is not None}
    if not given:
        return spec
    current = {f.name: getattr(spec, f.name) for f in fields(InputSpec)}
    return input_spec(current | given)


def settle_input(card: Card | None, known: InputSpec | None, seen: dict[str, Any], said: dict[str, Any]) -> InputSpec:
    """Who knows how pixels become numbers: the flags, else the card, else the model's own kind (`known`).

    `seen` is what the model's signature shows (width, height, dtype, ...): never enough alone, as it does not tell the
    scaling. Raises InputUnknown saying what to add.
    """
    if card is not None:
        return override(card.input, said)
    if known is not None:
        return override(known, said)
    if said.get("mean") is None or said.get("std") is None:
        raise InputUnknown(
            "it cannot be known how this model wants its pixels scaled: put a model_card.json beside it "
            "(docs/models.md), or say --input-mean and --input-std: "
            "127.5 and 127.5 for -1..1, 0 and 255 for 0..1, 0 and 1 for 0..255"
        )
    if not (seen.get("width") or said.get("width")) or not (seen.get("height") or said.get("height")):
        raise InputUnknown("the model does not tell its input's size: say --input-width and --input-height")
    return input_spec(seen | {key: value for key, value in said.items() if value is not None})


def settle_labels(wanted: str, card: Card | None, beside: Path | None, outputs: int) -> tuple[str, ...]:
    """The labels file the user named, else the card's, else one beside the model, else numbers. Checks the length."""
    if wanted:
        source, labels = wanted, read_labels(Path(wanted))
    elif card is not None and card.labels:
        source, labels = "the model card", card.labels
    else:
        found = next((p for name in LABEL_FILES if beside and (p := beside / name).is_file()), None)
        if found is None:
            return tuple(f"class {i}" for i in range(outputs))
        source, labels = str(found), read_labels(found)
    if len(labels) == outputs + 1 and labels[0] == "background":
        labels = labels[1:]  # ImageNet lists of TensorFlow's older models count a class 0 that others left out
    if len(labels) != outputs:
        raise ConfigurationError(f"{source} has {len(labels)} labels, but the model has {outputs} outputs")
    return labels
