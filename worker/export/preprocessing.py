"""A model card's preprocessing as TensorFlow operations: what `worker/image.py` does to a picture, done in the graph.

Servers that know no model cards, as TensorFlow Serving, then see what a worker shows the model. Measured against it on
photos: on average pixels differ by less than 0.25 of 255, single ones by 2 (bilinear) or 10 (lanczos), all of it where
Pillow chooses another order of its two passes, between which it rounds. `nearest` may take the neighbour where two pixels
are equally near.

Not in the graph: EXIF's orientation, transparency laid on white (it is dropped), formats but JPEG, PNG and still GIF (new
versions of TensorFlow read some more), and the card's `reduced`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..card import InputSpec

# Pillow's kernels by TensorFlow's names; both widen them when they shrink a picture.
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}
LUMA = (19595, 38470, 7471)  # ITU-R 601-2 times 2 ** 16, as Pillow's convert("L") has it


def to_item(encoded: Any, spec: InputSpec) -> Any:
    """() string, one encoded picture -> one item of the batch, of the shape and dtype that `image.to_item` gives."""
    if spec.kind != "pixels":
        return encoded
    # Of all decoders this one takes the other formats as well, and the slow, exact transform, which is Pillow's too.
    pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    if spec.channels == "L":
        pixels = _gray(pixels)
    pixels = _resized(pixels, spec)
    if spec.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    if spec.mean != (0.0,) or spec.std != (1.0,):
        pixels = (pixels - tf.constant(spec.mean, tf.float32)) / tf.constant(spec.std, tf.float32)
    if spec.dtype == "uint8":
        pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
    if spec.layout == "chw":
        pixels = tf.transpose(pixels, (2, 0, 1))
    if spec.flatten:
        pixels = tf.reshape(pixels, (-1,))
    return tf.ensure_shape(tf.cast(pixels, spec.dtype), item_shape(spec))


def item_shape(spec: InputSpec) -> tuple[int | None, ...]:
    """Of one item; None where it depends on the picture."""
    if spec.kind != "pixels":
        return ()
    depth = 1 if spec.channels == "L" else 3
    fixed = spec.resize != "none"
    width, height = (spec.width, spec.height) if fixed else (None, None)
    if spec.flatten:
        return (spec.width * spec.height * depth if fixed else None,)
    return (depth, height, width) if spec.layout == "chw" else (height, width, depth)


def _gray(pixels: Any) -> Any:
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * tf.constant(LUMA), axis=2, keepdims=True)
    return tf.bitwise.right_shift(weighted + 0x8000, 16)


def _resized(pixels: Any, spec: InputSpec) -> Any:
    """(height, width, 1 or 3) integers -> float32 0..255 of the size that the card asks for."""
    if spec.resize == "none":
        return tf.cast(pixels, tf.float32)
    target = tf.constant((spec.height, spec.width), tf.float32)
    size = tf.cast(tf.shape(pixels)[:2], tf.float32)
    if spec.resize == "pad":
        inner = tf.maximum(tf.round(size * tf.reduce_min(target / size)), 1)
        offset = tf.floor((target - inner) / 2)
        inside = _window(pixels, tf.zeros(2), size, tf.cast(inner, tf.int32), spec)
        after = target - inner - offset
        margins = tf.stack([[offset[0], after[0]], [offset[1], after[1]], [0.0, 0.0]])
        return tf.pad(inside, tf.cast(margins, tf.int32))
    begin, extent = tf.zeros(2), size
    if spec.resize == "crop":
        scale = tf.maximum(tf.reduce_max(target / size), spec.resize_to / tf.reduce_min(size))
        extent = tf.minimum(target / scale, size)
        begin = (size - extent) / 2
    return _window(pixels, begin, extent, tf.constant((spec.height, spec.width)), spec)


def _window(pixels: Any, begin: Any, extent: Any, size: Any, spec: InputSpec) -> Any:
    """What lies in the window from `begin` on, `extent` large, both (rows, columns) in pixels, at another size."""
    if spec.filter == "nearest":
        for axis in range(2):
            places = tf.range(tf.cast(size[axis], tf.float64), dtype=tf.float64) + 0.5
            scale = tf.cast(extent[axis], tf.float64) / tf.cast(size[axis], tf.float64)
            nearest = tf.cast(tf.floor(tf.cast(begin[axis], tf.float64) + places * scale), tf.int32)
            pixels = tf.gather(pixels, nearest, axis=axis)
        return tf.cast(pixels, tf.float32)
    pixels = tf.cast(pixels, tf.float32)
    if spec.filter == "tf-bilinear":
        return _drawn(pixels, begin, extent, size, "triangle", antialias=False)
    for axis in (1, 0):  # as Pillow does it: whole numbers in between as well
        along = tf.constant([float(axis == 0), float(axis == 1)])
        whole = tf.cast(tf.shape(pixels)[:2], tf.float32)
        wanted = tf.cast(along * tf.cast(size, tf.float32) + (1 - along) * whole, tf.int32)
        drawn = _drawn(pixels, along * begin, along * extent + (1 - along) * whole, wanted, KERNELS[spec.filter])
        pixels = tf.clip_by_value(tf.round(drawn), 0, 255)
    return pixels


def _drawn(pixels: Any, begin: Any, extent: Any, size: Any, kernel: str, antialias: bool = True) -> Any:
    scale = tf.cast(size, tf.float32) / extent
    return tf.raw_ops.ScaleAndTranslate(
        images=pixels[None], size=size, scale=scale, translation=-begin * scale, kernel_type=kernel, antialias=antialias
    )[0]
