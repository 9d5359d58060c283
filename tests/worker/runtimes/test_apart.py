"""What a process of its own does for a worker that serves meanwhile; and what is kept of it, and for how long."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.runtimes import Options, apart, record
from fairway.worker.source import find_source

from . import makers

tf = pytest.importorskip("tensorflow")

IMAGES = np.random.default_rng(0).integers(1, 256, (3, 4, 4, 3)).astype(np.float32)


def load(path: Path | str) -> Model:
    return load_model("", 0, str(path), WorkerSettings(runtime="tensorflow", input_mean="0", input_std="255"), 2)


@pytest.fixture
def beside() -> Iterator[None]:
    token = apart.beside_others.set(True)
    yield
    apart.beside_others.reset(token)


def test_a_model_is_frozen_by_another_process(tmp_path: Path, beside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one reads nothing but the result."""
    from fairway.worker.runtimes import tensorflow

    path = makers.saved_model(tmp_path, "shares", 0)

    def never(*_: Any) -> Any:
        raise AssertionError("it was read here")

    with monkeypatch.context() as patch:
        patch.setattr(tensorflow, "read", never)
        model = load(path)
    apart.beside_others.set(False)
    usual = load(path)
    assert model.loaded.signatures == usual.loaded.signatures
    assert (model.card, model.image_input, model.scores) == (usual.card, usual.image_input, usual.scores)
    scores = model.loaded.run({"image": IMAGES}, "serving_default")["scores"]
    np.testing.assert_array_equal(scores, usual.loaded.run({"image": IMAGES}, "serving_default")["scores"])
    model.loaded.close()


def test_what_cannot_be_frozen_is_read_here(tmp_path: Path, beside: None) -> None:
    from .. import tiny_models

    tiny_models.table(tmp_path / "table")
    model = load(tmp_path / "table")
    assert model.loaded.runtime == "tensorflow"


def test_such_a_process_comes_after_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "polite.py").write_text("import os\n\ndef make():\n    raise OSError(f'nice {os.nice(0)}')\n")
    monkeypatch.chdir(tmp_path)
    request = {
        "do": "reference", "settings": {}, "path": "python:polite:make", "threads": 1, "runtime": "python",
        "folder": str(tmp_path), "probe": True, "convert": [],
    }  # fmt: skip
    assert f"nice {max(5, os.nice(0))}" in [*apart.asked(request)][-1]["error"]


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleepy.py").write_text("import threading\n\ndef make():\n    threading.Event().wait()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(apart, "LIMIT_SECONDS", 0.05)
    monkeypatch.setattr(apart, "starved", lambda pid: False)
    request = {
        "do": "reference", "settings": {}, "path": "python:sleepy:make", "threads": 1, "runtime": "python",
        "folder": str(tmp_path), "probe": True, "convert": [],
    }  # fmt: skip
    assert "it took longer than 0.05 s" in [*apart.asked(request)][-1]["error"]


@pytest.mark.parametrize(
    ("does", "lines", "how"),
    [
        ("sys.exit(3)", 0, "exit status 3"),  # before it read its request, which is larger than a pipe
        ("sys.exit('no such thing')", 0, "exit status 1): no such thing"),
        ("""os.write(fd, b'{"a": 1}\\n{"rat'); os.kill(os.getpid(), 9)""", 1, "killed by signal 9"),
        ("""os.write(fd, b'{"a": 1}\\n{"rat')""", 1, "exit status 0"),
    ],
)
def test_one_that_dies_midway_has_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, lines: int, how: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable} -S\nimport os, sys\nfd = int(sys.argv[-1])\n{does}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    *before, last = apart.asked({"do": "x" * 1_000_000})
    assert before == [{"a": 1}] * lines
    assert f"({how}" in last["error"]


def test_one_that_had_no_processor_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert apart.starved(os.getpid()) in (True, False)
        texts = {"ran": "900 100 5\n", "starved": "100 900 5\n", "odd": "what\n"}
        found = {}
        for name, text in texts.items():
            monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
            found[name] = apart.starved(waiting.pid)
        assert found == {"ran": False, "starved": True, "odd": False}
    finally:
        waiting.kill()
        waiting.communicate()
    monkeypatch.undo()
    assert not apart.starved(2**22 + 1)


def test_inputs_have_the_signature_s_names(tmp_path: Path) -> None:
    """Whatever the tensors are called: here `pixels:0`, as TensorFlow 1's exporters have it."""
    module = tf.Module()
    spec = tf.TensorSpec((None, 2), tf.float32, name="pixels")

    def twice(**inputs: Any) -> dict[str, Any]:
        return {"doubled": inputs["pixels"] * 2}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = tf.function(twice).get_concrete_function(pixels=spec)
        tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": function})
    from fairway.worker.runtimes import tensorflow_graphs

    loaded = tf.saved_model.load(str(tmp_path))
    concrete = loaded.signatures["serving_default"]
    concrete.structured_input_signature[1]["pixels"]._name = "pixels:0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_graphs.tf.saved_model, "load", lambda path: loaded)
        graphs = tensorflow_graphs.read(find_source(str(tmp_path), WorkerSettings()), Options(1))
    assert [spec.name for spec in graphs.functions["serving_default"].signature.inputs] == ["pixels"]


# -- what is kept -----------------------------------------------------------------------------------------------------

HASHES = ["0" * 32, "1" * 32, "2" * 32, "3" * 32]
DAY = 24 * 3600.0


def known(folder: Path, path: Path | str, age: float, reading: Any = None) -> Path:
    """What was found out about a content that lay at `path`, and was last used `age` seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"choice-{len(list(folder.iterdir()))}.json"
    record.write(file, {"format": record.FORMAT, "source": {"path": str(path), "reading": reading or []}})
    os.utime(file, (time.time() - age,) * 2)
    return folder


def test_contents_that_are_no_more_are_forgotten(tmp_path: Path) -> None:
    model, gone = tmp_path / "model.tflite", tmp_path / "old.tflite"
    model.touch()
    now = known(tmp_path / record.FOLDER / HASHES[0], model, 0)
    replaced = known(tmp_path / record.FOLDER / HASHES[1], model, 2 * DAY)
    (replaced / "onnx-0.onnx").write_bytes(bytes(100))
    left = known(tmp_path / record.FOLDER / HASHES[2], gone, 2 * DAY)
    assert record.tidy(now, time.time()) == [replaced.name, left.name]
    assert not replaced.exists()
    assert not left.exists()
    assert now.exists()


def test_and_nothing_else_is(tmp_path: Path) -> None:
    model, other, shelf = tmp_path / "model.tflite", tmp_path / "other.tflite", tmp_path / record.FOLDER
    model.touch()
    other.touch()
    now = known(shelf / HASHES[0], model, 0)
    kept = [
        known(shelf / HASHES[1], model, DAY / 2),  # a worker may still serve it
        known(shelf / HASHES[2], other, 9 * DAY),  # another model, in the same folder
        known(shelf / HASHES[3], model, 9 * DAY, ["other_layer"]),  # the same file, read otherwise
        known(shelf / "photos", model, 9 * DAY),  # no name of ours
        known(shelf / ("A" * 32), model, 9 * DAY),
        known(known(shelf / ("4" * 32), model, 9 * DAY), other, 0),  # found twice, and one of them is still there
        shelf / ("5" * 32),
        shelf / ("6" * 32),
    ]
    kept[-2].mkdir()  # somebody is just at it
    kept[-1].mkdir()
    (kept[-1] / "choice-0.json").write_text(json.dumps({"format": 1}))  # from before it was noted where things lay
    os.utime(kept[-1] / "choice-0.json", (0, 0))
    assert record.tidy(now, time.time()) == []
    assert all(folder.exists() for folder in kept)


def test_what_has_no_file_is_not_gone(tmp_path: Path) -> None:
    """Of Keras's applications: each is known by its name, and all of them lie nowhere."""
    now = known(tmp_path / HASHES[0], "", 0)
    other = known(tmp_path / HASHES[1], "", 9 * DAY)
    assert record.tidy(now, time.time()) == []
    assert other.exists()


def test_what_is_served_stays_however_long(tmp_path: Path) -> None:
    """An engine may open its files late."""
    pytest.importorskip("onnxruntime")
    path, other = Path(makers.onnx_file(tmp_path, "shares", 0)), tmp_path / HASHES[1]
    source, options = find_source(str(path), WorkerSettings()), Options(2)
    now = known(tmp_path / HASHES[0], path, 0)
    known(other, path, 9 * DAY)
    shutil.copy(path, other / "its.onnx")
    direct = record.open_choice(
        {"runtime": "onnx", "files": None, "bf16": False, "variant": ""}, other, source, options
    )
    files = dict.fromkeys(direct.signatures, "its.onnx")
    entry = {**record.described(direct), "runtime": "onnx", "files": files, "bf16": False, "variant": ""}
    opened = record.open_choice(entry, other, source, options)
    assert record.tidy(now, time.time()) == []
    assert (other / "its.onnx").exists()
    del opened
    assert record.tidy(now, time.time()) == [other.name]


def test_a_new_choice_tidies_up_and_an_old_one_is_used(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = Path(makers.onnx_file(tmp_path, "shares", 0))
    settings = WorkerSettings(input_mean="0", input_std="255")
    if not load_model("", 0, str(path), settings, 2).report["runtime"].get("tried"):
        pytest.skip("there is nothing to choose from")
    shelf = path.parent / record.FOLDER
    (first,) = (child for child in shelf.iterdir() if child.is_dir())
    (file,) = first.glob("choice-*.json")
    os.utime(file, (0, 0))
    load_model("", 0, str(path), settings, 2)
    assert time.time() - file.stat().st_mtime < DAY  # it was used
    os.utime(file, (0, 0))
    changed = onnx.load(path)
    changed.doc_string = "another content"
    onnx.save(changed, path)
    load_model("", 0, str(path), settings, 2)
    (second,) = (child for child in shelf.iterdir() if child.is_dir())
    assert second != first
