"""--runtime auto: who is tried, who is passed over and why, and what is remembered. In real processes."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.runtimes import Options, apart, difference, installed, probes, record
from fairway.worker.source import find_source
from fairway.worker.tensor import Signature, TensorSpec

from . import makers

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

ROOT = Path(__file__).parents[3]
INSTALLED = [name for name in ("litert", "onnx", "openvino") if installed(name)]
IMAGES = np.random.default_rng(0).integers(1, 256, (3, 4, 4, 3)).astype(np.float32)


def load(path: Path | str, **settings: Any) -> Model:
    return load_model("", 0, str(path), WorkerSettings(**settings), 2)


def answered(model: Model) -> Any:
    return model.loaded.run({"image": IMAGES}, "serving_default")["scores"]


def shares() -> Any:
    amounts = IMAGES.sum((1, 2))
    return amounts / amounts.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """A model, whose engine has just been chosen."""
    folder = tmp_path_factory.mktemp("chosen")
    path = Path(makers.saved_model(folder, "shares", 0))
    return path, load(path, input_mean="0", input_std="255")


def test_all_that_are_installed_are_tried(chosen: tuple[Path, Model]) -> None:
    path, model = chosen
    report = model.report["runtime"]
    assert set(report["tried"]) == {"tensorflow", *INSTALLED}
    assert (report["reference"], report["cached"], report["tolerance"]) == ("tensorflow", False, 1e-4)
    for tried in report["tried"].values():
        assert tried["reason"] == ""
        assert tried["difference"] <= 1e-4
        assert all(rate > 0 for rate in tried["rates"].values())
    speeds = {
        name: probes.speed({int(size): rate for size, rate in tried["rates"].items()})
        for name, tried in report["tried"].items()
    }
    near = [name for name, speed in speeds.items() if speed >= 0.89 * max(speeds.values())]  # the report's are rounded
    assert report["chosen"] == model.loaded.runtime
    assert report["chosen"] in near
    assert all(tried["megabytes"] > 20 for tried in report["tried"].values())
    assert json.loads(json.dumps(report)) == report
    np.testing.assert_allclose(answered(model), shares(), atol=1e-5)
    assert not list((path.parent / record.FOLDER).glob("*/trial-*"))  # nothing is left lying about


STARTED = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from fairway.worker.config import WorkerSettings
from fairway.worker.loading import load_model
model = load_model("", 0, sys.argv[1], WorkerSettings(input_mean="0", input_std="255"), 2)
print("loaded", model.loaded.runtime, sorted({"tensorflow", "keras", "tf2onnx", "onnx"} & set(sys.modules)))
"""


def start(path: Path) -> subprocess.Popen[str]:
    """A process that loads the model as a worker does, and says how."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTED, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT / "src"
    )


def test_what_is_remembered_needs_no_tensorflow(chosen: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = chosen
    if model.loaded.runtime == "tensorflow":
        pytest.skip("TensorFlow is the fastest here")
    said, _ = start(path).communicate(timeout=60)
    assert said.splitlines() == [f"loaded {model.loaded.runtime} []"]
    again = load(path, input_mean="0", input_std="255")
    assert again.report["runtime"] == {**model.report["runtime"], "cached": True}
    assert again.loaded.signatures == model.loaded.signatures
    assert (again.card, again.image_input, again.scores) == (model.card, "image", "scores")
    np.testing.assert_array_equal(answered(again), answered(model))


def test_two_that_start_at_once_do_the_work_once(tmp_path: Path) -> None:
    path = Path(makers.saved_model(tmp_path, "shares", 0))
    processes = [start(path), start(path)]
    said = [process.communicate(timeout=170)[0] for process in processes]
    searched = [text for text in said if "choosing an engine for shares" in text and "trying" in text]
    assert len(searched) == 1
    assert len({text.splitlines()[-1].split()[1] for text in said}) == 1  # both run on the same engine
    assert any("another worker is choosing an engine for shares" in text for text in said)


def test_what_does_not_load_any_more_is_found_out_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(makers.saved_model(tmp_path, "shares", 0))
    first = load(path, runtime="litert")
    assert first.loaded.runtime == "litert"
    first.loaded.close()
    (file,) = (tmp_path / record.FOLDER).glob("*/litert.tflite")
    file.write_bytes(b"no model")
    again = load(path, runtime="litert")
    assert "is of no use any more" in caplog.text
    assert again.report["runtime"]["cached"] is False
    np.testing.assert_allclose(answered(again), shares(), atol=1e-5)


def test_another_model_at_the_same_place_is_another_model(tmp_path: Path) -> None:
    x = np.ones((1, 4), np.float32)
    for number in (2.0, 5.0):
        shutil.rmtree(tmp_path / "scaled", ignore_errors=True)
        model = load(makers.saved_model(tmp_path, "scaled", number), runtime="litert")
        assert model.report["runtime"]["cached"] is False
        assert model.loaded.run({"x": x}, "serving_default")["y"].tolist() == [[number] * 4]


def test_the_same_size_is_not_the_same_content(tmp_path: Path) -> None:
    def hashed(content: bytes, **settings: Any) -> str:
        (tmp_path / "m.onnx").write_bytes(content)
        return record.content_hash(find_source(str(tmp_path / "m.onnx"), WorkerSettings()), Options(1, **settings))

    assert hashed(b"one") == hashed(b"one")
    assert len({hashed(b"one"), hashed(b"two"), hashed(b"one", input_layer="x")}) == 3


@pytest.mark.parametrize("runtime", INSTALLED)
def test_every_signature_is_converted(tmp_path: Path, runtime: str) -> None:
    tf = pytest.importorskip("tensorflow")
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    signatures = {
        "serving_default": tf.function(lambda x: {"twice": x * 2.0}, input_signature=[spec]),
        "other": tf.function(lambda x: {"a": x + 1.0, "b": x - 1.0}, input_signature=[spec]),
    }
    tf.saved_model.save(tf.Module(), str(tmp_path / "two"), signatures=signatures)
    model = load(tmp_path / "two", runtime=runtime)
    x = np.array([[1, 2]], np.float32)
    assert model.loaded.runtime == runtime
    assert model.loaded.run({"x": x}, "serving_default")["twice"].tolist() == [[2, 4]]
    answer = model.loaded.run({"x": x}, "other")
    assert {name: array.tolist() for name, array in answer.items()} == {"a": [[2, 3]], "b": [[0, 1]]}


def test_numbers_that_openvino_counts_in_32_bits(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = load(makers.saved_model(tmp_path, "pair", 0))
    assert model.card is None
    assert "in 32 bits" in model.report["runtime"]["tried"]["openvino"]["reason"]
    assert model.loaded.runtime != "openvino"


def test_what_cannot_be_converted_runs_on_its_own_engine(tmp_path: Path) -> None:
    """Texts are for TensorFlow alone."""
    model = load(makers.saved_model(tmp_path, "text", 0))
    tried = model.report["runtime"]["tried"]
    assert model.loaded.runtime == "tensorflow"
    assert tried["litert"]["reason"]
    assert tried["tensorflow"]["rates"]


def test_an_unwritable_place_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = makers.saved_model(tmp_path, "shares", 0)
    model = load(path, runtime="litert", choices=str(tmp_path / "file" / "below"))
    np.testing.assert_allclose(answered(model), shares(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "runtime", "text"),
    [
        ("savedmodel", "abacus", "--runtime abacus: expected one of auto, tensorflow, litert"),
        ("savedmodel", "torch", "the torch runtime does not read it; tensorflow, openvino would|cannot be given it"),
        ("tflite", "tensorflow", "the tensorflow runtime does not read it; litert, openvino would"),
    ],
)
def test_engines_that_cannot_be_had(tmp_path: Path, kind: str, runtime: str, text: str) -> None:
    make = makers.saved_model if kind == "savedmodel" else makers.tflite
    with pytest.raises(ConfigurationError, match=text):
        load(make(tmp_path, "shares", 0), runtime=runtime)


@pytest.mark.parametrize(
    ("body", "text"),
    [("os.abort()", "killed by signal 6"), ("os._exit(3)", "exit status 3"), ("raise OSError('gone')", "gone")],
)
def test_an_engine_that_takes_its_process_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, text: str
) -> None:
    (tmp_path / "deadly.py").write_text(f"import os\n\ndef make():\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    request = {
        "do": "reference", "settings": {}, "path": "python:deadly:make", "threads": 1, "runtime": "python",
        "folder": str(tmp_path), "probe": True, "convert": [],
    }  # fmt: skip
    lines = list(apart.asked(request))
    assert text in lines[-1]["error"]


# -- comparing ------------------------------------------------------------------------------------------------------

RIGHT = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]], np.float32)


def compared(given: Any, right: Any = RIGHT, coarse: bool = False) -> difference.Comparison:
    return probes.compare({"s": [{"scores": right}]}, {"s": [{"scores": given}]}, "scores", coarse)


def test_rounding_is_no_difference() -> None:
    assert compared(RIGHT + np.float32(5e-5)).reason == ""
    swapped = RIGHT.copy()
    swapped[1] = (0.4 - 1e-5, 0.4, 0.2)  # the reference itself cannot tell these two apart
    assert compared(swapped).reason == ""


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a + np.float32(2e-4), "differ by 0.0002"),
        (lambda a: a * np.nan, "not finite"),
        (lambda a: a[:1], r"scores is float32\(1, 3\), not float32\(2, 3\)"),
        (lambda a: a.astype(np.float64), "scores is float64"),
    ],
)
def test_differences_are_told(change: Callable[[Any], Any], text: str) -> None:
    assert text.replace("\\", "") in compared(change(RIGHT)).reason


def test_large_numbers_may_differ_by_their_share() -> None:
    large = RIGHT * 1000
    assert compared(large + np.float32(0.05), large).reason == ""
    assert compared(large + np.float32(0.2), large).reason != ""


def test_less_than_float32_is_judged_coarsely() -> None:
    assert compared(RIGHT + np.float32(0.1), coarse=True).reason == ""
    close = np.array([[0.5, 0.45, 0.05], [0.5, 0.4, 0.1]], np.float32)
    assert "2 of 2 best classes differ" in compared(close[:, [1, 0, 2]], close, coarse=True).reason


def test_integers_must_be_equal() -> None:
    places = np.array([1, 2], np.int64)
    assert compared(places, places).reason == ""
    assert compared(places + 1, places).reason == "scores differs"


@pytest.mark.parametrize(
    ("rates", "chunk"),
    [
        ({1: 100.0, 8: 105.0, 32: 90.0}, 1),  # nothing is won by more
        ({1: 100.0, 8: 160.0, 32: 165.0}, 8),
        ({1: 100.0, 8: 160.0, 32: 300.0}, 0),
        ({1: 100.0}, 0),
    ],
)
def test_how_many_at_once_are_worth_it(rates: dict[int, float], chunk: int) -> None:
    assert probes.chunk_for(rates) == chunk


def test_probes_fit_their_signature() -> None:
    inputs = (
        TensorSpec("ids", "int64", (None, 7)),
        TensorSpec("words", "bytes", (None,)),
        TensorSpec("on", "bool", (None,)),
    )
    calls = probes.inputs_for(Signature("s", inputs, ()), None)
    assert [{name: array.shape for name, array in call.items()} for call in calls] == [
        {"ids": (count, 7), "words": (count,), "on": (count,)} for count in (1, 3)
    ]
    assert calls[0]["words"][0] == b"probe"
    with pytest.raises(ValueError, match="the shape of x is not known"):
        probes.inputs_for(Signature("s", (TensorSpec("x", "float32", None),), ()), None)


def test_progress_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fairway.worker")
    load(makers.saved_model(tmp_path, "shares", 0), runtime="litert")
    assert "trying litert ... " in caplog.text
    assert " items/s in batches of " in caplog.text
