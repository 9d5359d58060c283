"""Where an exported model goes: a file with its card beside it, or the next version in a folder. Whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..card import CARD_FILE, Card, InputSpec, parse_card, read_notes
from ..errors import ConfigurationError
from ..source import SUFFIXES
from ..training.publishing import check_folder, publish
from .forms import Form

WORK = ".export-"
STALE = 24 * 3600.0  # seconds: no export takes that long, so what is older was left by one that was killed
OF_THE_ORIGINAL = ("test", "validation")  # what a card says of how good the model is


class Destination:
    """`path`: what --out says; of a folder that is there, a file called `name` in it is meant.

    Raises ConfigurationError for what cannot be written, before any work was done.
    """

    def __init__(self, path: Path, form: Form, name: str, overwrite: bool) -> None:
        self._form, self._overwrite = form, overwrite
        if form.suffix and path.is_dir():
            path = path / f"{name}{form.suffix}"
        self.path = path
        if not form.suffix:
            if path.exists() and not path.is_dir():
                raise ConfigurationError(f"--out {path}: a file; versions of a SavedModel go into a folder")
            check_folder(path)
            return
        if path.suffix != form.suffix:
            raise ConfigurationError(
                f"--out {path}: its name must end in {form.suffix}: by that a worker knows its kind"
            )
        if not path.parent.is_dir():
            raise ConfigurationError(f"--out {path}: there is no folder {path.parent}")
        if path.exists() and not overwrite:
            raise ConfigurationError(f"--out {path} is there already; say --overwrite to replace it")

    @property
    def card(self) -> Path:
        """Of a file: the card's place beside it."""
        return self.path.with_name(f"{self.path.stem}.{CARD_FILE}")

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A hidden folder on the same disk, which no worker looks at, and which does not last."""
        within = self.path.parent if self._form.suffix else self.path
        _sweep(within)
        try:
            folder = tempfile.TemporaryDirectory(dir=within, prefix=WORK, ignore_cleanup_errors=True)
        except OSError as error:
            raise ConfigurationError(f"--out {self.path}: nothing can be written there: {error.strerror}") from error
        with folder as name:
            yield Path(name)

    def check_card(self, card: Card | None) -> None:
        """`card`: that of the new file; None for a model that takes no pictures.

        Raises ConfigurationError if a card that says otherwise has the place that is needed: the new file would be served
        by it, or other files by the new one's.
        """
        if not self._form.suffix or not self.card.is_file():
            return
        notes = read_notes(self.card)
        if card is None:
            if "input" not in notes:  # it says how a model is called, not how pictures are fed
                return
            raise ConfigurationError(
                f"--out {self.path}: {self.card.name} says how pictures are fed, and this model takes none as it is read; "
                "choose another name"
            )
        if "input" in notes:
            there = parse_card(notes, self.card)
            if (there.input, there.labels, there.activation) == (card.input, card.labels, card.activation):
                return
        if others := self._others():
            raise ConfigurationError(
                f"--out {self.path}: {self.card.name} is the card of {', '.join(others)}, which is fed otherwise; "
                "choose another name"
            )
        if not self._overwrite:
            raise ConfigurationError(f"{self.card} is there already; say --overwrite to replace it")

    def _others(self) -> list[str]:
        """Models beside the new file that go by the same card."""
        return [
            other.name
            for other in self.path.parent.glob(f"{self.path.stem}.*")
            if other != self.path and other.suffix in SUFFIXES
        ]

    def place(self, written: Path, card: dict[str, Any] | None) -> Path:
        """What `work` holds at `written` -> where it is from now on. Raises ConfigurationError."""
        try:
            if self._form.suffix:
                if card is not None:  # first: a worker may be looking
                    if self.card.is_file() and self._others():  # theirs, which feeds this one as well
                        card = read_notes(self.card) | {"exported": card["exported"]}
                    fresh = written.with_name(self.card.name)
                    fresh.write_text(card_text(card), "utf-8")
                    fresh.replace(self.card)
                written.replace(self.path)
                return self.path
            return publish(self.path, lambda part: _move(written, part), card)[1]
        except OSError as error:
            raise ConfigurationError(f"--out {self.path}: it cannot be written: {error.strerror}") from error


def card_text(card: dict[str, Any]) -> str:
    """A card's file."""
    return json.dumps(card, indent=1, ensure_ascii=False) + "\n"


def card_of(card: Card, spec: InputSpec, exported: dict[str, Any], exact: bool = True) -> dict[str, Any]:
    """The model's `card` for a form that is fed as `spec` says; only what is not usual stands in it.

    How well the model did is said of the new form only if that is `exact`; else it stands under "original". Pictures to
    warm up with are not copied, so they are not named.
    """
    usual = asdict(InputSpec(width=1, height=1))
    said = {name: value for name, value in asdict(spec).items() if value != usual[name]}
    output = {"labels": list(card.labels), "activation": card.activation}
    notes = {name: value for name, value in card.notes.items() if name != "warmup"}
    if not exact and (moved := {name: notes.pop(name) for name in OF_THE_ORIGINAL if name in notes}):
        notes["original"] = moved
    return {**notes, "input": said, "output": output, "exported": exported}


def _sweep(folder: Path) -> None:
    """Removes what exports that were killed have left."""
    with contextlib.suppress(OSError):  # what matters is said when something is to be written
        for path in folder.glob(f"{WORK}*"):
            if path.is_dir() and not path.is_symlink() and time.time() - path.stat().st_mtime > STALE:
                shutil.rmtree(path, ignore_errors=True)


def _move(written: Path, part: Path) -> None:
    for child in written.iterdir():
        if child.name != CARD_FILE:  # which is written anew
            child.rename(part / child.name)
