"""The models that are served: which versions there are, which are loaded, and which one a request means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NotFound

if TYPE_CHECKING:
    from .model import Model


class Repository:
    def __init__(self, models: list[Model]) -> None:
        self._models = models

    def find(self, name: str = "", version: int | None = None, label: str = "") -> Model:
        """The version of `name` that is meant: of none said, the highest that is served. No name: the first model.

        Raises NotFound with TensorFlow Serving's texts.
        """
        for model in sorted(self._models, key=lambda model: -model.version):
            if (not name or model.name == name) and version in (None, model.version):
                return model
        raise NotFound(f"Servable not found for request: Latest({name})")
