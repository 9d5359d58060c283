"""What a photo looks like each time it is shown: another window, tilt, mirror and light; then blended with another."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from .recipe import Recipe


def random_view(photo: Any, recipe: Recipe) -> Any:
    """(height, width, 3) uint8 -> (train_size, train_size, 3) float32 0..255: one affine resampling, then colour."""
    size = float(recipe.train_size)
    shape = tf.cast(tf.shape(photo), tf.float32)
    height, width = shape[0], shape[1]
    area = height * width * tf.random.uniform((), *recipe.window_area)
    aspect = tf.exp(tf.random.uniform((), -math.log(recipe.window_aspect), math.log(recipe.window_aspect)))
    wide, high = tf.minimum(tf.sqrt(area * aspect), width), tf.minimum(tf.sqrt(area / aspect), height)
    centre_x = wide / 2 + tf.random.uniform(()) * (width - wide)
    centre_y = high / 2 + tf.random.uniform(()) * (height - high)
    angle = tf.random.uniform((), -1.0, 1.0) * math.radians(recipe.rotation_degrees)
    mirror = tf.where(tf.random.uniform(()) < 0.5, -1.0, 1.0)
    # Row-major 2x3 of "where in the photo does this output pixel come from".
    a, b = tf.cos(angle) * wide / size * mirror, -tf.sin(angle) * high / size
    c, d = tf.sin(angle) * wide / size * mirror, tf.cos(angle) * high / size
    half = (size - 1) / 2
    transform = tf.stack([a, b, centre_x - (a + b) * half, c, d, centre_y - (c + d) * half, 0.0, 0.0])
    view = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(photo, tf.float32)[None],
        transforms=transform[None],
        output_shape=tf.constant([recipe.train_size, recipe.train_size]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]
    view = tf.reshape(view, (recipe.train_size, recipe.train_size, 3)) / 255.0
    view = tf.image.random_brightness(view, recipe.brightness)
    view = tf.image.random_contrast(view, 1 - recipe.contrast, 1 + recipe.contrast)
    view = tf.clip_by_value(view, 0.0, 1.0)
    view = tf.image.random_saturation(view, 1 - recipe.saturation, 1 + recipe.saturation)
    view = tf.image.random_hue(view, recipe.hue)
    return tf.clip_by_value(view, 0.0, 1.0) * 255.0


def mixed(images: Any, targets: Any, recipe: Recipe) -> tuple[Any, Any]:
    """A batch blended with itself in another order: mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899), by turns."""
    order = tf.random.shuffle(tf.range(tf.shape(images)[0]))
    others, other_targets = tf.gather(images, order), tf.gather(targets, order)
    first = tf.random.gamma((), recipe.mix_alpha)
    share = first / (first + tf.random.gamma((), recipe.mix_alpha) + 1e-9)
    size = recipe.train_size
    side = tf.sqrt(1.0 - share) * size
    x, y = tf.random.uniform((2, 1), 0, size), tf.range(size, dtype=tf.float32)
    rows = tf.abs(y - x[0]) < side / 2
    columns = tf.abs(y - x[1]) < side / 2
    patch = tf.cast(tf.logical_and(rows[:, None], columns[None, :]), tf.float32)
    cut = tf.random.uniform(()) < 0.5
    mask = tf.where(cut, patch, tf.fill((size, size), 1.0 - share))
    weight = tf.reduce_mean(mask)
    blended = images * (1.0 - mask[None, :, :, None]) + others * mask[None, :, :, None]
    return blended, targets * (1.0 - weight) + other_targets * weight
