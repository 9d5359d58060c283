"""A further version: the engine of the one before is tried alone, and all of them where that one does not hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.runtimes import Options, installed, predecessor, record
from fairway.worker.source import Source

from . import makers

INSTALLED = [name for name in ("litert", "onnx", "openvino") if installed(name)]
FILE = "choice-0123456789abcdef.json"


def version(folder: Path, number: int, factor: float, model: str = "scaled") -> Path:
    """`folder`/number, published by renaming it there."""
    made = Path(makers.saved_model(folder.parent / f"made-{number}", model, factor))
    folder.mkdir(exist_ok=True)
    return made.rename(folder / str(number))


def load(path: Path) -> Model:
    return load_model("", 0, str(path), WorkerSettings(), 2)


@pytest.mark.skipif(len(INSTALLED) < 2, reason="there is but one engine to choose")
def test_a_version_runs_on_the_engine_of_the_one_before(tmp_path: Path) -> None:
    models = tmp_path / "numbers"
    first = load(version(models, 1, 2.0)).report["runtime"]
    assert set(first["tried"]) == {"tensorflow", *INSTALLED}
    second = load(version(models, 2, 5.0))
    report = second.report["runtime"]
    assert report["chosen"] == second.loaded.runtime == first["chosen"]
    assert set(report["tried"]) == {"tensorflow", first["chosen"]}
    assert "the version before" in report["because"]
    x = np.ones((1, 4), np.float32)
    assert second.loaded.run({"x": x}, second.loaded.default)["y"].tolist() == [[5.0] * 4]
    # One that is called otherwise is another model: all are tried.
    third = load(version(models, 3, 2.0, "pair")).report["runtime"]
    assert {"tensorflow", "litert"} < set(third["tried"])
    assert "the version before" not in third["because"]


def written(folder: Path, content: str, path: str, chosen: str, seconds: float) -> None:
    (folder / content).mkdir(parents=True)
    file = folder / content / FILE
    place = {"path": path, "reading": record.of_source(Source("savedmodel", None, "m"), Options(1))["reading"]}
    file.write_text(json.dumps({"format": record.FORMAT, "source": place, "report": {"chosen": chosen}}))
    os.utime(file, (seconds, seconds))


def test_whose_entry_is_meant(tmp_path: Path) -> None:
    contents = [letter * 32 for letter in "abcdef"]
    written(tmp_path, contents[0], "/models/m/1", "litert", 100.0)
    written(tmp_path, contents[1], "/models/m/2", "onnx", 300.0)
    written(tmp_path, contents[2], "/models/other/3", "openvino", 400.0)
    written(tmp_path, contents[3], "/models/m/notes", "tensorflow", 500.0)
    written(tmp_path, "no content", "/models/m/4", "tensorflow", 600.0)

    def chosen(path: str, of: str = contents[5]) -> str:
        found = predecessor.found(tmp_path / of, FILE, Source("savedmodel", Path(path), "m"), Options(1))
        return found["report"]["chosen"] if found else ""

    assert chosen("/models/m/9") == "onnx"  # the newest of its versions
    assert chosen("/models/m/9", contents[1]) == "litert"  # never its own
    assert chosen("/models/other/1") == "openvino"
    assert chosen("/models/m/notes") == "tensorflow"  # what lay in its place
    assert chosen("/models/new/1") == ""
    assert predecessor.found(tmp_path / contents[5], FILE, Source("python", None, "m"), Options(1)) is None
    otherwise = Options(1, input_layer="x")
    assert (
        predecessor.found(tmp_path / contents[5], FILE, Source("savedmodel", Path("/models/m/9"), "m"), otherwise)
        is None
    )
