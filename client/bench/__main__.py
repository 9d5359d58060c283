"""`fairway bench load`: how fast a served model answers, and under which load."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...registry.errors import ConfigurationError
from ...registry.options import add_options, read_options
from ...registry.process import EXIT_USAGE, run
from ..config import Via
from .config import LoadSettings

if TYPE_CHECKING:
    from .course import Result

USAGE = """usage: fairway bench load --images DIR [options]

  load   upload pictures at growing load: throughput, latency, errors

fairway bench load --help tells more."""


def bench(arguments: Sequence[str]) -> int:
    """The first word says what is measured; so far there is `load`."""
    if arguments and arguments[0] == "load":
        return load(arguments[1:])
    asked = bool(arguments) and arguments[0] in ("-h", "--help", "help")
    print(USAGE, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else EXIT_USAGE


def load(arguments: Sequence[str]) -> int:
    """Exit status: 0; 1 if nobody was there, nobody any more, nothing was answered, or something wrongly; 130 when
    interrupted; 78 for settings that will not do. What was measured is printed and written in all cases.
    """
    parser = argparse.ArgumentParser(
        prog="fairway bench load",
        description="Uploads pictures at growing load and says how fast they are answered: closed loop (so many clients, "
        "each waits for its answer), open loop (so many requests a second, whatever becomes of earlier ones; latency "
        "counts from when each was due), or both.",
        epilog="Try it: fairway bench load --images photos/ --via address,forward --rate auto --plot load.svg",
    )
    add_options(parser, LoadSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> int:
        settings = read_options(LoadSettings, given)
        try:
            for library in ("hdrh.histogram", *(("matplotlib",) if settings.plot else ())):
                import_module(library)
        except ImportError as error:
            raise ConfigurationError(
                f"a bench needs more than the light installation ({error.name} is missing): "
                "pip install 'fairway[measuring]'"
            ) from error
        return await _measured(settings, stop)

    return run(main, verbose=False)


async def _measured(settings: LoadSettings, stop: asyncio.Event) -> int:
    from .course import INTERRUPTED, Course
    from .errors import Unfit
    from .tally import WRONG
    from .uploads import load
    from .way import Way

    several = len(settings.url) > 1
    ways = [
        Way(url, cast(Via, via), settings.timeout_seconds, settings.model, settings.service, several)
        for url in dict.fromkeys(settings.url)
        for via in dict.fromkeys(settings.via)
    ]
    assert settings.images is not None, "the settings have seen to it"
    uploads, unreadable = load(settings.images, settings.sample, settings.seed, settings.service)
    course = Course(settings, ways, uploads)
    course.result.set_aside.update(unreadable)
    try:
        result = await course.run(stop)
    except Unfit as error:
        print(f"fairway: {error}", file=sys.stderr)
        return 1
    written = _written(settings, result)
    if result.ended == INTERRUPTED:
        return 130
    tallies = [tally for level in result.levels for tally in level.windows]
    wrong = any(tally.errors[WRONG] for tally in tallies)
    answered = any(tally.answered for tally in tallies)
    return 0 if written and answered and not wrong and not result.ended else 1


def _written(settings: LoadSettings, result: Result) -> bool:
    """To the files that are wished for, and to standard output; False if one of the files cannot be written.

    Files first, so that a reader who hangs up does not cost them.
    """
    from . import report

    written = True
    for file, write in _files(settings, result).items():
        try:
            write(file)
        except OSError as error:
            print(f"fairway: {file} cannot be written: {error.strerror or error}", file=sys.stderr)
            written = False
    try:
        print(report.text(result), end="", flush=True)
    except BrokenPipeError:  # `fairway bench load ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return written


def _files(settings: LoadSettings, result: Result) -> dict[Path, Callable[[Path], object]]:
    """What is to be written where."""
    from . import report

    def draw(path: Path) -> None:
        from . import plot

        plot.draw(result.levels, path)

    found: dict[Path | None, Callable[[Path], object]] = {
        settings.json: lambda path: path.write_text(
            json.dumps(report.document(settings, result), indent=1) + "\n", "utf-8"
        ),
        settings.csv: lambda path: path.write_text(report.table(result), "utf-8", newline=""),
        settings.plot: draw,
    }
    return {file: write for file, write in found.items() if file}


if __name__ == "__main__":
    sys.exit(bench(sys.argv[1:]))
