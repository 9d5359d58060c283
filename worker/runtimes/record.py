"""What was found out about a model, kept beside it: its signatures, and which engine runs it best on which machine.

A folder for each content of a model, named by its hash: converted files, and `choice-<key>.json`, whose key stands for
everything else that the choice depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Protocol

from ..card import input_spec
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Converted, Hints, Opened, Options, open_converted, open_source

FORMAT = 2
CONTENT = re.compile("[0-9a-f]{32}")  # what content_hash gives
KEPT_SECONDS = 24 * 3600.0
MOST_LOOKED_AT = 1000
FOLDER = ".fairway"
PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tf2onnx"),
    "litert": ("ai-edge-litert",),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
}
LOCK_SECONDS = 600.0  # how long another process may be at it
LOCK_POLL = 0.2
LOCK_REMARK = 10.0

log = logging.getLogger("fairway.worker")


def content_hash(source: Source, options: Options) -> str:
    """Of the model's files, and of what it is read by."""
    said = hashlib.sha256(json.dumps([FORMAT, source.kind, source.target, _reading(options)]).encode())
    files = [*source.files(), *([Path(options.weights)] if options.weights else [])]
    for path in files:
        said.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                said.update(piece)
    return said.hexdigest()[:32]


def machine_key(options: Options, precision: str, candidates: list[str]) -> str:
    """Of everything else that decides which engine is the fastest."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "precision": precision,
        "candidates": candidates,
        "versions": {name: versions for name, packages in PACKAGES.items() if (versions := _versions(packages))},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def folder_for(source: Source, choices: str) -> Path:
    """Where what is found out about `source` belongs: where the user says, beside the model, or in the user's cache."""
    if choices:
        return Path(choices)
    if source.path is not None and not source.bundled and os.access(source.path.parent, os.W_OK):
        return source.path.parent / FOLDER
    return user_cache()


def user_cache() -> Path:
    """Where the user's programs keep what can be found out again."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "fairway"


@contextlib.contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """One process at a time; the others say that they wait, and after ten minutes do without."""
    try:
        import fcntl
    except ImportError:  # no such locks: at worst the work is done twice
        yield
        return
    with (folder / "lock").open("a") as file:
        begun = remarked = time.monotonic()
        while (now := time.monotonic()) - begun < LOCK_SECONDS:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if now - remarked > LOCK_REMARK or remarked == begun:
                    log.info("another worker is %s; waiting for it (%.0f s)", doing, now - begun)
                    remarked = now + 0.001
                time.sleep(LOCK_POLL)
        yield


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    waiting = path.with_name(f"{path.name}.{os.getpid()}")
    waiting.write_text(json.dumps(found, indent=1), "utf-8")
    waiting.replace(path)


def of_source(source: Source, options: Options) -> dict[str, Any]:
    """Where an entry's content was found, and how it was read: by this it is known when other content took its place."""
    return {"path": str(source.path.absolute()) if source.path else "", "reading": _reading(options)}


def used(path: Path) -> None:
    """So that it is not taken for forgotten."""
    with contextlib.suppress(OSError):
        path.touch()


def _held(folder: Path, alone: bool = False) -> int | None:
    """A file descriptor; until it is closed, nobody removes the folder, and if `alone` nobody opens what is in it.

    None: it cannot be had alone, or not be told, as on some networks' disks; -1: there are no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return -1
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except OSError:
        os.close(place)
        return None
    return place


def _let_go(place: int | None) -> None:
    if place is not None and place >= 0:
        os.close(place)


def tidy(folder: Path, now: float) -> list[str]:
    """Removes what was found out about contents that are no more, beside `folder`, which was just written.

    Only folders of our own names. A content is no more when its files are gone, or others stand in their place, and nobody
    has opened it for a day, nor has it open now: a worker that still serves it may yet read its files. What has no file, as
    `keras:NAME`, is never gone. `now`: seconds since 1970. -> the names that were removed.
    """
    mine = [read(path) or {} for path in folder.glob("choice-*.json")]
    places = [entry["source"] for entry in mine if entry.get("source")]
    gone: list[str] = []
    for other in sorted(folder.parent.iterdir())[:MOST_LOOKED_AT]:
        if other == folder or not CONTENT.fullmatch(other.name) or not other.is_dir() or other.is_symlink():
            continue
        files = list(other.glob("choice-*.json"))
        said = [(read(path) or {}).get("source") for path in files]
        stale = [p and p["path"] and (p in places or not os.path.exists(p["path"])) for p in said]
        if files and all(stale) and max(path.stat().st_mtime for path in files) < now - KEPT_SECONDS:
            try:
                place = _held(other, alone=True)
            except OSError:  # somebody was quicker
                continue
            if place is not None:
                shutil.rmtree(other, ignore_errors=True)
                gone.append(other.name)
                _let_go(place)
    return gone


def read(path: Path) -> dict[str, Any] | None:
    """None if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


class Describable(Protocol):
    """A model as far as a record tells of it."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    @property
    def default(self) -> str: ...
    @property
    def hints(self) -> Hints: ...


def described(opened: Describable) -> dict[str, Any]:
    """An opened model's signatures and hints, fit for JSON."""
    hints = opened.hints
    return {
        "signatures": [asdict(signature) for signature in opened.signatures.values()],
        "default": opened.default,
        "hints": {
            "input": asdict(hints.input) if hints.input else None,
            "labels": list(hints.labels),
            "card": dict(hints.card),
        },
    }


def converted_from(entry: Mapping[str, Any], folder: Path, source: Source) -> Converted:
    """What `described` gave, with files: their names in `folder`, or none for the model's own file."""
    signatures = {raw["name"]: _signature(raw) for raw in entry["signatures"]}
    hints = Hints(
        input_spec(entry["hints"]["input"]) if entry["hints"]["input"] else None,
        tuple(entry["hints"]["labels"]),
        entry["hints"]["card"],
    )
    if entry["files"]:
        files = {name: folder / file for name, file in entry["files"].items()}
        return Converted(files, signatures, entry["default"], hints, entry["variant"])
    assert source.path is not None, "only files are read by two engines"
    files = dict.fromkeys(signatures, source.path)
    return Converted(files, signatures, entry["default"], hints, entry["variant"], numbered=False)


def _signature(raw: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        tuple(
            TensorSpec(tensor["name"], tensor["dtype"], None if tensor["shape"] is None else tuple(tensor["shape"]))
            for tensor in raw[side]
        )
        for side in ("inputs", "outputs")
    )
    return Signature(raw["name"], inputs, outputs, raw["method"], raw["batch"])


def _reading(options: Options) -> list[Any]:
    return [options.input_layer, options.output_layer, options.labelled]


def _versions(packages: tuple[str, ...]) -> list[str]:
    found = []
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version_of(package)}")
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def open_choice(entry: Mapping[str, Any], folder: Path, source: Source, options: Options) -> Opened:
    """The model by the engine that an entry names, from the files in `folder`, or its own. Raises whatever that raises."""
    options = replace(options, bf16=entry["bf16"], chunk=entry.get("chunk", 0))
    if entry["files"] is None:
        return open_source(entry["runtime"], source, options)
    place = _held(folder)  # engines open files late as well: for a further thread, or for all cores
    try:
        opened = open_converted(entry["runtime"], converted_from(entry, folder, source), options)
    except BaseException:
        _let_go(place)
        raise
    weakref.finalize(opened, _let_go, place)
    return opened
