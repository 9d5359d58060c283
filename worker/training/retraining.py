"""`fairway retrain` from beginning to end: photos, features, head, perhaps the last blocks, test, the next version.

The test photos are looked at once, at the end. What is decided on the way is decided by the validation photos.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from ..accuracy import Report, score, wilson
from ..errors import ConfigurationError
from .backbone import Backbone, open_backbone
from .bottlenecks import Bottlenecks
from .checkpoint import Checkpoint
from .config import RetrainSettings
from .distortion import Distortion
from .features import MIRRORED, PLAIN, compute, logits
from .fine_tuning import fine_tune
from .gathering import Gathered, distorted, gather, read, split_as_card
from .head import Array, Head, HeadRecipe, Scale, calibrating, judged, labelled
from .learning import GrowingViews, Lesson, Views, learn, steps_for
from .outcome import (
    check_article_graph,
    cool,
    input_as_card,
    misclassified,
    network,
    publish_version,
    write_article_graph,
)
from .publishing import check_folder
from .stopping import Interrupted
from .summaries import Summaries

log = logging.getLogger("fairway.training")

EPOCHS, DISTORTED_EPOCHS = 20, 10
FEWEST_STEPS = 500  # where nobody says how many: of a handful of photos an epoch is a step or two
CACHE = ".bottlenecks"
# Places on this machine, of which the card tells the names elsewhere; and what shapes no model.
NOT_ON_THE_CARD = {"image_dir", "out", "backbone", "weights", "bottleneck_dir", "summaries_dir", "output_graph",
                   "output_labels", "resume"}  # fmt: skip

Stop = Callable[[], bool]


def retrain(settings: RetrainSettings, stop: Stop) -> tuple[Path, Report | None]:
    """-> the folder of the new version, and how it did on the test photos, if there are any.

    Raises ConfigurationError saying what to do, and Interrupted, saying what was kept.
    """
    began = time.monotonic()
    out = Path(settings.out)
    split = read(settings)
    check_folder(out)
    if settings.output_graph:
        check_article_graph(Path(settings.output_graph), settings.output_labels)
    backbone = open_backbone(
        settings.backbone, settings.weights, settings.input_size, settings.pixels(), settings.earlier_layers
    )
    with ExitStack() as stack:
        cache = Path(settings.bottleneck_dir) if settings.bottleneck_dir else out / CACHE
        kept = stack.enter_context(_bottlenecks(cache, backbone, ""))
        gathered = gather(split, settings, backbone, kept, stop)
        _say_what_there_is(gathered, time.monotonic() - began)
        labels = gathered.labels
        lesson = _lesson(settings, gathered, backbone, kept, cache, stack, stop)
        validation = _labelled(gathered, kept, "held_out")
        features = time.monotonic()

        recipe = _recipe(settings, lesson)
        checkpoint = Checkpoint(out, _about(settings, recipe, backbone, gathered))
        head, resumed = _begin(settings, checkpoint, recipe, kept, gathered)
        summaries = Summaries(Path(settings.summaries_dir), settings.resume) if settings.summaries_dir else None
        if summaries is not None:
            stack.callback(summaries.close)
        learn(head, lesson, validation, settings.eval_step_interval, stop, checkpoint, summaries)
        learnt = time.monotonic()

        weights, bias = head.folded()
        model = network(backbone, weights, bias)
        said = validation[0] @ weights + bias
        if settings.fine_tune:
            _fine_tune(model, settings, gathered, backbone, head, checkpoint, resumed, stop)
            said = logits(model, gathered.split.held_out, backbone.spec, stop, "validation")
        held_out = judged(said, validation[1])
        temperature = calibrating(said, validation[1])
        weights, bias = head.folded(temperature)
        cool(model, temperature)
        tuned = time.monotonic()
        report = _test(model, (weights, bias), settings, gathered, backbone, kept, stop)

    minutes = {"features": features - began, "head": learnt - features, "fine_tuning": tuned - learnt}
    card = _card(
        settings, gathered, backbone, head, held_out, temperature, report, minutes | {"all": time.monotonic() - began}
    )
    _, place = publish_version(out, model, backbone.spec, labels, card, report, head.history)
    checkpoint.remove()
    if settings.output_graph:
        write_article_graph(model, backbone.spec, labels, Path(settings.output_graph), settings.output_labels)
    print(f"{place}: published after {time.monotonic() - began:.0f} s", flush=True)
    return place, report


def _bottlenecks(folder: Path, backbone: Backbone, variant: str) -> Bottlenecks:
    name = Path(backbone.name.removeprefix("keras:")).stem
    try:
        return Bottlenecks(folder / f"{name}-{backbone.fingerprint}{variant}.features", backbone.width)
    except OSError as error:
        raise ConfigurationError(f"--bottleneck-dir {folder}: {error.strerror}") from error


def _say_what_there_is(gathered: Gathered, seconds: float) -> None:
    split = gathered.split
    print(
        f"{len(split.train)} photos of {len(split.labels)} classes to learn from, {len(split.held_out)} for validation, "
        f"{len(split.test)} for the test; {gathered.computed} features computed, {seconds:.0f} s",
        flush=True,
    )
    if not split.held_out:
        log.warning("no photo is left for validation: the last state is kept, and nothing tells whether it is the best")
    if not split.test:
        log.warning("no photo is left for the test: nobody knows how good the model will be")


def _about(settings: RetrainSettings, recipe: HeadRecipe, backbone: Backbone, gathered: Gathered) -> dict[str, Any]:
    """What a run has in common with one that goes on with it. The photos of each part belong to it: with another split,
    photos of the test would have been learnt from.
    """
    split, parts = gathered.split, hashlib.sha256()
    for photos in (split.train, split.held_out, split.test):
        found = sorted(zip(gathered.keys_of(photos), (photo.label for photo in photos), strict=True))
        parts.update(repr(found).encode())
    said = ("eval_step_interval", "fine_tune", "fine_tune_epochs", "fine_tune_rate")
    return {
        "recipe": asdict(recipe),
        "backbone": backbone.fingerprint,
        "labels": list(gathered.labels),
        "photos and split": parts.hexdigest(),
        "distortion": asdict(_distortion(settings)),
    } | {name: getattr(settings, name) for name in said}


def _distortion(settings: RetrainSettings) -> Distortion:
    return Distortion(settings.flip_left_right, settings.random_crop, settings.random_scale, settings.random_brightness)


def _labelled(gathered: Gathered, kept: Bottlenecks, part: str, view: int = PLAIN) -> tuple[Array, Any]:
    photos = getattr(gathered.split, part)
    return (
        kept.get(gathered.keys_of(photos), view),
        labelled([photo.label for photo in photos], gathered.labels),
    )


def _lesson(
    settings: RetrainSettings,
    gathered: Gathered,
    backbone: Backbone,
    kept: Bottlenecks,
    cache: Path,
    stack: ExitStack,
    stop: Stop,
) -> Lesson:
    plain, truth = _labelled(gathered, kept, "train")
    if not distorted(settings):
        if not settings.flip_left_right:
            return Views(plain, truth)
        mirrored, _ = _labelled(gathered, kept, "train", MIRRORED)
        return Views(np.concatenate([plain, mirrored]), np.tile(truth, 2))
    distortion = _distortion(settings)
    variant = "-" + hashlib.sha256(repr((distortion, settings.seed)).encode()).hexdigest()[:8]
    views = stack.enter_context(_bottlenecks(cache, backbone, variant))

    def render(picture: Image.Image, key: bytes, number: int) -> Array:
        rng = np.random.default_rng([settings.seed, number, int.from_bytes(key[:8], "big")])
        return distortion.view(picture, backbone.spec, rng)

    def view(number: int) -> Array:
        doing = f"distorted photos, epoch {number}"
        _, broken = compute(gathered.split.train, gathered.keys, (number,), views, backbone, render, stop, doing)
        for path, reason in broken.items():
            raise ConfigurationError(f"{path} could be read before, and cannot now: {reason}; begin anew")
        return views.get(gathered.keys_of(gathered.split.train), number)

    return GrowingViews(plain, truth, view)


def _recipe(settings: RetrainSettings, lesson: Lesson) -> HeadRecipe:
    epochs = settings.epochs or (DISTORTED_EPOCHS if distorted(settings) else EPOCHS)
    steps = settings.how_many_training_steps or steps_for(lesson, epochs, settings.train_batch_size)
    if not (settings.epochs or settings.how_many_training_steps or distorted(settings)):
        steps = max(steps, FEWEST_STEPS)
    return HeadRecipe(
        steps, settings.train_batch_size, settings.learning_rate, settings.weight_decay, settings.label_smoothing,
        settings.seed,
    )  # fmt: skip


def _begin(
    settings: RetrainSettings, checkpoint: Checkpoint, recipe: HeadRecipe, kept: Bottlenecks, gathered: Gathered
) -> tuple[Head, bool]:
    """A head, and whether it is that of an interrupted run."""
    if settings.resume:
        if head := checkpoint.load(recipe):
            print(f"resumed at step {head.step} of {recipe.steps}", flush=True)
            return head, True
        log.warning("--resume: no interrupted run was found in %s; a new one begins", checkpoint.folder.parent)
    elif checkpoint.exists:
        log.warning("%s: an interrupted run is begun anew; --resume would go on with it", checkpoint.folder)
        checkpoint.remove()
    plain, _ = _labelled(gathered, kept, "train")
    return Head.new(recipe, Scale.of(plain), len(gathered.labels)), False


def _fine_tune(
    model: keras.Model,
    settings: RetrainSettings,
    gathered: Gathered,
    backbone: Backbone,
    head: Head,
    checkpoint: Checkpoint,
    resumed: bool,
    stop: Stop,
) -> None:
    """In place. What an interruption leaves is the best so far; going on, its epochs are counted anew from there."""
    if resumed and checkpoint.load_network(model):
        return
    checkpoint.save(head)
    fine_tune(
        model, gathered.split.train, gathered.split.held_out, gathered.labels, backbone.spec, settings.fine_tune,
        settings.fine_tune_epochs, settings.fine_tune_rate, min(settings.train_batch_size, 32), _distortion(settings),
        settings.seed, stop,
    )  # fmt: skip
    stopped = stop()
    checkpoint.save_network(model, not stopped)
    if stopped:
        raise Interrupted(f"the fine-tuned network so far is kept in {checkpoint.folder}")


def _test(
    model: keras.Model,
    layer: tuple[Array, Array],
    settings: RetrainSettings,
    gathered: Gathered,
    backbone: Backbone,
    kept: Bottlenecks,
    stop: Stop,
) -> Report | None:
    features, truth = _labelled(gathered, kept, "test")
    if not len(truth):
        return None
    if settings.fine_tune:
        found = logits(model, gathered.split.test, backbone.spec, stop)
    else:
        found = features @ layer[0] + layer[1]
    report = score(found, truth, gathered.labels)
    low, high = wilson(report.correct, report.total)
    print(f"Final test accuracy = {report.accuracy:.1%} (N={report.total})")
    print(f"95 % interval: {low:.1%} to {high:.1%}", flush=True)
    if settings.print_misclassified_test_images:
        names = [str(photo.path) for photo in gathered.split.test]
        print("\n".join(misclassified(names, truth, found, gathered.labels)), flush=True)
    return report


def _card(
    settings: RetrainSettings,
    gathered: Gathered,
    backbone: Backbone,
    head: Head,
    held_out: tuple[float, float],
    temperature: float,
    report: Report | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    how = f", its last {settings.fine_tune} block(s) fine-tuned" if settings.fine_tune else ""
    folders = [Path(folder) for folder in settings.image_dir]
    name = Path(backbone.name).name
    card: dict[str, Any] = {
        "name": Path(settings.out).absolute().name,
        "description": f"One dense softmax layer on {name}{how}.",
        "input": input_as_card(backbone.spec),
        "output": {"labels": list(gathered.labels), "activation": "none"},
        "backbone": {
            "name": name,
            "weights": Path(settings.weights).name if backbone.name.startswith("keras:") else "",
            "fingerprint": backbone.fingerprint,
            "features": backbone.width,
        },
        "data": gathered.as_card(folders),
        "split": split_as_card(gathered.split, settings),
    }
    if report is not None:
        card["test"] = report.as_card()
    if gathered.split.held_out:
        accuracy, cross_entropy = held_out  # of what is served, but for the temperature
        card["validation"] = {
            "photos": len(gathered.split.held_out), "top_1": round(accuracy, 4),
            "cross_entropy": round(cross_entropy, 4), "step": head.best_step,
            "temperature": round(temperature, 3),
        }  # fmt: skip
    said = {name: value for name, value in asdict(settings).items() if name not in NOT_ON_THE_CARD}
    card["training"] = said | asdict(head.recipe)
    card["minutes"] = {name: round(value / 60, 2) for name, value in seconds.items()}
    return card
