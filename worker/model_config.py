"""Which models a worker should serve: one, every one in a folder, or those of a file in TensorFlow Serving's text form.

    model_config_list {
      config {
        name: "flowers"
        base_path: "/models/flowers"
        model_platform: "tensorflow"
        model_version_policy { specific { versions: 1 versions: 2 } }
        version_labels { key: "stable" value: 1 }
      }
    }

Source: tensorflow_serving/config/model_server_config.proto. `base_path` is what --model takes; a relative one starts at
the file. `model_platform`: tensorflow leaves the choice to --runtime; the name of one of our runtimes forces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .errors import ConfigurationError
from .versions import Policy, check_labels

PLATFORMS = ("", "tensorflow", "litert", "onnx", "openvino", "torch", "python")


@dataclass(frozen=True)
class ModelEntry:
    """One model: `path` as --model takes it; `runtime`: empty where --runtime decides."""

    name: str
    path: str
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)
    runtime: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """All models that are to be served, in order: the first is meant where a request names none."""

    entries: tuple[ModelEntry, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        for entry in self.entries:
            if not entry.name or not entry.path:
                raise ConfigurationError(f"a model needs a name and a base_path; got {entry.name!r} and {entry.path!r}")
            if names.count(entry.name) > 1:
                raise ConfigurationError(f"the model {entry.name} is configured twice")
            check_labels(entry.labels)


class Wishes(Protocol):
    """Where it is said what to serve."""

    def read(self, now: float) -> ModelConfig:
        """The set as it is wanted now; reads the disk. Raises ConfigurationError: then the set stays as it was."""
        ...

    @property
    def unsettled(self) -> bool:
        """Somebody may be writing it just now; the set is the one from before."""
        ...


@dataclass(frozen=True)
class Fixed:
    """A set that was said once."""

    config: ModelConfig
    unsettled = False

    def read(self, now: float) -> ModelConfig:
        return self.config


@dataclass
class Directory:
    """Every child of a folder that has numbered versions."""

    path: Path
    policy: Policy
    labels: Mapping[str, int]
    unsettled = False
    _known: list[str] = field(default_factory=list)

    def read(self, now: float) -> ModelConfig:
        try:
            names = sorted(child.name for child in os.scandir(self.path) if self._is_model(child))
        except OSError as error:
            raise ConfigurationError(f"cannot read the models' folder {self.path}: {error.strerror}") from error
        if self._known and not names:
            raise ConfigurationError(f"{self.path} is empty all at once; what was served stays")
        # Whoever was there first stays the first: a newcomer's name does not make it the default.
        self._known = [name for name in self._known if name in names]
        self._known += [name for name in names if name not in self._known]
        return ModelConfig(
            tuple(ModelEntry(name, str(self.path / name), self.policy, self.labels) for name in self._known)
        )

    @staticmethod
    def _is_model(child: os.DirEntry[str]) -> bool:
        if child.name.startswith(".") or not child.is_dir():
            return False
        try:
            with os.scandir(child.path) as inside:  # most often left before its end
                return any(inner.name.isascii() and inner.name.isdigit() for inner in inside)
        except OSError:
            return False


class ConfigFile:
    """A file in TensorFlow Serving's text form, read again when it has changed and stood still for a while."""

    def __init__(self, path: Path, settle_seconds: float) -> None:
        self.path, self._settle = path, settle_seconds
        self._seen: tuple[int, int] | None = None  # its size, and when it changed
        self._tried: tuple[int, int] | None = None
        self._since = 0.0
        self._config: ModelConfig | None = None
        self._wrong = ""

    @property
    def unsettled(self) -> bool:
        return self._seen != self._tried

    def read(self, now: float) -> ModelConfig:
        """Raises ConfigurationError for as long as the file cannot be read, or says what cannot be."""
        try:
            stat = os.stat(self.path)
        except OSError as error:
            raise ConfigurationError(f"--model-config {self.path}: {error.strerror}") from error
        seen = (stat.st_size, stat.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._since = seen, now
        if self._config is None or (self.unsettled and now - self._since >= self._settle):
            self._tried = seen
            try:
                self._config, self._wrong = parse_config(self.path.read_text("utf-8"), self.path.parent), ""
            except (OSError, UnicodeDecodeError, ConfigurationError) as error:
                self._wrong = f"--model-config {self.path}: {error}"
        if self._wrong or self._config is None:
            raise ConfigurationError(self._wrong)
        return self._config


def parse_config(text: str, folder: Path) -> ModelConfig:
    """The text form of ModelServerConfig -> ModelConfig. Raises ConfigurationError saying where it is wrong."""
    try:
        from google.protobuf import text_format

        from .wire.protobuf import message
    except ImportError as error:
        raise ConfigurationError(
            f"TensorFlow Serving's configuration needs {error.name}: pip install 'fairway[grpc]'"
        ) from error
    parsed = message("tensorflow.serving.ModelServerConfig")()
    try:
        text_format.Parse(text, parsed)
    except text_format.ParseError as error:
        raise ConfigurationError(str(error)) from error
    return config_of(parsed, folder)


def config_of(parsed: Any, folder: Path | None = None) -> ModelConfig:
    """A ModelServerConfig message -> ModelConfig. Raises ConfigurationError."""
    if parsed.WhichOneof("config") != "model_config_list":
        raise ConfigurationError("expected a model_config_list")
    entries = []
    for one in parsed.model_config_list.config:
        if one.model_platform not in PLATFORMS:
            expected = ", ".join(filter(None, PLATFORMS))
            raise ConfigurationError(f"{one.name}: model_platform {one.model_platform!r}: expected one of {expected}")
        runtime = "" if one.model_platform == "tensorflow" else one.model_platform
        path = one.base_path
        if folder is not None and path and not path.startswith(("keras:", "python:")):
            path = str(folder / path)
        entries.append(ModelEntry(one.name, path, _policy(one.model_version_policy), dict(one.version_labels), runtime))
    return ModelConfig(tuple(entries))


def _policy(parsed: Any) -> Policy:
    read: Mapping[str | None, Callable[[], Policy]] = {
        None: Policy,
        "latest": lambda: Policy("latest", parsed.latest.num_versions or 1),
        "all": lambda: Policy("all"),
        "specific": lambda: Policy("specific", versions=frozenset(parsed.specific.versions)),
    }
    return read[parsed.WhichOneof("policy_choice")]()
