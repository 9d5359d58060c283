"""What kind of model a path is, told by the names of files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.source import Source, find_source, numbered


def make(folder: Path, *names: str) -> Path:
    """Empty files: nothing is read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(path: Path | str) -> tuple[str, str, int]:
    source = find_source(str(path), WorkerSettings())
    return source.kind, source.name, source.version


@pytest.mark.parametrize(
    ("files", "path", "expected"),
    [
        (["m/saved_model.pb"], "m", ("savedmodel", "m", 1)),
        (["m/saved_model.pb"], "m/saved_model.pb", ("savedmodel", "m", 1)),
        (["m/7/saved_model.pb"], "m/7", ("savedmodel", "m", 7)),
        (["m/7/saved_model.pb", "m/10/saved_model.pb", "m/9/x"], "m", ("savedmodel", "m", 10)),
        (["m/3/model.onnx", "m/3/model.onnx.data"], "m", ("onnx", "m", 3)),
        (["m/3/model.savedmodel/saved_model.pb"], "m", ("savedmodel", "m", 3)),
        (["m/2/net.tflite", "m/2/labels.txt", "m/net.tflite"], "m", ("tflite", "m", 2)),
        (["net.keras"], "net.keras", ("keras", "net", 1)),
        (["net.h5"], "net.h5", ("keras", "net", 1)),
        (["graph.pb"], "graph.pb", ("frozen", "graph", 1)),
        (["a.b.tflite"], "a.b.tflite", ("tflite", "a.b", 1)),
        (["m.xml", "m.bin"], "m.xml", ("ir", "m", 1)),
        (["m.pt"], "m.pt", ("torchscript", "m", 1)),
        (["m.pt2"], "m.pt2", ("torchexport", "m", 1)),
        (["only/m.pt2", "only/model_card.json"], "only", ("torchexport", "m", 1)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_kinds(tmp_path: Path, files: list[str], path: str, expected: tuple[str, str, int]) -> None:
    assert found(make(tmp_path, *files) / path) == expected


def test_what_is_no_file() -> None:
    assert found("keras:MobileNetV2") == ("application", "MobileNetV2", 1)
    assert found("python:shop.models:make") == ("python", "models", 1)
    bundled = find_source("flowers", WorkerSettings())
    assert (bundled.kind, bundled.name, bundled.version, bundled.bundled) == ("savedmodel", "flowers", 1, True)


@pytest.mark.parametrize(
    ("files", "path", "text"),
    [
        ([], "nowhere", "no such model: .*nowhere; bundled: flowers; or a path"),
        (
            ["m.txt"],
            "m.txt",
            "m.txt: not a kind of model that is known: expected a folder, or a file that ends in .keras",
        ),
        (["m/1/readme"], "m", "neither a model .* nor a folder of numbered versions"),
        (["m/a.onnx", "m/b.onnx"], "m", "neither a model"),
    ],
)
def test_what_is_none(tmp_path: Path, files: list[str], path: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        found(make(tmp_path, *files) / path)


def test_weights_are_for_keras() -> None:
    with pytest.raises(ConfigurationError, match="--weights goes with --model keras:NAME"):
        find_source("flowers", WorkerSettings(weights="w.h5"))
    assert find_source("keras:VGG16", WorkerSettings(weights="w.h5")).target == "VGG16"


def test_numbers(tmp_path: Path) -> None:
    make(tmp_path, "1/saved_model.pb", "02/a.onnx", "3/empty", "x/saved_model.pb", "²/saved_model.pb", "4")
    assert {version: source.kind for version, source in numbered(tmp_path).items()} == {1: "savedmodel", 2: "onnx"}
    assert numbered(tmp_path / "nowhere") == {}


def test_the_files_of_a_model(tmp_path: Path) -> None:
    make(
        tmp_path,
        "m/saved_model.pb",
        "m/variables/v.data",
        "m/.fairway/x",
        "o.onnx",
        "o.onnx.data",
        "i.xml",
        "i.bin",
        "i.txt",
    )

    def names(path: str) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in find_source(str(tmp_path / path), WorkerSettings()).files()]

    assert names("o.onnx") == ["o.onnx", "o.onnx.data"]
    assert names("i.xml") == ["i.xml", "i.bin"]
    assert names("m")[0] == "m/saved_model.pb"
    assert Source("python", None, "m", target="m").files() == []
