"""What kind of model a path is, told by its files alone: no runtime is imported, and no file is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .config import WorkerSettings
from .errors import ConfigurationError

Kind = Literal[
    "savedmodel", "frozen", "keras", "application", "tflite", "onnx", "ir", "torchscript", "torchexport", "python"
]  # fmt: skip

SUFFIXES: dict[str, Kind] = {
    ".keras": "keras",
    ".h5": "keras",
    ".pb": "frozen",
    ".tflite": "tflite",
    ".onnx": "onnx",
    ".xml": "ir",
    ".pt": "torchscript",
    ".pt2": "torchexport",
}

BUNDLED = Path(__file__).parent / "models"
SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True)
class Source:
    """A model that can be loaded.

    `path`: the folder of a SavedModel, else the model's file; None for what has no file (keras:NAME, python:...), which
    `target` then names. `name`, `version`: what the path suggests; 1 if it shows no number.
    """

    kind: Kind
    path: Path | None
    name: str
    version: int = 1
    target: str = ""

    @property
    def folder(self) -> Path | None:
        """Where its labels and its card may lie."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent

    @property
    def bundled(self) -> bool:
        """Part of this package: nothing is written beside it."""
        return self.path is not None and BUNDLED in self.path.absolute().parents

    def files(self) -> list[Path]:
        """All that it consists of, in a fixed order; empty for what has no file."""
        if self.path is None:
            return []
        if self.path.is_dir():
            inside = sorted(p for p in self.path.rglob("*") if p.is_file())
            return [p for p in inside if not any(part.startswith(".") for part in p.relative_to(self.path).parts)]
        beside = [self.path.with_suffix(".bin")] if self.kind == "ir" else []
        if self.kind == "onnx":  # its weights may lie in files of their own, under any name
            beside = [p for p in self.path.parent.glob(f"{self.path.name}*") if p != self.path]
            beside += [p for p in self.path.parent.glob("*.data") if p not in beside]
        return [self.path, *sorted(p for p in beside if p.is_file())]

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else self.target


def find_source(wanted: str, settings: WorkerSettings) -> Source:
    """`wanted` is what --model takes; of a folder of numbered versions the highest is meant.

    Raises ConfigurationError, which says what was expected.
    """
    scheme, _, target = wanted.partition(":")
    if settings.weights and scheme != "keras":
        raise ConfigurationError("--weights goes with --model keras:NAME; other models bring their own")
    if scheme == "keras":
        return Source("application", None, target or "keras", target=target)
    if scheme == "python":
        return Source("python", None, target.split(":")[0].rpartition(".")[2] or "python", target=target)
    path = bundled(wanted) or Path(wanted)
    if not wanted or not path.exists():
        raise ConfigurationError(
            f"no such model: {wanted}; bundled: {', '.join(_bundled_names())}; or a path, keras:NAME, or "
            "python:MODULE:FACTORY"
        )
    if path.name == SAVED_MODEL and path.is_file():
        path = path.parent
    # Numbers first: what else lies beside them is no version.
    versions = {} if (path / SAVED_MODEL).is_file() else numbered(path)
    if versions:
        return versions[max(versions)]
    if found := _source(path):
        return found
    if path.is_file():
        raise ConfigurationError(
            f"{path}: not a kind of model that is known: expected a folder, or a file that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    raise ConfigurationError(f"{path}: neither a model (e.g. with {SAVED_MODEL}) nor a folder of numbered versions")


def numbered(parent: Path) -> dict[int, Source]:
    """The versions in a folder: children whose name is a number, and which hold a model. Empty if there are none."""
    if not parent.is_dir():
        return {}
    children = [child for child in parent.iterdir() if is_version(child)]
    found = {int(child.name): _source(child) for child in children if child.is_dir()}
    return {version: source for version, source in sorted(found.items()) if source is not None}


def is_version(path: Path) -> bool:
    """True if its name is a number."""
    return path.name.isascii() and path.name.isdigit()


def bundled(name: str) -> Path | None:
    """The folder of the model of that name which came with this package."""
    return BUNDLED / name if name in _bundled_names() else None


def _bundled_names() -> list[str]:
    return sorted(p.name for p in BUNDLED.glob("*") if p.is_dir())


def _source(path: Path) -> Source | None:
    """A file of a known kind, a SavedModel, or a folder with one model in it."""
    whole = path.absolute()  # "." has no name
    if path.is_file():
        kind = SUFFIXES.get(path.suffix)
        return Source(kind, path, whole.stem) if kind and path.name != SAVED_MODEL else None
    name, version = (whole.parent.name, int(whole.name)) if is_version(whole) else (whole.name, 1)
    if (path / SAVED_MODEL).is_file():
        return Source("savedmodel", path, name, version)
    inside = [p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file()]
    folders = [p for p in path.iterdir() if (p / SAVED_MODEL).is_file() and not is_version(p)]
    if len(inside) == 1 and not folders:
        return Source(SUFFIXES[inside[0].suffix], inside[0], name if is_version(whole) else inside[0].stem, version)
    if len(folders) == 1 and not inside and is_version(whole):
        return Source("savedmodel", folders[0], name, version)
    return None
