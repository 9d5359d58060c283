"""The version before: its engine is the likeliest for the next one, and all that needs to be tried.

A version comes while others serve. To try every engine on it takes minutes of a busy machine; one is enough if it still
answers as the model's own does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..source import Source, is_version
from . import Options, record


def found(folder: Path, file: str, source: Source, options: Options) -> dict[str, Any] | None:
    """The newest entry of a version beside `source`, or of what lay in its place; None if there is none.

    `folder`: of this content; those of others lie beside it. `file`: an entry's name, which stands for the machine.
    """
    if source.path is None:
        return None
    place = record.of_source(source, options)
    entries = []
    for path in sorted(folder.parent.glob(f"*/{file}"))[: record.MOST_LOOKED_AT]:
        entry = record.read(path) if path.parent != folder and record.CONTENT.fullmatch(path.parent.name) else None
        if entry and _is_near(entry.get("source"), place):
            entries.append((path.stat().st_mtime, entry))
    return max(entries, key=lambda each: each[0], default=(0.0, None))[1]


def holds(entry: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether a version came out as the one before: the same engine, called by the same signatures."""
    same = entry["report"]["chosen"] == earlier["report"]["chosen"]
    return same and json.loads(json.dumps(entry["signatures"])) == earlier["signatures"]


def _is_near(said: Mapping[str, Any] | None, place: Mapping[str, Any]) -> bool:
    if not said or said["reading"] != place["reading"]:
        return False
    there, here = Path(said["path"]), Path(place["path"])
    return there == here or (is_version(there) and is_version(here) and there.parent == here.parent)
