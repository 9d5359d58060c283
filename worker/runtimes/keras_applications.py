"""Keras Applications by name: what each family does to its pixels, and the ImageNet labels.

Source: `preprocess_input` of each module of keras.applications ("tf", "caffe" and "torch" modes); the newest families
scale inside the model. The middle is cut out at 87.5 %, as in the evaluations that gave the published accuracies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..card import Channels, InputSpec
from ..errors import ConfigurationError

log = logging.getLogger("fairway.worker")

CROP = 0.875  # of the shorter side

Scaling = tuple[tuple[float, ...], tuple[float, ...], Channels]
INCEPTION: Scaling = ((127.5,), (127.5,), "RGB")
CAFFE: Scaling = ((103.939, 116.779, 123.68), (1.0,), "BGR")
TORCH: Scaling = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB")
INSIDE: Scaling = ((0.0,), (1.0,), "RGB")

# Prefix of the model's name -> scaling; longer prefixes first, so that ResNet50V2 is not taken for a ResNet.
FAMILIES: list[tuple[str, Scaling]] = [
    ("MobileNetV3", INSIDE),
    ("MobileNet", INCEPTION),
    ("InceptionResNetV2", INCEPTION),
    ("InceptionV3", INCEPTION),
    ("Xception", INCEPTION),
    ("NASNet", INCEPTION),
    ("ResNet50V2", INCEPTION),
    ("ResNet101V2", INCEPTION),
    ("ResNet152V2", INCEPTION),
    ("ResNet", CAFFE),
    ("VGG", CAFFE),
    ("DenseNet", TORCH),
    ("EfficientNet", INSIDE),
    ("ConvNeXt", INSIDE),
]


def application(name: str) -> tuple[Callable[..., Any], Scaling]:
    """What makes the Keras model `name`, and what its family does to pixels. Raises ConfigurationError naming all."""
    family = next((scaling for prefix, scaling in FAMILIES if name.startswith(prefix)), None)
    factory = getattr(keras.applications, name, None)
    if family is None or not callable(factory):
        known = sorted(n for n in dir(keras.applications) if n[0].isupper())
        raise ConfigurationError(f"keras:{name}: Keras has no such application; it has {', '.join(known)}")
    return factory, family


def build(name: str, weights: str) -> tuple[Any, InputSpec]:
    """The Keras model `name` with ImageNet's head, and how it wants its input."""
    factory, family = application(name)
    if weights and not Path(weights).is_file():
        raise ConfigurationError(f"--weights {weights}: no such file")
    try:
        model = factory(weights=None if weights else "imagenet")
        if weights:
            model.load_weights(weights)
    except Exception as error:  # Keras raises anything from URLError to ValueError here
        source = weights or "Keras's download"
        raise ConfigurationError(f"keras:{name}: cannot load the weights from {source}: {str(error)[:300]}") from error
    height, width = model.input_shape[1:3]
    mean, std, channels = family
    spec = InputSpec(
        width=width, height=height, channels=channels, resize="crop", resize_to=round(min(width, height) / CROP),
        mean=mean, std=std,
    )  # fmt: skip
    return model, spec


def imagenet_labels(outputs: int) -> tuple[str, ...]:
    """Keras's own list, which it downloads once; empty if that is not possible here."""
    if outputs != 1000:
        return ()
    try:
        rows = keras.applications.imagenet_utils.decode_predictions(np.eye(1000, dtype=np.float32), top=1)
    except Exception as error:
        log.warning("no ImageNet labels (%s): classes are called by number; give --labels FILE", str(error)[:100])
        return ()
    return tuple(row[0][1] for row in rows)
