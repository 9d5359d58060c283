"""`fairway export`: a model in another form. It is put in place only after both have answered the same pictures alike."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ...registry.options import add_options, read_options
from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..offline import ended, log_from, missing
from .config import ExportSettings

if TYPE_CHECKING:
    from .destination import Destination
    from .original import Original
    from .verification import Verdict

DIFFERS = 1  # exit status
LIBRARIES = {"litert": ("ai_edge_litert",), "tf2onnx": ("tf2onnx", "onnx", "onnxruntime")}


def export(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway export",
        description="Writes a model in another form, and compares the two on the same pictures. If they answer differently "
        "the new one is not put in place, and the exit status is 1.",
        epilog="Try it: fairway export flowers --to litert --out flowers.tflite --images photos/",
    )
    parser.add_argument(
        "model", help="a Keras file, a SavedModel or its versions' folder, a frozen graph, or keras:NAME"
    )
    add_options(parser, ExportSettings)
    given = parser.parse_args(arguments)
    log_from("INFO")
    with ended() as status:
        status.append(exported(given.model, read_options(ExportSettings, given)))
    return status[-1]


def exported(model: str, settings: ExportSettings) -> int:
    """Does it, and prints what was found -> exit status. Raises ConfigurationError."""
    for library in LIBRARIES.get(settings.form.extra, ()):
        if find_spec(library) is None:
            raise ConfigurationError(
                f"--to {settings.to} needs what is not installed ({library}): pip install 'fairway[{settings.form.extra}]'"
            )
    try:
        from ..source import find_source
        from .destination import Destination
        from .original import read_original
        from .sample import read_pictures
    except ImportError as error:
        raise missing("fairway export", error) from error
    reading = settings.reading(model)
    source = find_source(model, reading)
    destination = Destination(Path(settings.out), settings.form, source.name, settings.overwrite)
    _say(f"reading {source} ...")
    original = read_original(model, reading)
    pictures = _pictures(original, settings, read_pictures)
    with destination.work() as folder:
        written, card = _written(original, settings, destination, folder, pictures)
        _say("comparing ...")
        verdict = _verified(original, settings, written, pictures)
        sizes = _size(source.files() or [Path(reading.weights)]), _size(_files(written))
        for line in described(verdict, settings, original.opened.runtime, sizes, len(pictures)):
            print(line)
        if verdict.reason and not settings.force:
            print(f"fairway: not written, as {verdict.reason}; --force writes it all the same", file=sys.stderr)
            return DIFFERS
        if card is not None:
            card["exported"] |= found(verdict)
        place = destination.place(written, card)
        print(f"written: {place}" + (f", although {verdict.reason}" if verdict.reason else ""))
        return DIFFERS if verdict.reason else 0


def described(
    verdict: Verdict, settings: ExportSettings, engine: str, sizes: tuple[int, int], pictures: int
) -> Iterator[str]:
    """What was found, in lines. `sizes`: bytes before and after."""
    main, bounds = verdict.main, settings.bounds
    before, after = engine, settings.to
    yield f"{'':22}{before:>16}{after:>16}"
    yield f"{'size':22}{sizes[0] / 1e6:13.2f} MB{sizes[1] / 1e6:13.2f} MB"
    if verdict.after:
        what = "an image" if pictures else "a call"
        yield f"{f'mean time {what}':22}{verdict.before * 1e3:13.2f} ms{verdict.after * 1e3:13.2f} ms  (one core)"
    yield f"largest difference    {main.difference:.2g} (allowed: {bounds.largest:g})"
    if main.items:
        yield f"same best class       {main.same} of {main.items} (wanted: {bounds.best:.0%})"
    if not pictures:
        yield "                      by random numbers, as it takes no pictures, or it is not known how"
    elif not settings.images:
        yield "                      on pictures made from a seed; --images takes real ones"
    for name, other in verdict.others.items():
        yield f"{name:22}{other.difference:.2g}" + (f", {other.same} of {other.items}" if other.items else "")


def found(verdict: Verdict) -> dict[str, Any]:
    """The same for the model card."""
    said: dict[str, Any] = {"largest_difference": float(f"{verdict.main.difference:.3g}")}
    return said | ({"same_best_class": verdict.main.same, "pictures": verdict.main.items} if verdict.main.items else {})


def _pictures(original: Original, settings: ExportSettings, read: Callable[[str, int], list[bytes]]) -> list[bytes]:
    """None for a model that takes no pictures."""
    if original.use.card is not None:
        return read(settings.images, settings.count)
    if settings.to == "litert-int8":
        raise ConfigurationError(f"{original.source} cannot be calibrated with pictures: {original.use.reason}")
    if settings.images:
        print(f"--images is not looked at: {original.use.reason}", file=sys.stderr)
    return []


def _written(
    original: Original, settings: ExportSettings, destination: Destination, folder: Path, pictures: list[bytes]
) -> tuple[Path, dict[str, Any] | None]:
    """The new form in `folder`, and its card, which lies beside or in it."""
    from ..card import CARD_FILE, LABEL_FILES
    from ..image import to_item
    from .destination import card_of, card_text
    from .writing import write

    form, card = settings.form, original.use.card
    written = folder / (destination.path.name if form.suffix else original.source.name)
    items = [to_item(picture, card.input) for picture in pictures] if card and settings.to == "litert-int8" else []
    # TensorFlow's own words on standard error are held back meanwhile.
    with os.fdopen(os.dup(2), "w") as terminal:
        _say(f"converting to {settings.to} ...")

        def progress(shown: list[Any]) -> Iterator[Any]:
            return iter(tqdm(shown, "calibrating", unit="picture", file=terminal, disable=None, leave=False))

        spec, left_out = write(original, settings.to, written, items, progress)
    for name in left_out:
        print(f"the signature {name} has no place in this form, and is left out", file=sys.stderr)
    if card is None or spec is None:
        destination.check_card(None)
        return written, None
    destination.check_card(replace(card, input=spec))
    new = card_of(card, spec, {"from": original.source.name, "form": settings.to}, form.exact)
    beside = destination.card.name if form.suffix else CARD_FILE
    (written.with_name(beside) if form.suffix else written / beside).write_text(card_text(new), "utf-8")
    if not form.suffix:
        (written / LABEL_FILES[0]).write_text("".join(f"{label}\n" for label in card.labels), "utf-8")
    return written, new


def _verified(original: Original, settings: ExportSettings, written: Path, pictures: list[bytes]) -> Verdict:
    """As a worker would load it: the file, and the card that lies with it."""
    from ..loading import load_model
    from ..runtimes.tensorflow_graphs import quiet
    from .original import THREADS
    from .verification import verify

    reading = WorkerSettings(model=str(written), runtime=settings.form.runtime)
    with os.fdopen(os.dup(2), "w") as terminal, quiet(), _known():

        def progress(shown: Sequence[Any], what: str) -> Iterable[Any]:
            return tqdm(shown, what, unit="picture", file=terminal, disable=None, leave=False)

        new = load_model("", 0, str(written), reading, THREADS)
        try:
            return verify(original, new, pictures, settings.bounds, progress)
        finally:
            new.loaded.close()


@contextlib.contextmanager
def _known() -> Iterator[None]:
    """That a model takes tensors only, and no pictures, was said when it was read."""
    log = logging.getLogger("fairway.worker")
    level = log.level
    log.setLevel("ERROR")
    try:
        yield
    finally:
        log.setLevel(level)


def _files(written: Path) -> list[Path]:
    return [written] if written.is_file() else [path for path in written.rglob("*") if path.is_file()]


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())


def _say(text: str) -> None:
    """For who waits at a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(export(sys.argv[1:]))
