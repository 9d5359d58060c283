"""A process that tries engines: what crashes here has hurt nobody, and its memory is given back with it.

Reads one request as a line of JSON from standard input, and writes what it finds out, line by line, to the file
descriptor that is its argument. It ends when standard input does: when whoever asked is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..loading import as_image_model
from ..source import Source, find_source
from ..wire.examples import CLASSIFY
from . import Opened, Options, open_source, probes, record

Say = Callable[[dict[str, Any]], None]

PROBES = "probes.pickle"  # made and read by processes of one user, in a folder of theirs that does not last


def reference(request: dict[str, Any], say: Say) -> None:
    """Describes the model, answers probes, times itself, and converts the model for others."""
    settings = WorkerSettings(**request["settings"])
    options = replace(Options.of(settings, request["threads"]), bf16=False)
    source = find_source(request["path"], settings)
    graphs: Any = None
    if request["runtime"] == "tensorflow":
        from . import tensorflow, tensorflow_graphs

        tensorflow.settle(options.threads)
        with tensorflow_graphs.quiet():
            graphs = tensorflow_graphs.read(source, options)
        opened: Opened = tensorflow.from_graphs(graphs, options)
    else:
        opened = open_source(request["runtime"], source, options)
    if graphs is not None and _parses_pictures(source, opened, settings):
        # Engines have no such operations, and a worker needs none: it finds the picture in an example by itself.
        del graphs.functions[CLASSIFY]
        opened.signatures = {name: one for name, one in opened.signatures.items() if name != CLASSIFY}
    say({"opened": record.described(opened)})
    if request["probe"]:
        use = as_image_model(source, opened, settings)
        items = probes.pictures(use.card.input) if use.card else None
        calls = {
            name: probes.inputs_for(signature, items if name == opened.default else None)
            for name, signature in opened.signatures.items()
        }
        found = {"calls": calls, "answers": probes.answers(opened, calls), "scores": use.scores}
        (Path(request["folder"]) / PROBES).write_bytes(pickle.dumps(found))
        say({"megabytes": probes.resident(), "rates": probes.rates(opened, calls[opened.default][0])})
    opened.close()
    for target in request["convert"]:
        say({"converting": target})
        try:
            from . import conversion, tensorflow_graphs

            with tensorflow_graphs.quiet():
                files = conversion.convert(graphs, target, Path(request["folder"]))
        except Exception as error:  # converters raise whatever they like
            say({"failed": target, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
        else:
            say({"converted": target, "files": {name: path.name for name, path in files.items()}})


def _parses_pictures(source: Source, opened: Opened, settings: WorkerSettings) -> bool:
    """Whether there is a signature that parses examples beside the one that pictures are fed to."""
    found = opened.signatures.get(CLASSIFY)
    if found is None or found.name == opened.default or found.method != "classify":
        return False
    if [spec.dtype for spec in found.inputs] != ["bytes"]:
        return False
    try:
        return as_image_model(source, opened, settings).card is not None
    except ConfigurationError:  # said when it is served
        return False


def candidate(request: dict[str, Any], say: Say) -> None:
    """Compares an engine's answers with the reference's, and times it."""
    settings = WorkerSettings(**request["settings"])
    options = Options.of(settings, request["threads"])
    folder = Path(request["folder"])
    if request["entry"]["bf16"]:
        from . import openvino

        if not openvino.offers_bf16():
            raise ConfigurationError("this processor does not compute in bfloat16")
    source = find_source(request["path"], settings)
    opened = record.open_choice(request["entry"], folder, source, options)
    found = pickle.loads((folder / PROBES).read_bytes())
    opened.run(found["calls"][opened.default][0], opened.default)
    say({"megabytes": probes.resident()})
    given = probes.answers(opened, found["calls"])
    comparison = probes.compare(found["answers"], given, found["scores"], request["coarse"])
    say({"difference": comparison.difference, "reason": comparison.reason})
    if not comparison.reason and (loose := _loosened(opened, request, found, source, options)):
        opened, entry = loose
        say({"signatures": entry["signatures"]})
    if not comparison.reason or request["anyway"]:
        say({"rates": probes.rates(opened, found["calls"][opened.default][0])})


def freeze(request: dict[str, Any], say: Say) -> None:
    """Reads a model with TensorFlow, and writes its functions as graphs without variables."""
    from . import tensorflow, tensorflow_graphs

    source, options = _source(request["source"]), Options(**request["options"])
    tensorflow.settle(options.threads)
    frozen: dict[str, dict[str, Any]] = {}
    with tensorflow_graphs.quiet():
        graphs = tensorflow_graphs.read(source, options)
        for number, (name, function) in enumerate(graphs.functions.items()):
            found = tensorflow_graphs.freeze(function)
            if found is None:
                raise ConfigurationError(f"{name} cannot be frozen")
            (Path(request["folder"]) / f"{number}.pb").write_bytes(found.definition.SerializeToString())
            frozen[name] = {
                "file": f"{number}.pb", "feeds": found.feeds, "fetches": found.fetches, "first": function.first
            }  # fmt: skip
    say({"opened": record.described(graphs), "frozen": frozen})


def _source(said: dict[str, Any]) -> Source:
    return Source(**{**said, "path": Path(said["path"]) if said["path"] else None})


def _loosened(
    opened: Opened, request: dict[str, Any], found: dict[str, Any], source: Source, options: Options
) -> tuple[Opened, dict[str, Any]] | None:
    """The same, taking any number of items where the model was exported for one, if several at once are answered as each
    by itself: then they can share a call, as TensorFlow would never let them.
    """
    loose = {name: signature.loosened() for name, signature in opened.signatures.items()}
    if None in loose.values():
        return None
    entry = {**request["entry"], "signatures": [asdict(signature) for signature in loose.values() if signature]}
    try:
        freer = record.open_choice(entry, Path(request["folder"]), source, options)
        calls = {name: probes.together(calls) for name, calls in found["calls"].items()}
        given = probes.answers(freer, calls)
        expected = {name: probes.together(answers) for name, answers in found["answers"].items()}
        comparison = probes.compare(expected, given, found["scores"], request["coarse"])
    except Exception:  # engines raise whatever they like where a model's size is fixed
        return None
    return None if comparison.reason else (freer, entry)


def main() -> None:
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answer:

        def say(line: dict[str, Any]) -> None:
            answer.write(json.dumps(line) + "\n")
            answer.flush()

        try:
            {"reference": reference, "candidate": candidate, "freeze": freeze}[request["do"]](request, say)
        except Exception as error:
            kind = "" if isinstance(error, ConfigurationError) else f"{type(error).__name__}: "
            say({"error": kind + " ".join(str(error).split())[:400]})
    os._exit(0)  # what engines do when they are taken down does not matter here


def _end_with_the_asker() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
