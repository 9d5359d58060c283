"""What is known of one version of a model: its files, its signatures, its card, and what was found out about it.

It is loaded by the engine that defines its answers, the first of those that read its kind; no engine is tried or timed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..card import find_card
from ..errors import ConfigurationError
from ..export.forms import FORMS
from ..loading import ImageUse, as_image_model
from ..runtimes import Opened, Options, installed, open_source, reads
from ..source import SAVED_MODEL, SUFFIXES, Source, bundled, numbered
from ..tfrecord import read_records
from ..warmup import FILE as WARMUP_FILE
from .remembered import remembered
from .steps import steps

if TYPE_CHECKING:
    from ..config import WorkerSettings
    from ..offline import ModelSettings

SCHEMES = {"application": "keras", "python": "python"}  # what has no path, and is asked for by name


def facts(source: Source, settings: ModelSettings, versions: Mapping[int, Source]) -> dict[str, Any]:
    """Fit for JSON. `versions`: all that the parent of `source` holds, if it is one of them.

    `signatures`: name, method, batch (as in Signature), inputs and outputs, each of name, dtype and shape, whose null is
    any number. `pictures`: how a picture is fed and read, or null; then `reason` says what would have to be added. `card`,
    `labels`: what the worker would go by. `test`: the card's, as accuracy.Report writes it; `of_original`: of the
    model that this one was made from, which answers a little otherwise.

    Raises ConfigurationError for what a worker would refuse as well.
    """
    served = settings.served()
    opened, remark = _opened(source, served)
    try:
        use = as_image_model(source, opened, served)
        signatures = [asdict(signature) for signature in opened.signatures.values()]
        default, runtime = opened.default, opened.runtime
    finally:
        opened.close()
    notes = use.card.notes if use.card else {}
    test, of_original = accuracy_told(notes, source.kind)
    return {
        "model": source.name,
        "version": source.version,
        "kind": source.kind,
        "path": os.path.abspath(source.path) if source.path else None,
        "target": f"{SCHEMES[source.kind]}:{source.target}" if source.kind in SCHEMES else None,
        "bytes": _bytes(source, served),
        "files": len(source.files()),
        "versions": [
            {"version": version, "kind": one.kind, "path": os.path.abspath(str(one)), "bytes": _bytes(one, served)}
            for version, one in versions.items()
        ],
        "runtime": runtime,
        "remark": remark,
        "default": default,
        "signatures": signatures,
        "pictures": _pictures(use),
        "reason": use.reason,
        "labels": list(use.card.labels) if use.card else [],
        "card": _card_file(source),
        "description": _text(notes, "description"),
        "data": _text(notes, "data"),
        "test": test,
        "of_original": of_original,
        "warmup": _warmup(source, notes),
        "remembered": remembered(source, served),
    }


def versions_of(wanted: str) -> dict[int, Source]:
    """Those in the folder that `wanted` names; empty for what is one model itself."""
    if wanted.partition(":")[0] in ("keras", "python"):
        return {}
    path = bundled(wanted) or Path(wanted)
    return {} if (path / SAVED_MODEL).is_file() else numbered(path)


def accuracy_told(notes: Mapping[str, Any], kind: str) -> tuple[dict[str, Any] | None, bool]:
    """How the model did, and whether that is said of the one that it was exported from."""
    test, original, exported = (notes.get(name) for name in ("test", "original", "exported"))
    if isinstance(test, dict):  # of a card that lies beside both, it is said of the exact one
        form = FORMS.get(str(exported.get("form"))) if isinstance(exported, dict) else None
        return test, form is not None and not form.exact and SUFFIXES.get(form.suffix) == kind
    test = original.get("test") if isinstance(original, dict) else None
    return (test, True) if isinstance(test, dict) else (None, False)


def _opened(source: Source, served: WorkerSettings) -> tuple[Opened, str]:
    """And why it is not the engine that it should be. One that is asked for, or the first that can."""
    options = Options.of(served, 1)
    if served.runtime != "auto":
        return open_source(served.runtime, source, options), ""
    first, *others = [name for name in reads(source.kind) if installed(name)] or reads(source.kind)[:1]
    try:
        return open_source(first, source, options), ""
    except ConfigurationError as error:
        for name in others:
            try:
                return open_source(name, source, options), str(error)
            except ConfigurationError:
                continue
        raise  # what its own engine says is more to the point


def _pictures(use: ImageUse) -> dict[str, Any] | None:
    if use.card is None:
        return None
    return {
        "input": use.input,
        "scores": use.scores,
        "activation": use.card.activation,
        "steps": steps(use.card.input),
        "settings": asdict(use.card.input),
    }


def _bytes(source: Source, served: WorkerSettings) -> int:
    files = source.files() or ([Path(served.weights)] if served.weights else [])
    return sum(path.stat().st_size for path in files)


def _card_file(source: Source) -> str | None:
    found = find_card(source.path) if source.path else None
    return os.path.abspath(found) if found else None


def _text(notes: Mapping[str, Any], key: str) -> str:
    return str(notes[key]) if isinstance(notes.get(key), str) else ""


def _warmup(source: Source, notes: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a worker answers before anybody else's requests, see warmup.py; None: the model brings nothing for it."""
    file = source.folder / WARMUP_FILE if source.folder else None
    if file is not None and file.is_file():
        with file.open("rb") as stream:
            try:
                return {"file": str(file), "requests": sum(1 for _ in read_records(stream))}
            except ValueError as error:
                raise ConfigurationError(f"{file}: {error}") from error
    names = notes.get("warmup")
    if not isinstance(names, list) or not names:
        return None
    beside = Path(_card_file(source) or "").parent
    return {"pictures": [str(name) for name in names], "lacking": [n for n in names if not (beside / str(n)).is_file()]}
