"""The model card: what it may say, and who wins where several know something."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from fairway.registry.options import read_options
from fairway.worker.card import (
    CARD_FILE,
    Card,
    InputSpec,
    find_card,
    input_spec,
    override,
    read_card,
    read_labels,
    settle_input,
    settle_labels,
)
from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.lane import Batching
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.tuning import Wish

from .runtimes import makers

SQUARE = {"width": 8, "height": 8}


def write(folder: Path, card: Any, name: str = CARD_FILE) -> Path:
    path = folder / name
    path.write_text(card if isinstance(card, str) else json.dumps(card), "utf-8")
    return path


def test_a_card_is_read_in_full(tmp_path: Path) -> None:
    card = read_card(
        write(
            tmp_path,
            {
                "input": {
                    "width": 144, "height": 96, "channels": "BGR", "resize": "crop", "resize_to": 160,
                    "filter": "tf-bilinear", "mean": [1, 2, 3], "std": 255, "dtype": "float32",
                },
                "output": {"labels": ["daisy", "roses"], "activation": "softmax"},
                "accuracy": 0.83,
                "recipe": {"epochs": 60},
            },
        )
    )  # fmt: skip
    assert card.input == InputSpec(144, 96, "BGR", "crop", 160, "tf-bilinear", (1.0, 2.0, 3.0), (255.0,))
    assert (card.labels, card.activation) == (("daisy", "roses"), "softmax")
    assert card.notes == {"accuracy": 0.83, "recipe": {"epochs": 60}}


def test_the_least_a_card_says(tmp_path: Path) -> None:
    assert read_card(write(tmp_path, {"input": SQUARE})) == Card(InputSpec(width=8, height=8))


def test_labels_in_a_file_beside_the_card(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffdaisy\r\nsun flower  \r\ngänse\r\n\r\n".encode())
    card = read_card(write(tmp_path, {"input": SQUARE, "output": {"labels": "names.txt"}}))
    assert card.labels == ("daisy", "sun flower", "gänse")


@pytest.mark.parametrize(
    ("input", "text"),
    [
        ({**SQUARE, "chanels": "RGB"}, "unknown input key.*chanels.*known.*channels"),
        ({**SQUARE, "channels": "rgb"}, "input.channels is 'rgb'; expected one of.*RGB"),
        ({**SQUARE, "resize": "stretch"}, "input.resize is 'stretch'.*squash"),
        ({**SQUARE, "filter": "cubic"}, "input.filter is 'cubic'.*bicubic"),
        ({**SQUARE, "kind": "jpeg"}, "input.kind is 'jpeg'.*encoded"),
        ({**SQUARE, "dtype": "float16"}, "input.dtype is 'float16'"),
        ({**SQUARE, "reduced": 8}, "input.reduced is 8; expected true or false"),
        ({**SQUARE, "reduced": True, "resize": "none"}, "input.reduced needs pixels and a resize"),
        ({"kind": "encoded", "reduced": True}, "input.reduced needs pixels and a resize"),
        ({}, "input.width and input.height must be positive"),
        ({"width": 8}, "input.width and input.height must be positive"),
        ({"width": -8, "height": 8}, "input.width and input.height must be positive"),
        ({"width": "8", "height": 8}, "input.width.*whole number"),
        ({"width": 8.5, "height": 8}, "input.width.*whole number"),
        ({"width": None, "height": 8}, "input.width.*whole number"),
        ({**SQUARE, "resize_to": "big"}, "input.resize_to.*whole number"),
        ({**SQUARE, "resize_to": -1}, "input.resize_to"),
        ({**SQUARE, "flatten": "yes"}, "input.flatten"),
        ({**SQUARE, "channels": ["RGB"]}, "input.channels"),
        ({**SQUARE, "mean": [1, 2]}, "input.mean needs one number or 3"),
        ({**SQUARE, "mean": []}, "input.mean needs one number or 3"),
        ({**SQUARE, "channels": "L", "std": [1, 2, 3]}, "input.std needs one number or 1"),
        ({**SQUARE, "mean": "127.5"}, "input.mean needs one number or 3"),
        ({**SQUARE, "mean": ["a", "b", "c"]}, "input.mean needs one number or 3"),
        ({**SQUARE, "std": None}, "input.std needs one number or 3"),
        ({**SQUARE, "std": 0}, "input.std must not be 0"),
        ({**SQUARE, "std": [1, 0, 1]}, "input.std must not be 0"),
        ({**SQUARE, "mean": float("nan")}, "input.mean needs one number or 3"),
    ],
    ids=repr,
)
def test_what_an_input_must_not_say(tmp_path: Path, input: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        read_card(write(tmp_path, {"input": input}))


@pytest.mark.parametrize(
    ("card", "text"),
    [
        ("{", "cannot read the model card .*model_card.json"),
        ("[]", '"input" object'),
        ("{}", '"input" object'),
        ({"input": []}, '"input" object'),
        ({"input": SQUARE, "output": []}, '"output".*object'),
        ({"input": SQUARE, "output": {"activation": "relu"}}, "output.activation is 'relu'"),
        ({"input": SQUARE, "output": {"activation": ["softmax"]}}, "output.activation is"),
        ({"input": SQUARE, "output": {"label": ["a"]}}, "unknown output key.*label"),
        ({"input": SQUARE, "output": {"labels": 5}}, "output.labels"),
        ({"input": SQUARE, "output": {"labels": ["a", 5]}}, "output.labels"),
        ({"input": SQUARE, "output": {"labels": "missing.txt"}}, "cannot read the labels file .*missing.txt"),
    ],
    ids=repr,
)
def test_what_a_card_must_not_be(tmp_path: Path, card: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        read_card(write(tmp_path, card))


@pytest.mark.parametrize(
    ("model", "card", "found"),
    [
        ("m/saved_model.pb", "m/model_card.json", True),  # inside the SavedModel
        ("m/saved_model.pb", "model_card.json", True),  # beside it
        ("m/7/saved_model.pb", "m/model_card.json", True),  # one for all numbered versions
        ("m/7/saved_model.pb", "m/7/model_card.json", True),
        ("m/7/saved_model.pb", "model_card.json", False),  # too far up: whose would it be?
        ("graph.pb", "model_card.json", True),
        ("graph.pb", "graph.model_card.json", True),  # several models in one folder
        ("graph.pb", "other.model_card.json", False),
    ],
)
def test_where_a_card_is_looked_for(tmp_path: Path, model: str, card: str, found: bool) -> None:
    for name in (model, card):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    path = tmp_path / model
    looked_up = find_card(path.parent if path.name == "saved_model.pb" else path)
    assert looked_up == (tmp_path / card if found else None)


def test_the_nearest_card_wins(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write(tmp_path, {})
    inside = write(tmp_path / "m", {})
    assert find_card(tmp_path / "m") == inside
    own = write(tmp_path, {}, "graph.model_card.json")
    assert find_card(tmp_path / "graph.pb") == own


CARD = Card(InputSpec(width=8, height=8, mean=(1.0,)))
KNOWN = InputSpec(width=9, height=9, mean=(2.0,))
SEEN = {"width": 10, "height": 10, "dtype": "uint8"}
SCALING = {"mean": [3.0], "std": [4.0]}


@pytest.mark.parametrize(
    ("card", "known", "seen", "said", "expected"),
    [
        (CARD, KNOWN, SEEN, {}, CARD.input),
        (CARD, KNOWN, SEEN, {"width": 11, "mean": None}, InputSpec(width=11, height=8, mean=(1.0,))),
        (None, KNOWN, SEEN, {}, KNOWN),
        (None, KNOWN, SEEN, SCALING, InputSpec(width=9, height=9, mean=(3.0,), std=(4.0,))),
        (None, None, SEEN, SCALING, InputSpec(width=10, height=10, mean=(3.0,), std=(4.0,), dtype="uint8")),
        (None, None, SEEN, SCALING | {"width": 11}, InputSpec(11, 10, mean=(3.0,), std=(4.0,), dtype="uint8")),
        (None, None, {}, SCALING | {"width": 1, "height": 2}, InputSpec(1, 2, mean=(3.0,), std=(4.0,))),
    ],
)
def test_flags_win_over_the_card_and_the_card_over_the_model(
    card: Card | None, known: InputSpec | None, seen: dict[str, Any], said: dict[str, Any], expected: InputSpec
) -> None:
    assert settle_input(card, known, seen, said) == expected


@pytest.mark.parametrize(
    ("seen", "said", "text"),
    [
        (SEEN, {}, "how this model wants its pixels scaled.*model_card.json.*--input-mean and --input-std"),
        (SEEN, {"mean": [0.0]}, "pixels scaled"),
        ({}, SCALING, "--input-width and --input-height"),
        ({"width": 8}, SCALING, "--input-width and --input-height"),
    ],
)
def test_what_nobody_knows_is_asked_for(seen: dict[str, Any], said: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        settle_input(None, None, seen, said)


def test_flags_speak_the_cards_words() -> None:
    said = WorkerSettings(input_width=7, input_mean="1,2,3", input_channels="BGR", input_layer="x").input_overrides()
    assert override(CARD.input, said) == InputSpec(7, 8, "BGR", mean=(1.0, 2.0, 3.0))
    assert input_spec({**SQUARE, "mean": 5}).mean == (5.0,)
    with pytest.raises(ConfigurationError, match=r"--input-std: 'a' is not a number"):
        WorkerSettings(input_std="a").input_overrides()


# -- labels ---------------------------------------------------------------------------------------------------------


def test_which_labels_are_taken(tmp_path: Path) -> None:
    named, beside = tmp_path / "named.txt", tmp_path / "beside"
    beside.mkdir()
    named.write_text("n1\nn2\n")
    card = Card(CARD.input, ("c1", "c2"))
    assert settle_labels("", None, beside, 2) == ("class 0", "class 1")
    (beside / "output_labels.txt").write_text("b1\nb2\n")
    assert settle_labels("", None, beside, 2) == ("b1", "b2")
    assert settle_labels("", CARD, beside, 2) == ("b1", "b2")  # a card without labels
    assert settle_labels("", card, beside, 2) == ("c1", "c2")
    assert settle_labels(str(named), card, beside, 2) == ("n1", "n2")


def test_labels_of_the_wrong_length_name_both_numbers(tmp_path: Path) -> None:
    named = tmp_path / "named.txt"
    named.write_text("background\na\nb\n")
    assert settle_labels(str(named), None, None, 3) == ("background", "a", "b")
    assert settle_labels(str(named), None, None, 2) == ("a", "b")  # older lists count a class 0 that others left out
    for outputs in (1, 4):
        with pytest.raises(ConfigurationError, match=rf"named.txt has 3 labels, but the model has {outputs} outputs"):
            settle_labels(str(named), None, None, outputs)
    with pytest.raises(ConfigurationError, match="the model card has 2 labels, but the model has 1 output"):
        settle_labels("", Card(CARD.input, ("a", "b")), None, 1)


@pytest.mark.parametrize("content", [None, b"daisy\n\xff\xfe\n"])
def test_a_labels_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cannot read the labels file .*labels\.txt"):
        read_labels(path)


def test_the_flags_arrive_as_the_card_wants_them() -> None:
    given = argparse.Namespace(input_width="32", input_height="24", input_mean="127.5", input_std="1,2,3")
    said = read_options(WorkerSettings, given, {}).input_overrides()
    spec = settle_input(None, None, {}, said)
    assert (spec.width, spec.height, spec.mean, spec.std) == (32, 24, (127.5,), (1.0, 2.0, 3.0))


def load(path: str) -> Model:
    return load_model("", 0, path, WorkerSettings(runtime="onnx"), 1)


def test_a_model_s_own_batching(tmp_path: Path) -> None:
    """Said by its card, which for a model of tensors may say nothing else."""
    pytest.importorskip("onnxruntime")
    path = makers.onnx_file(tmp_path, "shares", 0)
    assert load(path).wish is None

    write(tmp_path, {"batching": {"max": 8, "wait_ms": 2}})
    model = load(path)
    assert model.wish == Wish("given", Batching(8, True, 0.002))
    assert model.card is None
    assert "how this model wants its pixels scaled" in model.reason

    write(tmp_path, {"input": {"width": 4, "height": 4}, "batching": "off"})
    model = load(path)
    assert model.wish == Wish("off")
    assert model.card is not None

    write(tmp_path, {"batching": {"max": 0}})
    with pytest.raises(ConfigurationError, match=r"model_card\.json: batching max=0: max is at least 1"):
        load(path)
    write(tmp_path, {"btaching": "off"})
    with pytest.raises(ConfigurationError, match='with an "input" object'):
        load(path)


def test_a_python_model_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gathers.py").write_text(
        "class Gathers:\n    card = {'batching': {'max': 2}}\n    def __call__(self, batch):\n        return batch\n"
    )
    monkeypatch.chdir(tmp_path)
    model = load_model("", 0, "python:gathers:Gathers", WorkerSettings(), 1)
    assert model.wish == Wish("given", Batching(2, True))
    assert model.card is None
