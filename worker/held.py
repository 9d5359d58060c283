"""One model's name, and all that a worker knows about it: what is wanted, what lies in its folder, what is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..registry.prometheus import family, label
from .errors import BadRequest, NotFound, NotReady
from .metrics import PREFIX

if TYPE_CHECKING:
    from .listing import Folder, Listing
    from .model import Model
    from .model_config import ModelEntry
    from .versions import Versions


@dataclass
class Held:
    """`models`: those that are served, by version. `tried`: what each version's listing was when it was loaded.

    `dropped`: nobody wants it any more; it is forgotten when it is unloaded. `counted`: it was there at the start, or was
    served since; what comes later and is not served yet makes nobody unready.
    """

    entry: ModelEntry
    folder: Folder | None
    versions: Versions
    models: dict[int, Model] = field(default_factory=dict)
    tried: dict[int, Listing] = field(default_factory=dict)
    leaving: set[asyncio.Task[None]] = field(default_factory=set)
    dropped: bool = False
    counted: bool = False
    loaded: int = 0  # how often that went well
    failed: int = 0

    @property
    def name(self) -> str:
        return self.entry.name

    def find(self, version: int | None = None, label: str = "") -> Model:
        """That version, the one that the label names, or the highest. Raises as Repository.find does."""
        if label:
            version = self.versions.labels.get(label)
            if version is None:
                raise BadRequest(f"Unrecognized servable version label: {label}")
        model = self.models.get(max(self.models, default=0) if version is None else version)
        if model is not None:
            return model
        if not self.versions.withdrawn:
            under_way = [s for s in self.versions.statuses() if s.state in ("START", "LOADING")]
            if any(version in (None, status.version) for status in under_way):
                raise NotReady(f"{self.name} is being loaded; try again in a while, or elsewhere")
        raise unknown(self.name, version)

    @property
    def why(self) -> str:
        """What keeps it from being served."""
        messages = [status.message for status in self.versions.statuses() if status.message]
        return messages[0] if messages else (self.folder.trouble if self.folder else "") or "no version of it was found"


def unknown(name: str, version: int | None) -> NotFound:
    sought = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return NotFound(f"Servable not found for request: {sought}")


def metrics(models: Iterable[Held], trouble: bool) -> str:
    """Of the versions' lives, in Prometheus's text format. `trouble`: something is wrong with folders or configuration."""
    lines: list[str] = []
    models = list(models)
    family(lines, PREFIX + "version_state", "gauge", "1 for the state that a version is in; code: why, if not OK")
    lines += [
        f'{PREFIX}version_state{{model="{label(one.name)}",version="{status.version}",state="{status.state}",'
        f'code="{status.code}"}} 1'
        for one in models
        for status in one.versions.statuses()
    ]
    for name, help in (("loaded", "versions that were loaded"), ("failed", "versions that could not be loaded")):
        family(lines, f"{PREFIX}versions_{name}", "counter", f"{help}, with repetitions")
        lines += [f'{PREFIX}versions_{name}{{model="{label(one.name)}"}} {getattr(one, name)}' for one in models]
    family(lines, PREFIX + "repository_trouble", "gauge", "1 while folders or the configuration cannot be read")
    lines.append(f"{PREFIX}repository_trouble {int(trouble)}")
    return "\n".join([*lines, ""])
