"""A small residual network: four stages of two-convolution blocks, pooled shortcuts, one dense head that gives logits.

It takes RGB pixels 0..255 of any size (float32) and scales them itself, so that nobody can scale them wrongly.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from .recipe import Recipe


def small_network(recipe: Recipe, classes: int) -> keras.Model:
    """(n, height, width, 3) float32 0..255 -> (n, classes) float32 logits."""
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = _convolution(x, recipe.widths[0], stride=2)
    for stage, (width, blocks) in enumerate(zip(recipe.widths, recipe.blocks, strict=True)):
        for block in range(blocks):
            x = _residual(x, width, stride=2 if stage > 0 and block == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(recipe.dropout, seed=recipe.seed)(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name="small")


def _residual(x: Any, width: int, stride: int) -> Any:
    shortcut = x
    if stride != 1:
        shortcut = layers.AveragePooling2D(2, padding="same")(shortcut)
    if x.shape[-1] != width:
        shortcut = _convolution(shortcut, width, kernel=1, activate=False)
    y = _convolution(x, width, stride=stride)
    y = _convolution(y, width, activate=False)
    return layers.ReLU()(layers.Add()([shortcut, y]))


def _convolution(x: Any, width: int, kernel: int = 3, stride: int = 1, activate: bool = True) -> Any:
    x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.95)(x)
    return layers.ReLU()(x) if activate else x
