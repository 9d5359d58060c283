"""Requests that a model answers before anybody else's: those that came with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .image import ImageLimits
    from .model import Model


def warm_up(model: Model, path: str, limits: ImageLimits) -> None:
    pass
