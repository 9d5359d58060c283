"""Where an interrupted run stopped: OUT/.retrain, made while it runs, and removed once the version is published.

`checkpoint.npz` holds the head as it was (weights, moments, step, best, history) and what kind of run it was;
`network.weights.h5` the best network so far, if it was being fine-tuned, and `tuned.weights.h5` the one that was. A run of
another kind is not gone on with.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from .head import Head, HeadRecipe

log = logging.getLogger("fairway.training")

FOLDER = ".retrain"
ABOUT = "about"


class Checkpoint:
    """`about`: what a run must have in common with the one that is gone on with, as JSON values."""

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self.folder = out / FOLDER
        self.network = self.folder / "network.weights.h5"
        self.tuned = self.folder / "tuned.weights.h5"
        self._file = self.folder / "checkpoint.npz"
        self._about = dict(about)

    @property
    def exists(self) -> bool:
        return self._file.is_file()

    def save(self, head: Head) -> None:
        """Whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        with part.open("wb") as file:
            arrays: dict[str, Any] = {ABOUT: np.array(json.dumps(self._about)), **head.as_arrays()}
            np.savez(file, **arrays)
        part.replace(self._file)

    def save_network(self, network: Any, finished: bool) -> None:
        """The weights of a Keras model, whole or not at all. `finished`: nothing is left to be fine-tuned."""
        place = self.tuned if finished else self.network
        part = self.folder / "network.part.weights.h5"  # Keras wants this ending
        network.save_weights(part)
        part.replace(place)

    def load_network(self, network: Any) -> bool:
        """Puts the weights of an interrupted fine-tuning into a Keras model, if there are any -> whether it was finished.

        Raises ConfigurationError if they cannot be read.
        """
        found = next((path for path in (self.tuned, self.network) if path.is_file()), None)
        if found is not None:
            try:
                network.load_weights(found)
            except (OSError, ValueError, KeyError) as error:
                raise ConfigurationError(
                    f"--resume: {found} cannot be read; begin anew without --resume: {str(error)[:200]}"
                ) from error
        return found == self.tuned

    def load(self, recipe: HeadRecipe) -> Head | None:
        """None if there is none, or a broken one, which is said.

        Raises ConfigurationError if it is of a run with other settings.
        """
        if not self.exists:
            return None
        try:
            with self._file.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop(ABOUT)))
            head = Head.from_arrays(recipe, arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s); the run begins anew", self._file, error)
            self.remove()
            return None
        if other := sorted(name for name in self._about | about if self._about.get(name) != about.get(name)):
            raise ConfigurationError(
                f"--resume: the run that was interrupted had other settings ({', '.join(other)}); "
                "give the same, or begin anew without --resume"
            )
        return head

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
