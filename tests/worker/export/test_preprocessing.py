"""TensorFlow's operations make of a picture what Pillow's do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fairway.worker import image
from fairway.worker.card import InputSpec

from ...conftest import picture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.export.preprocessing import item_shape, to_item  # noqa: E402  it needs TensorFlow

SPECS = [
    *({"resize": resize, "filter": kernel} for resize in ("crop", "squash", "pad")
      for kernel in ("nearest", "bilinear", "bicubic", "lanczos", "tf-bilinear")),
    {"resize": "crop", "resize_to": 60},
    {"resize": "none"},
    {"channels": "L", "mean": (0.0,), "std": (255.0,)},
    {"channels": "BGR", "mean": (103.9, 116.8, 123.7)},
    {"channels": "BGR", "layout": "chw", "mean": (1.0, 2.0, 3.0), "std": (2.0, 4.0, 8.0)},
    {"flatten": True, "dtype": "uint8"},
    {"channels": "L", "flatten": True, "resize": "none"},
]  # fmt: skip


def file(kind: str, size: tuple[int, int]) -> bytes:
    return picture(5, size, kind)


@pytest.mark.parametrize("said", SPECS, ids=lambda said: "-".join(map(str, said.values())))
@pytest.mark.parametrize(("kind", "size"), [("PNG", (101, 70)), ("JPEG", (61, 97))], ids=["wide", "high"])
def test_as_a_worker_does_it(said: dict[str, Any], kind: str, size: tuple[int, int]) -> None:
    spec = InputSpec(**{"width": 48, "height": 40, **said})
    right = image.to_item(file(kind, size), spec)
    given = to_item(tf.constant(file(kind, size)), spec).numpy()
    assert (given.shape, given.dtype) == (right.shape, right.dtype)
    assert all(n in (None, m) for n, m in zip(item_shape(spec), right.shape, strict=True))
    difference = np.abs(given.astype(np.float64) - right) * max(spec.std)
    exact = said.get("resize") == "none" or said.get("filter") == "tf-bilinear"
    assert difference.mean() < (0.01 if exact else 0.3)
    assert difference.max() < (0.1 if exact else 12)


def test_what_decodes_by_itself_gets_the_file() -> None:
    for kind in ("encoded", "raw"):
        spec = InputSpec(kind=kind, resize="none")
        assert to_item(tf.constant(b"whatever"), spec).numpy() == b"whatever"
        assert item_shape(spec) == ()


def test_a_still_gif_and_gray_pictures_are_read() -> None:
    spec = InputSpec(width=8, height=8)
    for mode, kind in (("P", "GIF"), ("L", "JPEG"), ("L", "PNG")):
        out = io.BytesIO()
        Image.new(mode, (20, 10), 200).save(out, kind)
        right = image.to_item(out.getvalue(), spec)
        np.testing.assert_allclose(to_item(tf.constant(out.getvalue()), spec).numpy(), right, atol=2)
