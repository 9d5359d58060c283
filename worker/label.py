"""`fairway label`: what a model sees in image files, without a server. TensorFlow's label_image, for every kind of model.

A picture goes the way of an upload: the same functions decode it, feed it and name its scores, on the engine that a worker
would have chosen. So the scores are a worker's, to the last digit that is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..registry.options import add_options, option, read_options
from ..registry.process import EXIT_CONFIGURATION
from .config import Precision, WorkerSettings
from .errors import ConfigurationError, WorkerError

if TYPE_CHECKING:
    from .model import Model
    from .source import Source
    from .tensor import Prediction

STDIN = "-"
DECODER = "DecodeJpeg/contents"  # where label_image feeds the article's graph, which ours feed behind that decoder


def _as_served(name: str) -> Any:
    """An option that a worker has as well, and that means the same there."""
    served = WorkerSettings.__dataclass_fields__[name]
    return option(served.default, served.metadata["help"], served.metadata["env"])


@dataclass(frozen=True)
class ModelSettings:
    """What a model is, and how pictures are made for it: a worker's words, for commands that serve nothing."""

    weights: str = _as_served("weights")
    labels: str = _as_served("labels")
    runtime: str = _as_served("runtime")
    precision: Precision = _as_served("precision")
    choices: str = _as_served("choices")
    input_width: int | None = _as_served("input_width")
    input_height: int | None = _as_served("input_height")
    input_channels: str | None = _as_served("input_channels")
    input_resize: str | None = _as_served("input_resize")
    input_filter: str | None = _as_served("input_filter")
    input_mean: str | None = _as_served("input_mean")
    input_std: str | None = _as_served("input_std")
    input_layer: str = _as_served("input_layer")
    output_layer: str = _as_served("output_layer")

    def served(self) -> WorkerSettings:
        """Those of a worker that would serve the same."""
        known = {f.name for f in fields(WorkerSettings)}
        return WorkerSettings(**{f.name: getattr(self, f.name) for f in fields(self) if f.name in known})


@dataclass(frozen=True)
class LabelSettings(ModelSettings):
    model: str = option("flowers", "what to look with: as the worker's --model")
    top: int = option(5, "how many labels an image gets")
    json: bool = option(False, "one JSON object a line")
    threads: int = _as_served("threads")
    max_bytes: int = _as_served("max_bytes")
    max_pixels: int = _as_served("max_pixels")

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigurationError("--top: at least 1")


def label(arguments: Sequence[str]) -> int:
    """Exit status: 1 if any image failed, 78 if the model or an option will not do."""
    parser = argparse.ArgumentParser(
        prog="fairway label",
        description="Prints what a model sees in images, without a server. Exit status 1 if any of them failed.",
        epilog="The flags of TensorFlow's label_image work as well, with underscores too. "
        "Names on standard input are answered as they come: ls photos/*.jpg | fairway label -. "
        "As with a worker, the first use of a model with --runtime auto takes longer: engines are tried, once.",
    )
    parser.add_argument("images", nargs="*", help="image files, folders of them, or - for names on standard input")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="one more image")
    parser.add_argument("--graph", dest="model", metavar="FILE", help="the same as --model")
    parser.add_argument("--num-top-predictions", dest="top", metavar="TOP", help="the same as --top")
    add_options(parser, LabelSettings)
    given = parser.parse_args(dashed(arguments))
    names = [*given.images, *given.image]
    if not names:
        parser.error("no image: name files or folders, or - for names on standard input")
    logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("PIL").setLevel("CRITICAL")  # what is wrong with a file is said once
    # Choosing an engine takes a while, and says so.
    logging.getLogger("fairway").setLevel(os.environ.get("FAIRWAY_LOG_LEVEL", "INFO").upper())
    with ended() as status:
        settings = read_options(LabelSettings, given)
        labeller = _labeller(settings)
        status.append(_label(names, labeller, settings))
    return status[-1]


@contextlib.contextmanager
def ended() -> Iterator[list[int]]:
    """The exit status of what is done meanwhile, which is at the end of the list: errors we know are one line, and no
    traceback."""
    status = [0]
    try:
        yield status
    except ConfigurationError as error:
        print(f"fairway: {' '.join(str(error).split())}", file=sys.stderr)
        status.append(EXIT_CONFIGURATION)
    except BrokenPipeError:  # `fairway label photos/ | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status.append(0)
    except KeyboardInterrupt:
        status.append(130)


def dashed(arguments: Sequence[str]) -> list[str]:
    """Flags spelt with underscores, as TensorFlow's scripts had them, with dashes."""
    line, found = list(arguments), []
    while line and line[0] != "--":
        word = line.pop(0)
        flag, equals, value = word.partition("=")
        found.append(f"{flag.replace('_', '-')}{equals}{value}" if word.startswith("--") else word)
    return found + line


class Labeller:
    """A loaded model, asked for one picture at a time; by `streams` threads at once."""

    def __init__(self, model: Model, settings: LabelSettings) -> None:
        from .image import ImageLimits

        self._model, self._top = model, settings.top
        self._limits = ImageLimits(settings.max_bytes, settings.max_pixels)
        self.streams = model.loaded.streams

    def __call__(self, path: Path) -> Prediction:
        """Raises OSError or WorkerError saying what is wrong with this file."""
        from . import call, image, sample
        from .tensor import Prediction

        model = self._model
        signature, card = model.loaded.signatures[model.loaded.default], model.card
        assert card is not None, "of a model for pictures"
        with path.open("rb") as file:
            data = file.read(self._limits.max_bytes + 1)  # one more is too many, and enough to say so
        item = {model.image_input: image.to_item(data, card.input, self._limits)}
        arrays = sample.repeated(item, signature, 1)
        outputs = call.run(model, signature, [arrays], [1], signature.batch or 1, False, pictures=True)
        return Prediction.from_scores(outputs[0]["scores"][0].tolist(), card.labels, self._top)


def _labeller(settings: LabelSettings) -> Labeller:
    """Blocks for seconds. Raises ConfigurationError."""
    try:
        from .loading import as_image_model
        from .model import Model
        from .runtimes.choice import open_best
        from .source import find_source
    except ImportError as error:
        raise missing("fairway label", error) from error
    served = settings.served()
    source = find_source(settings.model, served)
    opened, choice = open_best(settings.model, source, _layers(source, served), settings.threads or os.cpu_count() or 1)
    seen = as_image_model(source, opened, served)
    if seen.card is None:
        raise ConfigurationError(f"{source}: it cannot be shown a picture: {seen.reason}")
    model = Model(source.name, source.version, opened, seen.card, seen.input, seen.scores, "", {"runtime": choice})
    _check_layers(source, model, served)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about odd files
    return Labeller(model, settings)


def missing(command: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"`{command}` needs more than the light installation ({error.name} is missing): pip install 'fairway[tensorflow]'"
    )


def _layers(source: Source, served: WorkerSettings) -> WorkerSettings:
    """Only frozen graphs can be fed and read anywhere; to the rest their names say nothing until they are loaded."""
    if source.kind != "frozen":
        return replace(served, input_layer="", output_layer="")
    return replace(served, input_layer="") if _bare(served.input_layer) == DECODER else served


def _check_layers(source: Source, model: Model, served: WorkerSettings) -> None:
    """Raises ConfigurationError for a layer that was asked for, and is not the one in use."""
    signature = model.loaded.signatures[model.loaded.default]
    wanted, used = _bare(served.input_layer), model.image_input
    if wanted and wanted not in (used, DECODER if source.kind == "frozen" and used == "DecodeJpeg" else used):
        inputs = ", ".join(spec.name for spec in signature.inputs)
        raise ConfigurationError(f"--input-layer {served.input_layer}: {source} has no such input; it has {inputs}")
    wanted, used = _bare(served.output_layer), model.scores
    if wanted and wanted != used:
        names = [spec.name for spec in signature.outputs]
        why = (
            "is an output, but only of frozen graphs (.pb) another one can be chosen"
            if wanted in names
            else f"is none of the outputs ({', '.join(names)})"
        )
        raise ConfigurationError(f"--output-layer {served.output_layer}: {why}; scores are read from {used}")


def _bare(layer: str) -> str:
    return layer.removesuffix(":0")


def files(names: Iterable[str]) -> Iterator[Path]:
    """Files as named; of folders, the image files in them and below, sorted; of `-`, those that standard input names."""
    from PIL import Image

    from .image import FORMATS

    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    for name in names:
        path = Path(name)
        if name == STDIN:
            yield from files(line.rstrip("\r\n") for line in iter(sys.stdin.readline, "") if line.strip())
        elif path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        else:
            yield path


def _label(names: Sequence[str], labeller: Labeller, settings: LabelSettings) -> int:
    """Names are taken as they come, pictures looked at by several threads, and answers printed in order, each at once."""
    known = None if STDIN in names else list(files(names))
    if known == []:
        print(f"fairway: no images in {', '.join(names)}", file=sys.stderr)
        return 1
    several = known is None or len(known) > 1
    quiet = not several or sys.stdout.isatty() or not sys.stderr.isatty()
    queue: Queue[tuple[Path, Future[Prediction]] | None] = Queue(2 * labeller.streams)
    gone = threading.Event()
    with (
        tqdm(total=None if known is None else len(known), unit="image", disable=quiet, leave=False) as bar,
        ThreadPoolExecutor(labeller.streams) as looking,
        ThreadPoolExecutor(1) as printing,
    ):
        printed = printing.submit(_print_all, queue, gone, _Page(settings.json, several, bar))
        try:
            for path in files(names) if known is None else known:
                if gone.is_set():
                    break
                queue.put((path, looking.submit(labeller, path)))
        except KeyboardInterrupt:
            looking.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            queue.put(None)
        done, failed = printed.result()
    if failed and several:
        print(f"{failed} of {done} failed", file=sys.stderr)
    return 1 if failed else 0


class _Page:
    """How an answer looks."""

    def __init__(self, json: bool, several: bool, bar: tqdm[Any]) -> None:
        self._json, self._several, self._bar = json, several, bar

    def answer(self, path: Path, prediction: Prediction) -> None:
        if self._json:
            from .wire import answer

            found = {"file": shown(path), "predictions": json.loads(answer.encode(prediction))}  # a worker's digits
            lines = [json.dumps(found)]
        else:
            lines = [f"{label} (score = {score:.5f})" for label, score in prediction]
            if self._several:
                lines.insert(0, shown(path))
        print("\n".join(lines), flush=True)
        self._bar.update()

    def failure(self, path: Path, error: WorkerError | OSError) -> None:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if self._json:
            print(json.dumps({"file": shown(path), "error": text}), flush=True)
        self._bar.write(f"{shown(path)}: {text}", file=sys.stderr)
        self._bar.update()


def shown(path: Path) -> str:
    """Fit for printing: a name may hold bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "replace")


def _print_all(
    queue: Queue[tuple[Path, Future[Prediction]] | None], gone: threading.Event, page: _Page
) -> tuple[int, int]:
    """-> how many there were, and how many failed. After trouble, as when the reader goes away, the queue is only emptied:
    whoever fills it must not wait for ever.
    """
    done = failed = 0
    trouble: Exception | None = None
    while (entry := queue.get()) is not None:
        path, future = entry
        if trouble is not None:
            future.cancel()
            continue
        try:
            error = future.exception()
            done += 1
            if error is None:
                page.answer(path, future.result())
            elif isinstance(error, WorkerError | OSError):
                failed += 1
                page.failure(path, error)
            else:
                raise error
        except CancelledError:
            continue
        except Exception as error:
            trouble = error
            gone.set()
    if trouble is not None:
        raise trouble
    return done, failed


if __name__ == "__main__":
    sys.exit(label(sys.argv[1:]))
