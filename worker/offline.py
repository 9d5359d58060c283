"""What commands have in common that load a model and serve nothing: a worker's options, and how they end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..registry.options import option
from ..registry.process import EXIT_CONFIGURATION
from .config import Precision, WorkerSettings
from .errors import ConfigurationError, WorkerError


def as_served(name: str) -> Any:
    """An option that a worker has as well, and that means the same there."""
    served = WorkerSettings.__dataclass_fields__[name]
    return option(served.default, served.metadata["help"], served.metadata["env"])


@dataclass(frozen=True)
class Reading:
    """What a model is, and how pictures are made for it: a worker's words, for commands that serve nothing."""

    weights: str = as_served("weights")
    labels: str = as_served("labels")
    input_width: int | None = as_served("input_width")
    input_height: int | None = as_served("input_height")
    input_channels: str | None = as_served("input_channels")
    input_resize: str | None = as_served("input_resize")
    input_filter: str | None = as_served("input_filter")
    input_mean: str | None = as_served("input_mean")
    input_std: str | None = as_served("input_std")
    input_layer: str = as_served("input_layer")
    output_layer: str = as_served("output_layer")

    def served(self) -> WorkerSettings:
        """Those of a worker that would serve the same."""
        known = {f.name for f in fields(WorkerSettings)}
        return WorkerSettings(**{f.name: getattr(self, f.name) for f in fields(self) if f.name in known})


@dataclass(frozen=True)
class ModelSettings(Reading):
    """And by which engine it runs."""

    runtime: str = as_served("runtime")
    precision: Precision = as_served("precision")
    choices: str = as_served("choices")


def dashed(arguments: Sequence[str]) -> list[str]:
    """Flags spelt with underscores, as TensorFlow's scripts had them, with dashes."""
    line, found = list(arguments), []
    while line and line[0] != "--":
        word = line.pop(0)
        flag, equals, value = word.partition("=")
        found.append(f"{flag.replace('_', '-')}{equals}{value}" if word.startswith("--") else word)
    return found + line


def log_from(level: str, format: str = "%(asctime)s %(name)s: %(message)s") -> None:
    """Ours from `level` on, or FAIRWAY_LOG_LEVEL; of the libraries' logs only warnings."""
    logging.basicConfig(level="WARNING", format=format, datefmt="%H:%M:%S")
    logging.getLogger("PIL").setLevel("CRITICAL")  # what is wrong with a file is said once
    logging.getLogger("fairway").setLevel(os.environ.get("FAIRWAY_LOG_LEVEL", level).upper())


@contextlib.contextmanager
def ended() -> Iterator[list[int]]:
    """The exit status of what is done meanwhile, which is at the end of the list: errors we know are one line, and no
    traceback."""
    status = [0]
    try:
        yield status
    except ConfigurationError as error:
        print(f"fairway: {' '.join(str(error).split())}", file=sys.stderr)
        status.append(EXIT_CONFIGURATION)
    except BrokenPipeError:  # `fairway label photos/ | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status.append(0)
    except (OSError, WorkerError) as error:  # a full disk, a folder that was taken away or a photo that broke meanwhile
        print(f"fairway: {error}", file=sys.stderr)
        status.append(1)
    except KeyboardInterrupt:
        status.append(130)


def missing(command: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"`{command}` needs more than the light installation ({error.name} is missing): pip install 'fairway[tensorflow]'"
    )
