"""`fairway train`: folders of photos -> a small network from scratch. The recipe of the bundled model.

It needs no pretrained weights, but more photos and more time than `fairway retrain`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...registry.options import add_options, option, read_options
from ..accuracy import Report, wilson
from ..errors import ConfigurationError
from .extra import needing_tensorflow
from .publishing import check_folder
from .recipe import Recipe
from .split import read_split, require_classes
from .stopping import Stopping

KEPT = ".train"  # in the model's folder: the checkpoint, until the version is published


@dataclass(frozen=True)
class TrainSettings:
    architecture: Literal["small"] = option("small", "small: the residual network of the bundled model")
    image_dir: tuple[str, ...] = option((), "folders of photos, comma-separated, each with one sub-folder a class")
    out: str = option("", "folder of the model; each run adds the next numbered version to it")
    epochs: int = option(Recipe.epochs, "times each photo is learnt from")
    validation_percentage: float = option(
        Recipe.held_out_percent,
        "of the photos: only watched, and the test where no LISTING.tsv names `val` or `test` rows",
    )
    resume: bool = option(False, "go on where an interrupted run with the same settings stopped")
    seed: int = option(Recipe.seed, "seed of all that is random")

    def __post_init__(self) -> None:
        if not self.image_dir:
            raise ConfigurationError("--image-dir is required: a folder with one sub-folder of photos a class")
        if not self.out:
            raise ConfigurationError("--out is required: the folder of the model, e.g. models/flowers")
        if self.epochs < 1:
            raise ConfigurationError("--epochs: at least 1 is needed")
        if self.validation_percentage >= 100:
            raise ConfigurationError("--validation-percentage leaves nothing to learn from; below 100 is needed")

    def recipe(self) -> Recipe:
        return replace(Recipe(), epochs=self.epochs, seed=self.seed, held_out_percent=self.validation_percentage)


def train_command(arguments: Sequence[str]) -> int:
    """`fairway train` -> 0. Raises ConfigurationError for what the user must change, Interrupted after a signal."""
    parser = argparse.ArgumentParser(
        prog="fairway train",
        description="Trains a small network from scratch on folders of photos, one sub-folder a class, and publishes it as "
        "OUT/N/, which `fairway worker --model OUT` serves. About 40 minutes for 3,000 photos on two cores.",
        epilog="Try it: fairway train --image-dir flowers --out models/flowers. Ctrl-C keeps what was learnt; --resume "
        "goes on.",
    )
    add_options(parser, TrainSettings)
    settings = read_options(TrainSettings, parser.parse_args(arguments))
    folders, out = [Path(folder) for folder in settings.image_dir], Path(settings.out)
    place, report = train(folders, out, settings.recipe(), settings.resume)
    if report.total:
        low, high = wilson(report.correct, report.total)
        print(f"Accuracy = {report.accuracy:.1%} (N={report.total}, 95 % interval {low:.1%} to {high:.1%})")
    print(f"{place} is ready: fairway worker --model {out}")
    return 0


def train(folders: Sequence[Path], out: Path, recipe: Recipe, resume: bool = False) -> tuple[Path, Report]:
    """Fits, averages, looks once at the test photos, and publishes -> the version's folder, and how good it is.

    Raises ConfigurationError saying what to do, and Interrupted after a signal: then `out`/.train holds the run.
    """
    with needing_tensorflow():
        from . import from_scratch
        from .outcome import input_as_card, publish_version

    check_folder(out)
    split = read_split(folders, recipe.held_out_percent)
    with Stopping() as stop:
        photos = from_scratch.gather(split, recipe, stop)
        require_classes(photos.split.labels, folders)
        split = photos.split
        print(
            f"{len(split.train)} photos to learn from, {len(split.held_out)} held out, {len(split.test)} for the test"
        )
        run = from_scratch.Run(photos, recipe, out / KEPT / "checkpoint.npz", resume)
        run.fit(stop)
        report = run.finish(stop)
    spec = from_scratch.spec_of(recipe)
    judged_on = "test" if split.test else "held out"
    card: dict[str, Any] = {
        "name": out.resolve().name,
        "version": None,
        "description": "A small residual network, trained from scratch, without pretrained weights.",
        "data": photos.as_card(folders),
        "input": input_as_card(spec),
        "output": {"labels": list(split.labels), "activation": "none"},
        "test": {"on": judged_on, **report.as_card()} if report.total else {"photos": 0},
        "training": {
            "photos": len(split.train),
            "minutes": round(run.minutes, 1),
            "parameters": run.model.count_params(),
            **asdict(recipe),
        },
    }
    judged = report if report.total else None
    _, place = publish_version(out, run.model, spec, split.labels, card, judged, run.history, judged_on)
    shutil.rmtree(out / KEPT, ignore_errors=True)
    return place, report
