"""The command: every form of one net, served by our own loader; what is refused, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.export import __main__ as command
from fairway.worker.export.__main__ import export
from fairway.worker.export.destination import Destination
from fairway.worker.export.forms import FORMS as FORMS_OF
from fairway.worker.image import to_item
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.runtimes import conversion

from .. import tiny_models
from ..runtimes import makers
from . import nets

tf = pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.keras with its card, bare/net.keras without one, and pictures/."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "bare").mkdir()
    nets.save(nets.small_net(), folder)
    nets.save(nets.small_net(), folder / "bare", card=False)
    nets.save_pictures(folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    return nets.answers(nets.small_net(), folder / "pictures")


@pytest.fixture
def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """-> exit status, standard output, standard error. Names of files are meant in `folder`; `out` in `tmp_path`."""

    def run(model: str, to: str, out: str, *more: str) -> tuple[int, str, str]:
        status = export([str(folder / model), "--to", to, "--out", str(tmp_path / out), *more])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def load(path: Path, tmp_path: Path, runtime: str = "auto") -> Model:
    return load_model("", 0, str(path), WorkerSettings(runtime=runtime, choices=str(tmp_path / "choices")), 1)


def served(model: Model, pictures: Path) -> Any:
    """What a worker would answer to each, (n, classes)."""
    assert model.card is not None, model.reason
    items = [to_item(path.read_bytes(), model.card.input) for path in sorted(pictures.iterdir())]
    return np.concatenate(
        [model.loaded.run({model.image_input: item[None]}, model.loaded.default)[model.scores] for item in items]
    )


FORMS = [
    ("savedmodel", "flowers", "tensorflow", 1e-6),
    ("litert", "flowers.tflite", "litert", 1e-6),
    ("litert-dynamic", "flowers.tflite", "litert", 0.05),
    ("litert-int8", "flowers.tflite", "litert", 0.1),
    ("onnx", "flowers.onnx", "onnx", 1e-6),
]


@pytest.mark.parametrize(("to", "out", "runtime", "near"), FORMS, ids=[form[0] for form in FORMS])
def test_a_form_answers_as_the_model_does(
    to: str, out: str, runtime: str, near: float, run: Run, folder: Path, tmp_path: Path, expected: Any
) -> None:
    if to == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    status, said, _ = run("net.keras", to, out, "--images", str(folder / "pictures"))
    assert status == 0
    assert "12 of 12" in said
    assert f"written: {tmp_path / out}" in said
    model = load(tmp_path / out, tmp_path, runtime)
    np.testing.assert_allclose(served(model, folder / "pictures"), expected, atol=near)
    assert model.card is not None
    assert model.card.labels == nets.LABELS
    assert model.card.notes["about"] == "kept"
    assert model.card.notes["exported"]["form"] == to
    assert model.card.notes["exported"]["same_best_class"] == 12
    assert (model.image_input, model.scores) == ("image", "scores")
    assert model.loaded.signatures["serving_default"].batch == (1 if to == "litert-int8" else 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [out, *(["flowers.model_card.json"] if to != "savedmodel" else [])]
    )


def test_all_in_8_bits_is_all(run: Run, folder: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    assert run("net.keras", "litert-int8", "small.tflite", "--images", str(folder / "pictures"))[0] == 0
    interpreter = Interpreter(model_path=str(tmp_path / "small.tflite"))
    kinds = {np.dtype(detail["dtype"]) for detail in interpreter.get_tensor_details()}
    assert np.dtype(np.float32) not in kinds
    (fed,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (fed["dtype"], given["dtype"], fed["shape"].tolist()) == (np.uint8, np.uint8, [1, 16, 16, 3])
    said = json.loads((tmp_path / "small.model_card.json").read_text())["input"]
    assert said == {"width": 16, "height": 16, "resize": "crop", "dtype": "uint8"}  # the pixels as they are


def test_versions_of_a_saved_model(run: Run, tmp_path: Path, folder: Path) -> None:
    for number in (1, 2):
        status, said, _ = run("net.keras", "savedmodel", "net")
        assert (status, f"written: {tmp_path / 'net' / str(number)}" in said) == (0, True)
        assert "classify" in said
        assert "made from a seed" in said
    version = tmp_path / "net" / "2"
    assert json.loads((version / "model_card.json").read_text())["version"] == 2
    assert (version / "labels.txt").read_text().split() == list(nets.LABELS)
    status, said, _ = run(str(version.parent), "litert", "again.tflite")  # the highest one
    assert status == 0
    assert "differs" not in said


def test_without_a_card_random_numbers_are_compared(run: Run, tmp_path: Path) -> None:
    status, said, _ = run("bare/net.keras", "litert", "bare.tflite")
    assert status == 0
    assert "by random numbers" in said
    assert [p.name for p in tmp_path.iterdir()] == ["bare.tflite"]
    assert run("bare/net.keras", "savedmodel", "bare")[0] == 0
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == ["1"]
    assert not (tmp_path / "bare/1/model_card.json").exists()
    said_of_pixels = ("--input-mean", "127.5", "--input-std", "127.5")
    assert "8 of 8" in run("bare/net.keras", "litert", "told.tflite", *said_of_pixels)[1]


def test_signatures_keep_their_names_and_methods(run: Run, tmp_path: Path) -> None:
    tiny_models.several(tmp_path / "several")
    status, said, _ = run(str(tmp_path / "several"), "savedmodel", "out")
    assert status == 0, said
    before = load(tmp_path / "several", tmp_path, "tensorflow").loaded.signatures
    assert load(tmp_path / "out", tmp_path, "tensorflow").loaded.signatures == before
    status, _, err = run(str(tmp_path / "several"), "litert", "out.tflite")
    assert status == 0, err
    assert "the signature strongest has no place in this form" in err  # it gives texts
    assert set(load(tmp_path / "out.tflite", tmp_path, "litert").loaded.signatures) == {"serving_default", "brightness"}


def test_a_frozen_graph(run: Run, tmp_path: Path) -> None:
    graph = makers.frozen(tmp_path, "shares", 0)
    status, said, _ = run(graph, "litert", "out.tflite", "--input-mean", "0", "--input-std", "255")
    assert status == 0
    assert "8 of 8" in said


def test_what_decodes_by_itself_goes_to_a_saved_model_only(run: Run, tmp_path: Path) -> None:
    model = str(tiny_models.save(tmp_path / "encoded", tiny_models.decoded, (None,), tf.string))
    status, _, err = run(model, "litert", "out.tflite")
    assert (status, "decodes pictures by itself" in err) == (78, True)
    assert run(model, "savedmodel", "out")[0] == 0
    assert "classify" in load(tmp_path / "out", tmp_path, "tensorflow").loaded.signatures


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that loses something on the way."""
    honest = conversion.serving

    def serving(plain: Any, function: Any, naming: Any) -> Any:
        right = honest(plain, function, naming)

        def wrong(*tensors: Any) -> Any:
            return {name: tensor * 0.9 for name, tensor in right(*tensors).items()}

        return tf.function(wrong, input_signature=right.input_signature)

    monkeypatch.setattr(conversion, "serving", serving)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("to", "out"), [("litert", "net.tflite"), ("savedmodel", "net")])
def test_a_form_that_answers_otherwise_is_not_put_in_place(to: str, out: str, run: Run, tmp_path: Path) -> None:
    status, said, err = run("net.keras", to, out)
    assert status == 1
    assert "not written, as answers differ by 0." in err
    assert "8 of 8" in said
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    status, said, _ = run("net.keras", to, out, "--force")
    assert status == 1
    assert "although answers differ" in said
    assert (tmp_path / out).exists()


@pytest.mark.usefixtures("broken")
def test_more_may_be_allowed(run: Run, tmp_path: Path) -> None:
    assert run("net.keras", "litert", "net.tflite", "--tolerance", "0.2")[0] == 0


def test_what_is_there_stays_unless_it_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_text("mine")
    status, _, err = run("net.keras", "litert", "net.tflite")
    assert (status, "say --overwrite" in err) == (78, True)
    assert (tmp_path / "net.tflite").read_text() == "mine"
    assert run("net.keras", "litert", "net.tflite", "--overwrite")[0] == 0
    assert (tmp_path / "net.tflite").stat().st_size > 1000


def test_a_card_of_another_form_is_not_replaced(run: Run, folder: Path, tmp_path: Path) -> None:
    pictures = ("--images", str(folder / "pictures"))
    assert run("net.keras", "litert", "net.tflite", *pictures)[0] == 0
    (tmp_path / "net.tflite").rename(tmp_path / "net.onnx")  # as if it were one: floats are fed
    status, _, err = run("net.keras", "litert-int8", "net.tflite", *pictures)
    assert status == 78
    assert "net.model_card.json is the card of net.onnx, which is fed otherwise" in err


def test_a_card_that_says_how_a_model_is_called_stays(run: Run, folder: Path, tmp_path: Path) -> None:
    net, card = tmp_path / "net.keras", tmp_path / "net.model_card.json"
    net.write_bytes((folder / "bare/net.keras").read_bytes())
    card.write_text('{"batching": "off"}')
    status, _, err = run(str(net), "litert", "net.tflite")
    assert (status, card.read_text()) == (0, '{"batching": "off"}'), err
    status, _, err = run(str(net), "litert", "net.tflite", "--overwrite", "--input-mean", "0", "--input-std", "1")
    assert (status, card.read_text()) == (78, '{"batching": "off"}')
    assert "is the card of net.keras" in err
    card.write_text(json.dumps(nets.CARD))
    net.unlink()
    status, _, err = run("bare/net.keras", "litert", "net.tflite", "--overwrite")
    assert (status, json.loads(card.read_text())) == (78, nets.CARD)
    assert "this model takes none" in err


def test_what_a_card_says_of_accuracy_is_the_originals(run: Run, folder: Path, tmp_path: Path) -> None:
    net, beside = tmp_path / "net.keras", tmp_path / "net.model_card.json"
    net.write_bytes((folder / "net.keras").read_bytes())
    figures = {"test": {"photos": 10, "top_1": 0.9}, "validation": {"photos": 5}}
    beside.write_text(json.dumps(nets.CARD | figures | {"warmup": ["0.png"]}))
    assert run(str(net), "litert-dynamic", "eight.tflite")[0] == 0
    card = json.loads((tmp_path / "eight.model_card.json").read_text())
    assert card["original"] == figures
    assert not {"test", "validation", "warmup"} & set(card)
    assert run(str(net), "litert", "float.tflite")[0] == 0
    card = json.loads((tmp_path / "float.model_card.json").read_text())
    assert {name: card[name] for name in figures} == figures
    assert not {"original", "warmup"} & set(card)
    assert run(str(net), "litert-dynamic", "net.tflite")[0] == 0  # one card for both
    card = json.loads(beside.read_text())
    assert card.pop("exported")["form"] == "litert-dynamic"
    assert card == nets.CARD | figures | {"warmup": ["0.png"]}


def test_what_a_killed_export_left_is_removed_after_a_day(tmp_path: Path) -> None:
    for name, hours in ((".export-old", 25), (".export-new", 23), (".other", 99)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("")
        then = time.time() - hours * 3600
        os.utime(tmp_path / name, (then, then))
    with Destination(tmp_path / "x.tflite", FORMS_OF["litert"], "x", False).work():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".export-new", ".other"]


@pytest.mark.parametrize(
    ("model", "to", "out", "more", "text"),
    [
        ("nothing", "litert", "x.tflite", (), "no such model"),
        ("net.keras", "litert-int8", "x.tflite", (), "--to litert-int8 needs --images"),
        ("net.keras", "litert", "x.onnx", (), "its name must end in .tflite"),
        ("net.keras", "litert", "no/x.tflite", (), "there is no folder"),
        ("net.keras", "savedmodel", "file", (), "a file; versions of a SavedModel go into a folder"),
        ("net.keras", "litert", "x.tflite", ("--images", "nowhere"), "--images nowhere: no such folder"),
        ("net.keras", "litert", "x.tflite", ("--images", "{out}"), "no picture there that can be read"),
        ("net.keras", "litert", "x.tflite", ("--count", "0"), "--count: at least one"),
        ("net.keras", "litert", "x.tflite", ("--labels", "{out}/two.txt"), "has 2 labels, but the model has 3 outputs"),
        ("bare/net.keras", "litert", "x.tflite", ("--labels", "{out}/two.txt"), "--labels: there is nothing to name"),
        ("bare/net.keras", "litert-int8", "x.tflite", ("--images", "{out}"), "cannot be calibrated with pictures"),
    ],
)
def test_what_cannot_be_done_is_said(
    model: str, to: str, out: str, more: tuple[str, ...], text: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    status, _, err = run(model, to, out, *(word.replace("{out}", str(tmp_path)) for word in more))
    assert status == 78
    assert text in err
    assert not (tmp_path / out).exists() or out == "file"
    assert "Traceback" not in err


def test_only_what_tensorflow_reads(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("")
    status, _, err = run(str(tmp_path / "net.onnx"), "litert", "x.tflite")
    assert (status, "a model of the kind onnx cannot be exported" in err) == (78, True)


def test_what_is_missing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "tf2onnx" else name)
    status, _, err = run("net.keras", "onnx", "x.onnx")
    assert (status, "pip install 'fairway[tf2onnx]'" in err) == (78, True)


def test_the_folder_cannot_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    status, _, err = run("net.keras", "litert", "x.tflite")
    assert (status, "nothing can be written there: No space left on device" in err) == (78, True)


def test_help_is_light() -> None:
    """Nothing heavy is imported until there is something to do."""
    program = """
import sys
from fairway.worker.export.__main__ import export
try:
    export(["--help"])
finally:
    print("HEAVY", {"tensorflow", "numpy", "PIL"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "litert-int8 0.35" in " ".join(done.stdout.split()), done.stderr
    assert "HEAVY set()" in done.stdout
