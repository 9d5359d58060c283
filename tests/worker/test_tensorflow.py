"""The TensorFlow runtime: every kind of model it loads, made here in miniature, and what it says of those it cannot."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.card import Card
from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.tensor import Prediction

from .colours import LABELS, plain
from .tiny_models import build, keras

COLOURS = [("#c02020", "red"), ("#20c020", "green"), ("#2020c0", "blue")]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"))


def opened(model: Path | str, **settings: Any) -> Model:
    settings.setdefault("runtime", "tensorflow")
    return load_model("", 0, str(model), WorkerSettings(**settings), 1)


def card_of(model: Model) -> Card:
    assert model.card is not None, model.reason
    return model.card


def classified(model: Model, upload: bytes, top: int = 1) -> Prediction:
    """All the way of an upload: decoded, fed, named."""
    card = card_of(model)
    item = to_item(upload, card.input)
    fed = item if model.loaded.signatures[model.loaded.default].batch is None else item[None]
    scores = model.loaded.run({model.image_input: fed}, model.loaded.default)[model.scores]
    return Prediction.from_scores(scores.reshape(-1).tolist(), card.labels, top)


SCALE = {"input_mean": "0", "input_std": "255"}
SIZE = {"input_width": 4, "input_height": 4}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("float", {}),
    ("float/saved_model.pb", {}),
    ("bare", SCALE),
    ("one_1.0_4", SCALE),
    ("flat", SCALE | SIZE),
    ("sizeless", SCALE | SIZE),
    ("bytes", {}),
    ("encoded", {}),
    ("encoded-vague", {}),
    ("net.keras", {}),
    ("article/output_graph.pb", {}),
    ("graph.pb", SCALE),
    ("graph.pb", SCALE | {"input_layer": "input", "output_layer": "softmax:0"}),
]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize(("name", "settings"), KINDS, ids=[f"{name}{len(more)}" for name, more in KINDS])
def test_every_kind_of_model_answers(models: Path, name: str, settings: dict[str, Any], format: str) -> None:
    model = opened(models / name, **settings)
    named = settings == {}  # otherwise nothing tells what its outputs are called
    for number, (colour, label) in enumerate(COLOURS):
        prediction = classified(model, plain(colour, format=format), top=3)
        assert prediction.label == (label if named else f"class {number}")
        assert prediction.score == pytest.approx(0.75, abs=0.02)  # a JPEG's colours are nearly those that went in


def test_a_model_holds_what_it_needs(models: Path) -> None:
    model = opened(models / "float")
    gc.collect()
    assert (classified(model, plain("#c02020"))).label == "red"


@pytest.mark.parametrize("name", ["float", "bytes", "net.keras"])
def test_batches(models: Path, name: str) -> None:
    model = opened(models / name)
    batch = np.stack(
        [np.full((4, 4, 3), c, card_of(model).input.dtype) for c in ((192, 32, 32), (32, 192, 32), (8, 8, 80))]
    )
    scores = model.loaded.run({model.image_input: batch}, model.loaded.default)[model.scores]
    assert scores.shape == (3, 3)
    assert scores.dtype == np.float32
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


def test_how_many_items_a_call_takes(models: Path) -> None:
    def batch(name: str) -> int | None:
        model = opened(models / name, **SCALE)
        return model.loaded.signatures[model.loaded.default].batch

    assert (batch("float"), batch("one_1.0_4"), batch("article/output_graph.pb")) == (0, 1, None)


def test_of_numbered_versions_the_highest_is_taken(models: Path) -> None:
    model = opened(models / "many")  # 10, neither 2 nor the empty 11
    assert (model.name, model.version) == ("many", 10)
    assert (classified(model, plain("#c02020"))).label == "green"
    first = opened(models / "many" / "1")
    assert (first.name, first.version) == ("many", 1)
    assert (classified(first, plain("#c02020"))).label == "red"


def test_flags_override_the_card(models: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("rouge\nvert\nbleu\n")
    model = opened(models / "float", labels=str(names), input_channels="BGR", input_filter="nearest")
    assert (card_of(model).input.channels, card_of(model).input.std) == ("BGR", (255.0,))
    assert (classified(model, plain("#c02020"))).label == "bleu"


def test_loading_again_with_other_threads_is_no_error(models: Path) -> None:
    """TensorFlow settles its threads once in a process; a second model there must load all the same."""
    settings = WorkerSettings(runtime="tensorflow")
    loaded = [load_model("", 0, str(models / "float"), settings, threads) for threads in (1, 2, 3)]
    assert [model.loaded.streams for model in loaded] == [1, 2, 3]


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("nowhere", {}, "no such model: .*nowhere.*keras:NAME"),
    ("empty", {}, "empty: neither a model .* nor a folder of numbered versions"),
    ("file.txt", {}, "file.txt: not a kind of model that is known: expected a folder, or a file .*.keras.*.onnx"),
    ("broken.pb", {}, "broken.pb: not a frozen GraphDef"),
    ("broken.keras", {}, "broken.keras: Keras cannot load it|broken.keras"),
    ("broken", {}, "broken: TensorFlow cannot load it"),
    ("float", {"labels": "{}/two.txt"}, "two.txt has 2 labels, but the model has 3 outputs"),
    ("float", {"labels": "{}/missing.txt"}, "cannot read the labels file .*missing.txt"),
    ("float", {"runtime": "abacus"}, "--runtime abacus: expected one of auto, tensorflow"),
    ("article/output_graph.pb", {"output_layer": "softmax"}, "output_graph.pb: .*softmax"),
    ("article/output_graph.pb", {"input_layer": "Mul"}, "output_graph.pb: .*Mul"),
]


TENSORS: list[tuple[str, dict[str, Any], str]] = [
    ("no-scores", SCALE, "none of its outputs .*scores int64.* holds scores"),
    ("bare", {}, "--input-mean and --input-std"),
    ("bare", {"input_mean": "0"}, "--input-mean and --input-std"),
    ("sizeless", SCALE, "--input-width and --input-height"),
    ("two-inputs", SCALE, r"it takes 2 inputs \(image, mask\)"),
]


@pytest.mark.parametrize(("name", "settings", "text"), TENSORS, ids=[f"{m[0]} {m[2][:24]}" for m in TENSORS])
def test_what_cannot_be_fed_pictures_is_served_for_tensors(
    models: Path, name: str, settings: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = opened(models / name, **settings)
    assert model.card is None
    assert re.search(text, model.reason)
    assert f"{name} is served for tensors, not for pictures" in caplog.text
    inputs = {
        spec.name: np.ones((2, 4, 4, 3), np.float32) for spec in model.loaded.signatures["serving_default"].inputs
    }
    (answer,) = model.loaded.run(inputs, "serving_default").values()
    assert len(answer) == 2


def test_signatures_keep_their_methods(models: Path) -> None:
    model = opened(models / "several", **SCALE)
    said = {name: (s.method, s.inputs[0].name, s.batch) for name, s in model.loaded.signatures.items()}
    assert said == {
        "serving_default": ("predict", "image", 0),
        "strongest": ("classify", "inputs", 0),
        "brightness": ("regress", "inputs", 0),
    }
    images = np.full((2, 4, 4, 3), (1, 2, 1), np.float32)
    assert model.loaded.run({"inputs": images}, "strongest")["classes"].tolist() == [b"green", b"green"]
    assert model.loaded.run({"inputs": images}, "brightness")["outputs"].tolist() == [64.0, 64.0]


def test_what_cannot_be_frozen_is_called_by_its_signature(models: Path) -> None:
    """It looks its labels up in a table."""
    model = opened(models / "table")
    assert model.loaded.run({"image": np.array([b"green", b"red"], object)}, "serving_default")["scores"].tolist() == [
        1,
        0,
    ]


@pytest.mark.parametrize(("name", "settings", "text"), MISTAKES, ids=[f"{m[0]} {m[2][:24]}" for m in MISTAKES])
def test_mistakes_are_named(models: Path, tmp_path: Path, name: str, settings: dict[str, Any], text: str) -> None:
    for broken in ("broken.pb", "broken.keras", "file.txt", "broken/saved_model.pb"):
        (tmp_path / broken).parent.mkdir(exist_ok=True)
        (tmp_path / broken).write_bytes(b"\x0a\xff\xff\xff\xff\xff\xff\xff")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two.txt").write_text("a\nb\n")
    folder = tmp_path if (tmp_path / name).exists() else models
    filled = {key: value.format(tmp_path) if key == "labels" else value for key, value in settings.items()}
    with pytest.raises(ConfigurationError, match=text):
        opened(folder / name, **filled)


def test_a_model_is_called_by_its_folder_or_file(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(models / "one_1.0_4", **SCALE).name == "one_1.0_4"
    assert opened(models / "net.keras").name == "net"
    monkeypatch.chdir(models / "float")
    here = opened(".")
    assert (here.name, here.version, card_of(here).labels) == ("float", 1, LABELS)
    monkeypatch.chdir(models / "many")
    assert [(m.name, m.version) for m in (opened("."), opened("2"))] == [("many", 10), ("many", 2)]


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        ("MobileNetV9", "", "Keras has no such application; it has .*MobileNetV2"),
        ("Sequential", "", "Keras has no such application"),
        ("", "", "Keras has no such application"),
        ("MobileNetV2", "nowhere.weights.h5", "--weights nowhere.weights.h5: no such file"),
    ],
)
def test_keras_applications_that_cannot_be_had(name: str, weights: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        opened(f"keras:{name}", weights=weights)


def test_mobilenet_sees_the_cat(shared_data: Path) -> None:
    model = opened(
        "keras:MobileNetV2",
        weights=str(shared_data / "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"),
        labels=str(shared_data / "models/coral_tflite/imagenet_labels.txt"),
    )
    assert len(card_of(model).labels) == 1000  # the file's 1001 less "background"
    prediction = classified(model, (shared_data / "photos/cat_720p.jpg").read_bytes(), top=5)
    cats = {"tabby, tabby cat", "tiger cat", "Egyptian cat", "lynx, catamount", "Persian cat", "Siamese cat, Siamese"}
    assert prediction.label in cats
    assert sum(label in cats for label, _ in prediction) >= 2


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save_weights(other)
    with pytest.raises(ConfigurationError, match=r"keras:MobileNetV2: cannot load the weights from .*other.weights.h5"):
        opened("keras:MobileNetV2", weights=str(other))
