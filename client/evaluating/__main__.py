"""`fairway evaluate`: labelled pictures and an address -> how good the model is that answers there."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from ...registry.errors import ConfigurationError
from ...registry.options import add_options, read_options
from ...registry.process import run
from .config import EvaluateSettings

if TYPE_CHECKING:
    from .evaluation import Evaluation, Outcome


def evaluate(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway evaluate",
        description="Sends labelled pictures to a served model and counts what it gets right: accuracy with its interval, "
        "each class, confusions, latencies. Exit status 1 if some of them got no answer, 78 if it is no model at all.",
        epilog="fairway evaluate --data photos/ --url http://127.0.0.1:12480 --n 500 --picture examples.png",
    )
    add_options(parser, EvaluateSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> int:
        settings = read_options(EvaluateSettings, given)
        for path in (settings.picture, settings.confusion, settings.json):
            _writable(path)  # known before an hour of measuring, and not after it
        return await _evaluate(settings, stop)

    try:
        return run(main, verbose=False)
    except BrokenPipeError:  # `fairway evaluate ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _evaluate(settings: EvaluateSettings, stop: asyncio.Event) -> int:
    try:
        import numpy  # noqa: F401

        from . import evaluation, labelled
        from .endpoint import find_endpoint
    except ImportError as error:
        raise ConfigurationError(f"evaluating needs more: pip install 'fairway[measuring]' ({error})") from error
    given = labelled.read_names(settings.labels) if settings.labels else ()
    data = labelled.read_labelled(settings.data, settings.part, settings.data_labels, settings.transpose)
    naming = evaluation.Naming(given, settings.labels, data.classes)
    found = await find_endpoint(settings, "pixels" if isinstance(data, labelled.Pixels) else "photos")
    chosen = labelled.sample(data, settings.n, settings.seed)
    of = f"{len(data)}" if data.part == "all" else f"the {len(data)} of part {data.part}"
    drawn = "all of" if len(chosen) == len(data) else f"{len(chosen)} of"
    print(f"{drawn} {of} in {data.of}, {len(data.classes)} classes, seed {settings.seed}")
    if settings.n > len(data):
        print(f"--n {settings.n} is more than there are: all are taken")
    print(f"{settings.url} {found.what}", flush=True)
    bar: tqdm[NoReturn] = tqdm(total=len(chosen), unit="example", disable=None, leave=False)
    async with found:
        done = await evaluation.evaluate(
            chosen, data.classes, found, naming,
            concurrency=settings.concurrency, stop=stop, heard=_told(bar),
        )  # fmt: skip
    bar.close()
    asked = {
        "data": data.of, "part": data.part, "seed": settings.seed, "url": settings.url, "manner": found.via,
        "asked_by": found.what, "concurrency": settings.concurrency,
    }  # fmt: skip
    _report(done, settings, asked)
    if stop.is_set() and done.missing:
        return 130
    return 0 if done.complete else 1


def _told(bar: tqdm[NoReturn]) -> Callable[[Outcome], None]:
    asked = right = 0

    def heard(outcome: Outcome) -> None:
        nonlocal asked, right
        if outcome.prediction is not None:
            asked, right = asked + 1, right + outcome.right
            bar.set_postfix_str(f"{right / asked:.1%} right", refresh=False)
        bar.update()

    return heard


def _report(done: Evaluation, settings: EvaluateSettings, asked: dict[str, Any]) -> None:
    """Files first, so that a reader who hangs up does not cost them; what could not be written is raised at the end."""
    from . import summary

    shown = done.outcomes[: settings.show]
    written: list[str] = []
    failed: list[ConfigurationError] = []
    for name, write in _files(done, settings, asked).items():
        try:
            write(Path(name))
            written.append(name)
        except OSError as error:
            failed.append(ConfigurationError(f"{name}: cannot be written: {error.strerror or error}"))
        except ConfigurationError as error:  # matplotlib is not there
            failed.append(error)
    if shown:
        print(f"\n{summary.examples(shown)}")
    print(f"\n{summary.text(done)}")
    if written:
        print(f"\nwritten: {', '.join(written)}", flush=True)
    if failed:
        raise failed[0]


def _files(done: Evaluation, settings: EvaluateSettings, asked: dict[str, Any]) -> dict[str, Callable[[Path], object]]:
    """What is to be written where."""
    from ...worker.accuracy.picture import draw_confusion
    from . import summary
    from .gallery import draw_examples

    shown = done.outcomes[: settings.show]
    found: dict[str, Callable[[Path], object]] = {
        settings.json: lambda path: path.write_text(json.dumps(summary.as_json(done, asked), indent=1) + "\n", "utf-8"),
        settings.picture: lambda path: draw_examples(shown, path, settings.data),
        settings.confusion: lambda path: draw_confusion(done.report(), path, settings.data),
    }
    return {name: write for name, write in found.items() if name}


def _writable(path: str) -> None:
    if path and not Path(path).parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {Path(path).parent}")


if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1:]))
