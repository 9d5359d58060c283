"""The last blocks of a pretrained network learn as well, slowly, after its new head has been trained.

What is kept is the best state by the photos held out for validation, and the state it came with is one of them: it never
gets worse there. Batch normalization stays as it was learnt on far more pictures than these: its averages do not move.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .. import image
from ..card import InputSpec
from ..dataset.folder import Photo
from ..errors import ConfigurationError
from ..runtimes.tensorflow_graphs import tf
from .distortion import Distortion

WARM_UP = 0.1  # of all steps; then the rate falls to zero along a cosine
AHEAD = 2  # batches that are decoded while one is learnt from

# How Keras Applications call the layers of a block: ResNet and DenseNet, ConvNeXt, MobileNetV2, Inception-ResNet,
# EfficientNet with Xception and VGG, MobileNet, MobileNetV3.
BLOCKS = [
    re.compile(pattern)
    for pattern in (
        r"^(conv\d+_block\d+)_",
        r"(stage_\d+_block_\d+)_",
        r"^(block_\d+)_",
        r"^(block\d+_\d+)_",
        r"^(block\d+[a-z]?)_",
        r"^conv_(?:dw|pw)_(\d+)(?:_|$)",
        r"^(expanded_conv(?:_\d+)?)_",
    )
]


def fine_tune(
    network: keras.Model,
    train: Sequence[Photo],
    validation: Sequence[Photo],
    labels: Sequence[str],
    spec: InputSpec,
    blocks: int,
    epochs: int,
    learning_rate: float,
    batch: int,
    distortion: Distortion | None = None,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> keras.Model:
    """`network` (float32 pictures after mean and std -> logits), changed in place: its head, and its last `blocks` blocks.

    Adam on the mean cross entropy, `learning_rate` at its peak; each epoch shows every photo once, in an order and with
    distortions that `seed` decides. Without validation photos nothing can be compared: the last state is kept. When
    `stop()` is true it ends at the next step, with the best so far.

    Raises ConfigurationError if there is nothing to learn from; of a photo that cannot be decoded its WorkerError.
    """
    if not train:
        raise ConfigurationError("fine-tuning needs photos to learn from")
    _unfreeze(network, blocks)
    variables = network.trainable_variables
    size = min(batch, len(train))
    steps = math.ceil(len(train) / size) * epochs
    warm_up = int(steps * WARM_UP)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    if warm_up:
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warm_up, warmup_target=learning_rate, warmup_steps=warm_up
        )
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(variables)
    shape = tf.TensorSpec((None, spec.height, spec.width, 3), tf.float32)

    @tf.function(input_signature=[shape, tf.TensorSpec((None,), tf.int32)])
    def step(pictures: Any, truth: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = network(pictures, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss, tf.reduce_mean(tf.cast(tf.argmax(logits, 1, tf.int32) == truth, tf.float32))

    numbers = {label: number for number, label in enumerate(labels)}
    judge = _judge(network, validation, numbers, spec, size, shape)
    best, kept = judge(), [variable.numpy() for variable in variables]
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=steps, desc="fine-tuning", disable=None) as bar:
        for epoch in range(1, epochs + 1):
            order = np.random.default_rng((seed, epoch)).permutation(len(train))

            def view(index: int, epoch: int = epoch) -> NDArray[np.float32]:
                return _view(train[index], spec, distortion, np.random.default_rng((seed, epoch, index)))

            seen: list[tuple[float, float]] = []
            for chosen, pictures in _batches(order, size, view, pool):
                truth = np.array([numbers[train[index].label] for index in chosen], np.int32)
                loss, right = step(pictures, truth)
                seen.append((float(loss), float(right)))
                bar.update()
                if stop():
                    break
            found = judge()
            loss, right = np.mean(seen, axis=0)
            said = f"Validation accuracy = {found[0]:.1%} (N={len(validation)})" if validation else "no validation"
            bar.write(f"Fine-tuning {epoch}/{epochs}: Train accuracy = {right:.1%}, Cross entropy = {loss:.6f}, {said}")
            if found > best or not validation:
                best, kept = found, [variable.numpy() for variable in variables]
            if stop():
                break
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)
    return network


def blocks_of(network: keras.Model) -> list[list[Any]]:
    """Its layers with something to learn, by block, in the order of the data; the last layer, its head, is not among them.

    Blocks are known by the names that Keras Applications give their layers; else one ends wherever branches are joined;
    else each layer is one. What follows the last block belongs to it.
    """
    leaves = list(_leaves(network))
    learning = [layer for layer in leaves if layer.weights]
    head = learning[-1] if learning else None
    named = _grouped(leaves, head, lambda layer, key: _name(layer.name) or key)
    if len(named) > 1:
        return named
    for kind in (keras.layers.Concatenate, keras.layers.Add):
        joins = {id(layer): str(number) for number, layer in enumerate(leaves) if isinstance(layer, kind)}
        if joins:
            return _grouped(leaves, head, lambda layer, key: key, after=joins)
    return [[layer] for layer in learning if layer is not head and layer.count_params()]


def _grouped(
    leaves: list[Any], head: Any, key_of: Callable[[Any, str], str], after: dict[int, str] | None = None
) -> list[list[Any]]:
    """Runs of layers with one key; `after`: what becomes the key behind a layer. Runs that learn nothing are left out."""
    groups: dict[str, list[Any]] = {}
    key = ""
    for layer in leaves:
        key = key_of(layer, key)
        if layer.weights and layer is not head:
            groups.setdefault(key, []).append(layer)
        key = (after or {}).get(id(layer), key)
    return [layers for layers in groups.values() if any(not _keeps_averages(layer) for layer in layers)]


def _name(layer: str) -> str:
    return next((found[1] for pattern in BLOCKS if (found := pattern.search(layer))), "")


def _leaves(layer: Any) -> Iterator[Any]:
    """Layers without layers in them, in order, however models are nested."""
    for inner in layer.layers:
        if getattr(inner, "layers", None):
            yield from _leaves(inner)
        else:
            yield inner


def _keeps_averages(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization | keras.layers.Normalization)


def _unfreeze(network: keras.Model, blocks: int) -> None:
    found = blocks_of(network)
    chosen = {id(layer) for block in found[max(0, len(found) - blocks) :] for layer in block}
    leaves = list(_leaves(network))
    head = next((layer for layer in reversed(leaves) if layer.weights), None)
    network.trainable = True  # a model that is frozen as a whole would hide what is in it
    for layer in leaves:
        # Keras: batch normalization that is not trainable uses its averages in training as well.
        layer.trainable = (id(layer) in chosen or layer is head) and not _keeps_averages(layer)


def _judge(
    network: keras.Model,
    photos: Sequence[Photo],
    numbers: dict[str, int],
    spec: InputSpec,
    size: int,
    shape: Any,
) -> Callable[[], tuple[float, float]]:
    """-> a function that gives (accuracy, -cross entropy): the larger pair is the better state."""
    forward = tf.function(lambda pictures: network(pictures, training=False), input_signature=[shape])
    truth = np.array([numbers[photo.label] for photo in photos], np.int32)

    def view(index: int) -> NDArray[np.float32]:
        return _view(photos[index], spec, None, np.random.default_rng(0))

    def judge() -> tuple[float, float]:
        if not photos:
            return 0.0, 0.0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            batches = _batches(np.arange(len(photos)), size, view, pool)
            logits = np.concatenate([forward(pictures).numpy() for _, pictures in batches])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits).numpy()
        return float((logits.argmax(1) == truth).mean()), -float(losses.mean())

    return judge


def _view(
    photo: Photo, spec: InputSpec, distortion: Distortion | None, rng: np.random.Generator
) -> NDArray[np.float32]:
    picture = image.decode(photo.path.read_bytes(), reduced_for=spec if spec.reduced else None)
    if distortion:
        return distortion.view(picture, spec, rng)
    return image.to_array(picture, spec)


def _batches(
    order: NDArray[Any], size: int, view: Callable[[int], NDArray[np.float32]], pool: ThreadPoolExecutor
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
    """(indices, (n, height, width, 3) float32), the next ones being made while one is worked on."""
    ahead: deque[tuple[NDArray[Any], list[Future[NDArray[np.float32]]]]] = deque()
    try:
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            ahead.append((chosen, [pool.submit(view, int(index)) for index in chosen]))
            if len(ahead) > AHEAD:
                first, views = ahead.popleft()
                yield first, np.stack([future.result() for future in views])
        while ahead:
            first, views = ahead.popleft()
            yield first, np.stack([future.result() for future in views])
    finally:
        for _, views in ahead:
            for future in views:
                future.cancel()
