"""What a model is tried on before it is served: one item of each input of a signature."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image import ImageLimits
    from .model import Model
    from .tensor import Signature


def gray_picture() -> bytes:
    """An image file like any other, if a dull one."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(picture, "PNG")
    return picture.getvalue()


def sample(model: Model, limits: ImageLimits) -> dict[str, NDArray[Any]] | None:
    """One item of the default signature, without a dimension that counts items: a gray picture, or else zeros.

    None: its inputs' sizes are not known, or they are byte strings that mean something to the model alone.
    """
    signature = model.loaded.signatures[model.loaded.default]
    found: dict[str, NDArray[Any]] = {}
    for spec in signature.inputs:
        if model.card is not None and spec.name == model.image_input:
            found[spec.name] = image.to_item(gray_picture(), model.card.input, limits)
            continue
        shape = spec.shape if spec.shape is None or signature.batch is None else spec.shape[1:]
        if spec.dtype == "bytes" or shape is None or None in shape:
            return None
        try:
            found[spec.name] = np.zeros([size for size in shape if size is not None], spec.dtype)
        except TypeError:  # a dtype that NumPy alone does not know
            return None
    return found


def closed(signature: Signature) -> bool:
    """Whether all its items are of one size, so that one tells what another takes."""
    items = 0 if signature.batch is None else 1
    return all(
        spec.dtype != "bytes" and spec.shape is not None and None not in spec.shape[items:] for spec in signature.inputs
    )


def repeated(item: dict[str, NDArray[Any]], signature: Signature, items: int) -> dict[str, NDArray[Any]]:
    """Arrays for one call."""
    if signature.batch is None:
        return item
    return {name: np.stack([array] * items) for name, array in item.items()}
