"""How a card is changed for a model that takes whole numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fairway.worker.card import InputSpec
from fairway.worker.image import to_array
from fairway.worker.tensor import Signature, TensorSpec

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.export.writing import quantised, sized, with_both_ends
from fairway.worker.runtimes.tensorflow_graphs import Function

PIXELS = np.arange(256, dtype=np.float64)


@pytest.mark.parametrize(
    ("mean", "std", "scale", "zero"),
    [
        (0.0, 1.0, 1.0, 0),
        (0.0, 255.0, 1 / 255, 0),
        (127.5, 127.5, 2 / 255, 127),  # 127.5 is no whole number: the pixel is as near as 127 is
        (127.5, 127.5, 2 / 255, 128),
    ],
)
def test_the_usual_scalings_leave_the_pixels_as_they_are(mean: float, std: float, scale: float, zero: int) -> None:
    spec = quantised(InputSpec(width=2, height=2, mean=(mean,), std=(std,)), scale, zero)
    assert (spec.mean, spec.std, spec.dtype) == ((0.0,), (1.0,), "uint8")


@given(
    st.tuples(*[st.floats(-50, 300)] * 3), st.tuples(*[st.floats(0.5, 300)] * 3), st.floats(1e-3, 1), st.integers(0, 255)
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_other_scalings_are_kept(mean: tuple[float, ...], std: tuple[float, ...], scale: float, zero: int) -> None:
    spec = quantised(InputSpec(width=2, height=2, mean=mean, std=std), scale, zero)
    new = zip(spec.mean * (3 // len(spec.mean)), spec.std * (3 // len(spec.std)), strict=True)
    for m, s, (new_m, new_s) in zip(mean, std, new, strict=True):
        fed, right = (PIXELS - new_m) / new_s, (PIXELS - m) / s / scale + zero
        assert np.allclose(fed, right, rtol=1e-6, atol=0.52 if spec.mean == (0.0,) else 1e-3)


def test_what_took_whole_numbers_before_is_left_alone() -> None:
    spec = InputSpec(width=2, height=2, dtype="uint8")
    assert quantised(spec, 0.0, 0) == spec


@pytest.mark.parametrize(
    "said", [{}, {"channels": "L"}, {"layout": "chw"}, {"flatten": True}, {"mean": (1.0, 2.0, 3.0)}, {"resize": "crop"}]
)
def test_one_picture_gets_a_black_and_a_white_pixel(said: dict[str, Any]) -> None:
    spec = InputSpec(**{"width": 6, "height": 5, "std": (2.0,), **said})
    gray, black, white = (
        to_array(Image.new("RGB", (6, 5), (level,) * 3), replace(spec, resize="none")) for level in (99, 0, 255)
    )
    changed = with_both_ends(gray, spec)
    assert (changed.min(), changed.max()) == (black.min(), white.max())
    assert (changed != gray).sum() == 2 * (1 if spec.channels == "L" else 3)


@pytest.mark.parametrize(
    ("shape", "batch", "said", "expected"),
    [
        ((None, None, None, 3), None, {}, (None, 5, 6, 3)),
        ((None, None, None, 3), 1, {}, (1, 5, 6, 3)),
        ((None, 3, None, None), None, {"layout": "chw"}, (None, 3, 5, 6)),
        ((None, 90), 1, {"flatten": True}, (1, 90)),
        ((None, 8, 8, 3), None, {}, (None, 8, 8, 3)),
        ((None, None, None, 3), None, {"resize": "none"}, (None, None, None, 3)),
    ],
)
def test_the_size_of_pictures_is_fixed(
    shape: tuple[int | None, ...], batch: int | None, said: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    signature = Signature("s", (TensorSpec("image", "float32", shape),), ())
    function = sized(Function(signature, None), InputSpec(**{"width": 6, "height": 5, **said}), batch)
    assert function.signature.inputs[0].shape == expected
