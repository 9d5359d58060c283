"""What `--runtime auto` found out about a model, wherever a worker may have left it. Read only: no folder is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtimes import Options, record

if TYPE_CHECKING:
    from ..config import WorkerSettings
    from ..source import Source

KEPT = ("chosen", "reference", "because", "precision", "tolerance", "tried")


def remembered(source: Source, served: WorkerSettings) -> list[dict[str, Any]]:
    """The newest first: there is one for each machine, number of threads and precision that it was asked for.

    Each: `chosen`, `reference`, `because`, `precision`, `tolerance`, `tried` as choice.py reports them, `when` (seconds
    since 1970) and `file`.
    """
    try:
        content = record.content_hash(source, Options.of(served, 1))
    except OSError:  # it changes while it is looked at
        return []
    folders = dict.fromkeys((record.folder_for(source, served.choices), record.user_cache()))
    found = [one for folder in folders for one in _in(folder / content)]
    return sorted(found, key=lambda one: -float(one["when"]))


def _in(folder: Path) -> list[dict[str, Any]]:
    found = []
    for file in sorted(folder.glob("choice-*.json")):
        entry = record.read(file)
        report = entry.get("report") if entry else None
        if isinstance(report, dict) and isinstance(report.get("tried"), dict):
            kept = {key: report[key] for key in KEPT if key in report}
            found.append({**kept, "when": round(file.stat().st_mtime), "file": str(file)})
    return found
