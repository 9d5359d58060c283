"""One run of the small network: its photos in memory, its steps, its averaged weights, and a checkpoint to go on from.

What is kept of a run is an exponential moving average of its weights. These never saw a batch together, so at the end the
network's normalization is settled anew: clean views are run through it, weights fixed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .. import image
from ..accuracy import Report, score
from ..card import InputSpec
from ..dataset.folder import Photo
from ..errors import ConfigurationError, WorkerError
from .augment import mixed, random_view
from .features import hashed, logits
from .gathering import Gathered
from .network import small_network
from .recipe import Recipe
from .split import Split, warnings, without_leaks, without_unlearnt
from .stopping import Interrupted

log = logging.getLogger("fairway.training")

EVALUATED = 10  # epochs between two looks at what is held out; the checkpoint is written then, too
ABOUT = "about"


def spec_of(recipe: Recipe) -> InputSpec:
    """Whole photos, cut to a square; the network scales pixels itself."""
    return InputSpec(width=recipe.serve_size, height=recipe.serve_size, resize="crop")


def stored(photo: Photo, side: int) -> NDArray[np.uint8]:
    """The whole photo, shorter side `side`, as (height, width, 3) uint8."""
    picture = image.decode(photo.path.read_bytes())
    scale = side / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Photos:
    """`arrays`: the train part, as `stored`. `aside`: photos that are not used, with the reason."""

    split: Split
    arrays: list[NDArray[np.uint8]]
    aside: dict[Path, str]

    def as_card(self, folders: Sequence[Path]) -> dict[str, Any]:
        return Gathered(self.split, {}, self.aside, 0).as_card(folders)


def gather(split: Split, recipe: Recipe, stop: Callable[[], bool]) -> Photos:
    """Opens each photo once; what is broken, or stands in two parts, is named and set aside. Raises Interrupted."""
    photos = (*split.train, *split.held_out, *split.test)
    keys, unread = hashed(photos, stop)
    aside = dict(unread)

    def decode(photo: Photo) -> NDArray[np.uint8] | None:
        try:
            return stored(photo, recipe.stored_size) if photo.path in keys else None
        except (OSError, WorkerError) as error:
            aside[photo.path] = str(error)
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        arrays = dict(zip(photos, pool.map(decode, photos), strict=True))
    split, leaks = without_leaks(split, {path: key for path, key in keys.items() if path not in aside})
    aside |= {photo.path: "also stands in the test or held out set" for photo in leaks}
    split, strange = without_unlearnt(split)
    aside |= {photo.path: "its class has no photo to learn from" for photo in strange}
    for path, reason in sorted(aside.items()):
        log.warning("%s is set aside: %s", path, reason)
    for warning in warnings(split.train):
        log.warning("%s", warning)
    return Photos(split, [array for photo in split.train if (array := arrays[photo]) is not None], aside)


def views(arrays: Sequence[NDArray[np.uint8]], truth: Sequence[int], classes: int, recipe: Recipe) -> Iterator[Any]:
    """An endless stream of (batch, size, size, 3) views 0..255 and (batch, classes) targets, float32."""
    ragged = tf.ragged.stack([tf.constant(array.reshape(-1)) for array in arrays])
    shapes, numbers = tf.constant([array.shape for array in arrays]), tf.constant(truth)

    def view(index: Any) -> tuple[Any, Any]:
        return random_view(tf.reshape(ragged[index], shapes[index]), recipe), tf.one_hot(numbers[index], classes)

    indices = tf.data.Dataset.range(len(arrays)).shuffle(len(arrays), seed=recipe.seed).repeat()
    batch = min(recipe.batch, len(arrays))
    return iter(indices.map(view, num_parallel_calls=2).batch(batch, drop_remainder=True).prefetch(4))


class Run:
    """`checkpoint`: the file to go on from, if `resume` says so and it is there.

    Raises ConfigurationError if it is of another run.
    """

    def __init__(self, photos: Photos, recipe: Recipe, checkpoint: Path, resume: bool = False) -> None:
        keras.utils.set_random_seed(recipe.seed)
        self.split = split = photos.split
        self.recipe, self.labels, self._checkpoint = recipe, split.labels, checkpoint
        self.history: list[dict[str, float]] = []
        self.seconds, self.step = 0.0, 0
        self.model = small_network(recipe, len(self.labels))
        self.steps = max(1, len(split.train) // recipe.batch)  # an epoch
        self._optimizer = _optimizer(recipe, self.steps)
        self._optimizer.build(self.model.trainable_variables)
        self._began = time.monotonic()
        if resume:
            self._load()
        elif checkpoint.exists():
            log.warning("%s is of a run that was interrupted; --resume would go on with it. It is replaced", checkpoint)
        keras.utils.set_random_seed(recipe.seed + self.step)  # who goes on does not see the same views again
        truth = [self.labels.index(photo.label) for photo in split.train]
        self._views = views(photos.arrays, truth, len(self.labels), recipe)

    def fit(self, stop: Callable[[], bool]) -> None:
        """To the last epoch. Raises Interrupted once `stop()` is true; the checkpoint then holds all that was done."""
        train_step = self._train_step()
        total = self.steps * self.recipe.epochs
        losses: list[float] = []
        began, first = time.monotonic(), self.step
        bar: tqdm[NoReturn] = tqdm(total=total, initial=self.step, desc="training", unit="step", disable=None)
        with bar:
            while self.step < total:
                if stop():
                    self.save()
                    raise Interrupted(f"in epoch {self._epoch} of {self.recipe.epochs}, kept in {self._checkpoint}")
                mix = tf.constant(self._epoch <= self.recipe.epochs * self.recipe.mix_until)
                losses.append(float(train_step(*next(self._views), mix)))
                self.step += 1
                bar.update()
                if self.step % self.steps == 0:
                    left = (time.monotonic() - began) / (self.step - first) * (total - self.step)
                    self._close_epoch(float(np.mean(losses)), left, bar)
                    losses = []
        self.save()

    def finish(self, stop: Callable[[], bool]) -> Report:
        """The averaged weights, with normalization of their own -> how good they are on the test photos, else on those
        that were held out. Raises Interrupted."""
        self._optimizer.finalize_variable_values(self.model.trainable_variables)
        forward = tf.function(lambda pictures: self.model(pictures, training=True))
        for _ in range(2 * self.steps):
            if stop():
                raise Interrupted(f"after the last epoch, before the test; kept in {self._checkpoint}")
            forward(next(self._views)[0])
        return self._judge(self.split.test or self.split.held_out, stop)[0]

    def save(self) -> None:
        """The checkpoint, whole or not at all."""
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "run": self._about(),
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds + time.monotonic() - self._began,
        }
        arrays: dict[str, Any] = {f"{i}": variable.numpy() for i, variable in enumerate(self._variables())}
        arrays[ABOUT] = np.array(json.dumps(about))
        part = self._checkpoint.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(self._checkpoint)

    @property
    def minutes(self) -> float:
        """Of this run and of those that it goes on from."""
        return (self.seconds + time.monotonic() - self._began) / 60

    @property
    def _epoch(self) -> int:
        return 1 + self.step // self.steps

    def _close_epoch(self, loss: float, left: float, bar: tqdm[NoReturn]) -> None:
        epoch, epochs = self.step // self.steps, self.recipe.epochs
        row: dict[str, float] = {"epoch": epoch, "cross_entropy": loss}
        said = f"epoch {epoch}/{epochs}  loss {loss:.4f}"
        looked = epoch % EVALUATED == 0 or epoch == epochs
        if looked and self.split.held_out:
            report, entropy = self._judge(self.split.held_out)
            row |= {"validation_accuracy": report.accuracy, "validation_cross_entropy": entropy}
            said += f"  held out {report.accuracy:.3f}"
            bar.set_postfix_str(f"held out {report.accuracy:.3f}")
        self.history.append(row)
        if looked:
            self.save()
        if looked or bar.disable:
            bar.write(f"{said}  {left / 60:.0f} min left")

    def _judge(self, photos: Sequence[Photo], stop: Callable[[], bool] = lambda: False) -> tuple[Report, float]:
        """Photos as a worker sees them -> how many are called right, and the mean cross entropy in nats."""
        truth = np.array([self.labels.index(photo.label) for photo in photos], np.int64)
        given = logits(self.model, photos, spec_of(self.recipe), stop)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, given).numpy()
        return score(given, truth, self.labels), float(entropy.mean()) if len(photos) else 0.0

    def _train_step(self) -> Any:
        model, optimizer, recipe = self.model, self._optimizer, self.recipe

        @tf.function
        def step(pictures: Any, targets: Any, mix: Any) -> Any:
            if mix:
                pictures, targets = mixed(pictures, targets, recipe)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(
                    keras.losses.categorical_crossentropy(
                        targets,
                        model(pictures, training=True),
                        from_logits=True,
                        label_smoothing=recipe.label_smoothing,
                    )
                )
            optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )
            return loss

        return step

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self._optimizer.variables]

    def _about(self) -> dict[str, Any]:
        """What a run has in common with one that goes on with it."""
        named = "\n".join(f"{photo.label}/{photo.path.name}" for photo in self.split.train)
        return json.loads(json.dumps(asdict(self.recipe))) | {"photos": hashlib.sha256(named.encode()).hexdigest()}

    def _load(self) -> None:
        if not self._checkpoint.exists():
            log.warning("--resume: there is no %s to go on from; the run begins anew", self._checkpoint)
            return
        variables = self._variables()
        try:
            # Opened here: of a file that is none NumPy leaves its own open.
            with self._checkpoint.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                about = json.loads(str(file[ABOUT]))
                kept = [file[f"{i}"] for i in range(len(file.files) - 1)]
            run, self.step, self.history = about["run"], about["step"], about["history"]
            self.seconds = about["seconds"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s); the run begins anew", self._checkpoint, error)
            return
        mine = self._about()
        if other := sorted(name for name in mine | run if mine.get(name) != run.get(name)):
            raise ConfigurationError(
                f"--resume: the run that was interrupted had other settings ({', '.join(other)}); "
                "give the same, or begin anew without --resume"
            )
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        log.info("going on in epoch %d of %d", self._epoch, self.recipe.epochs)


def _optimizer(recipe: Recipe, steps: int) -> Any:
    """AdamW with a moving average of the weights; cosine decay to zero after the warm-up."""
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
    return optimizer
