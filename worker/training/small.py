"""Train the small network from scratch and write a versioned SavedModel with its card: `scripts/train`.

scripts/train --images flowers_small --images flowers --out worker/models/flowers
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from .. import image
from ..accuracy import Report, score
from ..card import CARD_FILE, InputSpec
from ..dataset.folder import Photo
from ..export.savedmodel import write_saved_model
from .augment import mixed, random_view
from .network import small_network
from .recipe import Recipe
from .split import read_split


def spec_of(recipe: Recipe) -> InputSpec:
    return InputSpec(width=recipe.serve_size, height=recipe.serve_size, resize="crop")


def stored(photo: Photo, side: int) -> np.ndarray[Any, Any]:
    """The whole photo, shorter side `side`, as uint8."""
    picture = image.decode(photo.path.read_bytes())
    scale = side / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def batches(photos: Sequence[Photo], labels: tuple[str, ...], recipe: Recipe) -> Any:
    """An endless tf.data stream of (batch, size, size, 3) views and (batch, classes) targets."""
    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(lambda photo: stored(photo, recipe.stored_size), photos))
    ragged = tf.ragged.stack([tf.constant(array.reshape(-1)) for array in arrays])
    shapes = tf.constant([array.shape for array in arrays])
    truth = tf.constant([labels.index(photo.label) for photo in photos])

    def view(index: Any) -> tuple[Any, Any]:
        photo = tf.reshape(ragged[index], shapes[index])
        return random_view(photo, recipe), tf.one_hot(truth[index], len(labels))

    indices = tf.data.Dataset.range(len(photos)).shuffle(len(photos), seed=recipe.seed).repeat()
    return indices.map(view, num_parallel_calls=2).batch(recipe.batch, drop_remainder=True).prefetch(4)


def arrays_of(photos: Sequence[Photo], spec: InputSpec) -> np.ndarray[Any, Any]:
    """(n, height, width, 3) float32, made exactly as a worker makes them."""
    return np.stack([image.to_array(image.decode(photo.path.read_bytes()), spec) for photo in photos])


def evaluate(model: keras.Model, photos: Sequence[Photo], labels: tuple[str, ...], spec: InputSpec) -> Report:
    logits = model.predict(arrays_of(photos, spec), batch_size=50, verbose=0)
    return score(logits, np.array([labels.index(photo.label) for photo in photos]), labels)


def train(folders: Sequence[Path], out: Path, recipe: Recipe) -> Report:
    """Fit, average, evaluate once on the test rows, write `out/N/` and `out/model_card.json`."""
    keras.utils.set_random_seed(recipe.seed)
    split = read_split(folders, recipe.held_out_percent)
    labels = split.labels
    print(f"{len(split.train)} photos to learn from, {len(split.held_out)} held out, {len(split.test)} for the test")
    model = small_network(recipe, len(labels))
    steps = len(split.train) // recipe.batch
    warm_up = min(recipe.warm_up_epochs, recipe.epochs // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * (recipe.epochs - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=steps * warm_up,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=recipe.weight_decay,
        use_ema=True,
        ema_momentum=recipe.average_decay,
        global_clipnorm=5.0,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(views: Any, targets: Any, mix: Any) -> Any:
        if mix:
            views, targets = mixed(views, targets, recipe)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.categorical_crossentropy(
                    targets, model(views, training=True), from_logits=True, label_smoothing=recipe.label_smoothing
                )
            )
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    stream = iter(batches(split.train, labels, recipe))
    began = time.monotonic()
    for epoch in range(1, recipe.epochs + 1):
        mix = tf.constant(epoch <= recipe.epochs * recipe.mix_until)
        loss = sum(float(step(*next(stream), mix)) for _ in range(steps)) / steps
        line = f"epoch {epoch}/{recipe.epochs}  loss {loss:.4f}"
        if epoch % 10 == 0 and split.held_out:
            line += f"  held out {evaluate(model, split.held_out, labels, spec_of(recipe)).accuracy:.3f}"
        left = (time.monotonic() - began) / epoch * (recipe.epochs - epoch)
        print(f"{line}  {left / 60:.0f} min left", flush=True)

    optimizer.finalize_variable_values(model.trainable_variables)
    _settle_normalization(model, stream, steps)
    report = evaluate(model, split.test or split.held_out, labels, spec_of(recipe))
    _write(model, out, labels, recipe, report, len(split.train), minutes=(time.monotonic() - began) / 60)
    return report


def _settle_normalization(model: keras.Model, stream: Any, steps: int) -> None:
    """Averaged weights want statistics of their own: run clean views through, weights fixed."""
    forward = tf.function(lambda views: model(views, training=True))
    for _ in range(2 * steps):
        forward(next(stream)[0])


def _write(
    model: keras.Model, out: Path, labels: tuple[str, ...], recipe: Recipe, report: Report, photos: int, minutes: float
) -> None:
    """A new numbered version, renamed into place whole; then the card and the labels."""
    version = 1 + max((int(p.name) for p in out.glob("[0-9]*") if p.name.isdigit()), default=0)
    fresh = out / f".{version}.part"
    write_saved_model(model, fresh)
    fresh.rename(out / str(version))
    spec = spec_of(recipe)
    card = {
        "name": out.name,
        "version": version,
        "description": "A small residual network, trained from scratch, without pretrained weights.",
        "input": {
            "width": spec.width,
            "height": spec.height,
            "channels": spec.channels,
            "resize": spec.resize,
            "filter": spec.filter,
        },
        "output": {"labels": list(labels), "activation": "none"},
        "test": report.as_card(),
        "training": {"photos": photos, "minutes": round(minutes), "parameters": model.count_params(), **asdict(recipe)},
    }
    (out / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__)
    parser.add_argument(
        "--images", type=Path, action="append", required=True, help="folder with one sub-folder a class"
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder; each run adds the next version to it")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    given = parser.parse_args(arguments)
    os.makedirs(given.out, exist_ok=True)
    report = train(given.images, given.out, replace(Recipe(), epochs=given.epochs, seed=given.seed))
    print(json.dumps(report.as_card(), indent=1))


if __name__ == "__main__":
    main()
