"""`fairway show`: the same facts of every kind of model, for people and for programs, and nothing written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fairway.worker.card import InputSpec
from fairway.worker.label import label
from fairway.worker.show import show
from fairway.worker.show.facts import accuracy_told
from fairway.worker.show.page import page, shape, size, table
from fairway.worker.show.steps import steps

from ..conftest import ROOT
from .colours import plain
from .runtimes import makers

KINDS = {
    "savedmodel": makers.saved_model,
    "frozen": makers.frozen,
    "keras": makers.keras_file,
    "tflite": makers.tflite,
    "onnx": makers.onnx_file,
    "ir": makers.ir,
    "torchscript": makers.torch_script,
    "torchexport": makers.torch_export,
    "python": makers.python_module,
}


@pytest.fixture
def facts(capsys: pytest.CaptureFixture[str]) -> Any:
    def shown(model: str | Path, *more: str) -> dict[str, Any]:
        assert show([str(model), "--json", *more]) == 0, capsys.readouterr().err
        (line,) = capsys.readouterr().out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found

    return shown


@pytest.fixture
def text(capsys: pytest.CaptureFixture[str]) -> Any:
    def shown(model: str | Path, *more: str) -> str:
        assert show([str(model), *more]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return shown


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that is said of what cannot be shown."""
    assert show([str(argument) for argument in arguments]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("fairway: ")]
    return line


def within(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind: str, facts: Any, text: Any, tmp_path: Path) -> None:
    model = KINDS[kind](tmp_path, "shares", 1.0)
    before = within(tmp_path)
    found = facts(model)
    (signature,) = found["signatures"]
    assert (found["kind"], found["default"]) == (kind, signature["name"])
    assert (signature["name"], signature["method"]) == ("serving_default", "predict")
    ((image,), (scores,)) = signature["inputs"], signature["outputs"]
    if kind == "torchscript":  # which tells neither names of outputs nor shapes
        assert (image["shape"], scores["shape"]) == (None, None)
        return
    assert image == {"name": "image", "dtype": "float32", "shape": [None, 4, 4, 3]}
    assert scores["dtype"] == "float32"
    assert scores["shape"] == [None, 3]
    assert signature["batch"] == 0
    assert found["pictures"] is None
    assert "--input-mean" in found["reason"]
    assert found["remembered"] == []
    assert (found["bytes"] > 100) == (kind != "python")

    shown = text(model)
    assert re.search(r"^    in   image: +float32 \(\?, 4, 4, 3\)$", shown, re.MULTILINE)
    assert "It is served for tensors, not for pictures: it cannot be known" in shown
    fed = facts(model, "--input_mean=0", "--input_std", "255")
    assert fed["pictures"]["steps"][-2:] == ["pixel / 255", "float32"]
    assert fed["labels"] == ["class 0", "class 1", "class 2"]
    after = within(tmp_path)
    assert {path for path in after if "__pycache__" not in path} == set(before)


def test_a_model_without_pictures_is_shown_too(facts: Any, tmp_path: Path) -> None:
    found = facts(makers.onnx_file(tmp_path, "pair", 1.0))
    assert [tensor["dtype"] for tensor in found["signatures"][0]["inputs"]] == ["float32", "int64"]
    assert found["reason"] == "it takes 2 inputs (a, b); a picture is one"


FLOWERS = """
pictures
  decode, upright, the first frame
  crop the middle: shorter side to 128, cut 128 x 128 (bilinear)
  RGB
  pixels 0..255 as they are
  float32
  fed to image; scores are read from scores
"""
CONFUSED = """
              daisy  dandelion  roses  sunflowers  tulips
  daisy          27          0      1           0       2
  dandelion       0         27      0           1       2
"""


def test_the_bundled_model(text: Any) -> None:
    pytest.importorskip("tensorflow")
    shown = text("flowers")
    assert shown.startswith("flowers, version 1: SavedModel, 2.7 MB in 4 files\n")
    assert "    in   image:   float32 (?, ?, ?, 3)\n    out  scores:  float32 (?, 5)\n" in shown
    assert FLOWERS in shown
    assert "\nlabels\n  5: daisy, dandelion, roses, sunflowers, tulips\n" in shown
    assert "87.3% of 150 photos were called rightly (95 % interval: 81.1% to 91.7%)\n" in shown
    assert CONFUSED in shown


def test_several_signatures(text: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from .tiny_models import several

    several(tmp_path / "several")
    shown = text(tmp_path / "several")
    assert "strongest (classify; any number of items a call)\n" in shown
    assert "    out  classes:  bytes (?,)\n" in shown
    assert "brightness (regress; any number of items a call)\n" in shown
    assert "serving_default (predict; any number of items a call, the default)\n" in shown


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """9, which is broken, 10 and 11."""
    for number in (10, 11):
        (tmp_path / "many" / str(number)).mkdir(parents=True)
        makers.onnx_file(tmp_path / "many" / str(number), "shares", 1.0)
    (tmp_path / "many" / "9").mkdir()
    (tmp_path / "many" / "9" / "shares.onnx").write_bytes(b"no model")
    return tmp_path / "many"


def test_of_numbered_versions_the_highest_is_shown(versions: Path, facts: Any, text: Any) -> None:
    found = facts(versions)
    assert (found["model"], found["version"]) == ("many", 11)
    assert [one["version"] for one in found["versions"]] == [9, 10, 11]
    assert re.search(r"^   9  ONNX file  +8 bytes", text(versions), re.MULTILINE)
    assert re.search(r"^  11 .*11/shares.onnx  <- this one$", text(versions), re.MULTILINE)
    assert facts(versions / "10")["versions"] == []


def test_all_of_them(versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show([str(versions), "--all", "--json"]) == 78
    captured = capsys.readouterr()
    assert [json.loads(line)["version"] for line in captured.out.splitlines()] == [10, 11]
    assert re.search("^fairway: version 9: .*9/shares.onnx", captured.err, re.MULTILINE)


def test_what_auto_remembered(shared_data: Path, tmp_path: Path, facts: Any, text: Any, capsys: Any) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("openvino")
    model = tmp_path / "model.tflite"
    shutil.copy(shared_data / "models/coral_tflite/mobilenet_v1_0.25_128_quant.tflite", model)
    assert "nothing is remembered" in text(model)
    assert within(tmp_path).keys() == {str(tmp_path), str(model)}
    (tmp_path / "red.png").write_bytes(plain("red"))
    assert label(["--model", str(model), str(tmp_path / "red.png")]) == 0
    capsys.readouterr()
    before = within(tmp_path)
    (one,) = facts(model)["remembered"]
    assert (one["chosen"], one["reference"], one["precision"]) == ("litert", "litert", "exact")
    assert one["tried"]["litert"]["rates"]
    assert "uint8" in one["tried"]["openvino"]["reason"]
    assert one["file"].startswith(str(tmp_path / ".fairway"))
    shown = text(model)
    assert re.search(r"^    litert  .* items/s  in batches of \d+ +defines the answers$", shown, re.MULTILINE)
    assert re.search(r"^    openvino  .* passed over: ", shown, re.MULTILINE)
    assert within(tmp_path) == before


def test_warm_up(facts: Any, text: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(makers.onnx_file(tmp_path, "shares", 1.0))
    card: dict[str, Any] = {"input": {"width": 4, "height": 4, "std": 255}, "warmup": ["red.png", "blue.png"]}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    (tmp_path / "red.png").write_bytes(plain("red"))
    found = facts(model)
    assert found["warmup"] == {"pictures": ["red.png", "blue.png"], "lacking": ["blue.png"]}
    assert found["card"] == str(tmp_path / "model_card.json")
    assert "\nwarm-up\n  2 pictures of the card: red.png, blue.png\n  blue.png is not there\n" in text(model)

    (tmp_path / "assets.extra").mkdir()
    requests = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    requests.write_bytes(b"")
    assert facts(model)["warmup"] == {"file": str(requests), "requests": 0}
    requests.write_bytes(b"twelve bytes")
    assert "is this a TFRecord file" in refused(capsys, model)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.pb", "m.tflite", "m.onnx", "m.xml", "m/saved_model.pb"])
def test_a_broken_model_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = {"m.tflite": "ai_edge_litert", "m.onnx": "onnxruntime", "m.xml": "openvino"}.get(name, "tensorflow")
    pytest.importorskip(library)
    (tmp_path / "m").mkdir()
    (tmp_path / name).write_bytes(b"\xff\xfe no model at all" * 10)
    line = refused(capsys, tmp_path / name)
    assert str(tmp_path / name.removesuffix("/saved_model.pb")) in line


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["nothing"], "no such model: nothing; bundled: flowers"),
        ([str(ROOT / "docs")], "docs: neither a model .* nor a folder of numbered versions"),
        ([str(ROOT / "LICENSE")], "LICENSE: not a kind of model that is known"),
        (["python:tests.worker.odd_model:Moody", f"--labels={ROOT / 'LICENSE'}"], r"has \d+ labels, but .* 2 outputs"),
        (["python:tests.worker.odd_model:Moody", "--runtime=onnx"], "the onnx runtime does not read it; python would"),
        (["python:tests.worker.odd_model:Moody", "--input-mean=a"], "--input-mean: 'a' is not a number"),
    ],
)
def test_what_cannot_be(
    more: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert re.search(why, refused(capsys, *more))


def test_real_models(shared_data: Path, facts: Any, text: Any) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_litert")
    models = shared_data / "models"
    emnist = facts(models / "emnist_dl2prod")
    assert (emnist["kind"], emnist["default"]) == ("savedmodel", "serving_default")
    assert {s["name"]: (s["method"], s["inputs"][0]["name"], s["batch"]) for s in emnist["signatures"]} == {
        "predict_images": ("predict", "images", 1),
        "serving_default": ("classify", "inputs", 1),
    }
    assert emnist["signatures"][0]["outputs"] == [{"name": "scores", "dtype": "float32", "shape": [1, 62]}]
    keras = text(models / "mlcommons_tiny/pretrainedResnet.h5")
    assert "in   input_1:  float32 (?, 32, 32, 3)\n" in keras
    quantised = facts(models / "mlcommons_tiny/pretrainedResnet_quant.tflite")
    assert quantised["signatures"][0]["inputs"][0]["dtype"] == "int8"
    assert "pixel - 128" in quantised["pictures"]["steps"]
    coral, names = models / "coral_tflite", "--labels=" + str(models / "coral_tflite/imagenet_labels.txt")
    assert "\nlabels\n  1001: background; tench, Tinca tinca;" in text(
        coral / "mobilenet_v1_0.25_128_quant.tflite", names
    )


def test_another_engine_shows_what_its_own_refuses(shared_data: Path, text: Any) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    shown = text(shared_data / "models/emnist_dl2prod/dnn_model_pt.onnx")
    words = " ".join(shown.split())  # where lines end depends on how long the path is
    assert "Shown by openvino, as its own engine refuses it: " in words
    assert "in   flattened_rescaled_img_28x28:  float32 (1, 784)\n" in shown


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (InputSpec(kind="raw", resize="none"), "the upload as it is"),
        (InputSpec(kind="encoded", resize="none"), "JPEG as it came"),
        (InputSpec(224, 224, resize="crop", resize_to=256), "shorter side to 256, cut 224 x 224 (bilinear)"),
        (InputSpec(224, 224, resize="crop"), "shorter side to 224, cut 224 x 224"),
        (InputSpec(200, 100, resize="crop"), "scale until 200 x 100 is filled, cut 200 x 100"),
        (InputSpec(8, 4, resize="pad", filter="nearest"), "fit into 8 x 4, the rest black (nearest)"),
        (InputSpec(8, 4), "resize to 8 x 4, its aspect ratio ignored"),
        (InputSpec(resize="none"), "at its own size"),
        (InputSpec(8, 8, mean=(127.5,), std=(127.5,)), "(pixel - 127.5) / 127.5"),
        (InputSpec(8, 8, std=(255.0,)), "; pixel / 255;"),
        (InputSpec(8, 8, mean=(1.0, 2.0, 3.5), channels="BGR"), "BGR, blue first; pixel - (1, 2, 3.5);"),
        (InputSpec(28, 28, channels="L", flatten=True), "gray; pixels 0..255 as they are; one row of 784 numbers"),
        (InputSpec(8, 8, layout="chw", dtype="uint8"), "channels first; uint8"),
        (InputSpec(8, 8, reduced=True), "at a half, a quarter or an eighth"),
    ],
)
def test_steps_in_words(spec: InputSpec, words: str) -> None:
    assert words in "; ".join(steps(spec))


def test_sizes_and_shapes() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_743_471, 5_100_000_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "2.7 MB", "5.1 GB",
    ]  # fmt: skip
    assert [shape(s) for s in (None, [], [None], [1, None])] == ["of any shape", "()", "(?,)", "(1, ?)"]
    assert table([["a", "10"], ["long", "9", "x"]], right=(1,)) == ["a     10", "long   9  x"]


def judged(test: Any, of_original: bool = False) -> str:
    return page(
        {
            "model": "m", "version": 1, "kind": "onnx", "path": "/m.onnx", "bytes": 1, "files": 1, "versions": [],
            "description": "", "data": "", "remark": "", "signatures": [], "pictures": None, "reason": "", "card": "",
            "labels": [], "test": test, "of_original": of_original, "warmup": None, "remembered": [], "default": "",
        }
    )  # fmt: skip


def test_of_many_classes_the_commonest_mistakes_are_told() -> None:
    names = [f"n{i}" for i in range(1000)]
    confusion = {name: {other: int(name == other) for other in names} for name in names}
    confusion["n7"]["n8"], confusion["n1"]["n2"] = 12, 5
    shown = judged({"photos": 1017, "top_1": 0.983, "confusion_rows_are_truth": confusion})
    assert "98.3% of 1017 photos were called rightly\n" in shown
    assert "the commonest mistakes:\n  12  n7 called n8\n   5  n1 called n2\n" in shown


def test_accuracy_of_the_original_is_called_so() -> None:
    test = {"photos": 10, "top_1": 0.9}
    assert "\ntested\n  90.0% of 10 photos" in judged(test)
    assert "\ntested (of the original, which this form was made from)\n  90.0% of 10 photos" in judged(test, True)


@pytest.mark.parametrize(
    ("notes", "kind", "found"),
    [
        ({}, "tflite", (None, False)),
        ({"test": {"photos": 1}}, "tflite", ({"photos": 1}, False)),
        ({"original": {"test": {"photos": 1}}}, "tflite", ({"photos": 1}, True)),
        ({"original": "mine", "exported": []}, "tflite", (None, False)),
        # One card beside both: the figures are the Keras file's.
        ({"test": {"photos": 1}, "exported": {"form": "litert-int8"}}, "tflite", ({"photos": 1}, True)),
        ({"test": {"photos": 1}, "exported": {"form": "litert-int8"}}, "keras", ({"photos": 1}, False)),
        ({"test": {"photos": 1}, "exported": {"form": "litert"}}, "tflite", ({"photos": 1}, False)),
    ],
)
def test_whose_accuracy_a_card_tells(notes: dict[str, Any], kind: str, found: Any) -> None:
    assert accuracy_told(notes, kind) == found


def test_long_names_of_classes_give_way_to_numbers() -> None:
    names = [f"a class whose name is long, {i}" for i in range(1, 5)]
    shown = judged({"confusion_rows_are_truth": {name: {names[0]: 3} for name in names}})
    assert f"\n  2 {names[1]}  3  0  0  0\n" in shown


@pytest.mark.parametrize(
    "odd", [{"top_1": "good"}, {"confusion_rows_are_truth": [1]}, {"confusion_rows_are_truth": {"a": 1}}, {"a": {}}]
)
def test_a_card_says_what_it_likes(odd: dict[str, Any]) -> None:
    assert judged(odd).startswith("m, version 1")
