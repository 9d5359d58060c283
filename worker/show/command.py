"""The command: which versions are meant, and what is printed of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ...registry.options import add_options, option, read_options
from ...registry.process import EXIT_CONFIGURATION
from ..errors import ConfigurationError
from ..offline import ModelSettings, dashed, ended, log_from, missing
from .page import page


@dataclass(frozen=True)
class ShowSettings(ModelSettings):
    model: str = "flowers"
    all: bool = option(False, "all versions, not the highest alone", env="FAIRWAY_SHOW_ALL")
    json: bool = option(False, "one JSON object a line")


def show(arguments: Sequence[str]) -> int:
    """Exit status: 78 if there is no such model, or it cannot be loaded."""
    parser = argparse.ArgumentParser(
        prog="fairway show",
        description="Shows a model's signatures, shapes, labels and preprocessing, and what is known of its accuracy "
        "and speed. It is loaded, not served, and nothing is written.",
        epilog="Try it: fairway show flowers; for programs: fairway show flowers --json | jq .signatures",
    )
    parser.add_argument("model", help="as the worker's --model")
    add_options(parser, ShowSettings)
    given = parser.parse_args(dashed(arguments))
    log_from("WARNING")
    with ended() as status:
        status.append(_show(read_options(ShowSettings, given)))
    return status[-1]


def _show(settings: ShowSettings) -> int:
    try:
        from ..source import find_source
        from .facts import facts, versions_of
    except ImportError as error:
        raise missing("fairway show", error) from error
    highest = find_source(settings.model, settings.served())
    versions = versions_of(settings.model)
    shown = list(versions.values()) if settings.all and versions else [highest]
    status = 0
    for number, source in enumerate(shown):
        try:
            found = facts(source, settings, versions)
        except ConfigurationError as error:
            if len(shown) == 1:
                raise
            status = EXIT_CONFIGURATION  # the other versions are worth seeing all the same
            print(f"fairway: version {source.version}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        text = json.dumps(found) if settings.json else ("\n" if number else "") + page(found)
        print(text.encode("utf-8", "replace").decode(), flush=True)  # a path may hold bytes that are no text
    return status
