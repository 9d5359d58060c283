"""Distorted views: none is what a worker sees, each kind does what retrain.py's formula says, and chance is given."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairway.worker.card import InputSpec
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import decode, to_array
from fairway.worker.training.distortion import Distortion

from ...conftest import picture

SPEC = InputSpec(width=48, height=32, resize="squash", mean=(127.5,), std=(127.5,))
SPECS = [
    SPEC,
    replace(SPEC, resize="crop"),
    replace(SPEC, resize="crop", resize_to=40, channels="BGR", mean=(103.939, 116.779, 123.68), std=(1.0,)),
    replace(SPEC, resize="pad", filter="tf-bilinear", mean=(0.0,), std=(1.0,)),
    InputSpec(resize="none"),
]


class Drawn(np.random.Generator):
    """A generator whose uniform numbers are known: scale, x, y, mirror, light."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = np.array(numbers)

    def uniform(self, *given: Any, **also: Any) -> Any:
        return self.numbers


def photo(size: tuple[int, int] = (120, 90)) -> Image.Image:
    return Image.open(io.BytesIO(picture(3, size))).convert("RGB")


def slope(size: tuple[int, int]) -> Image.Image:
    """Red grows from left to right, green from top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize}{spec.resize_to or ''}")
def test_without_distortion_it_is_what_a_worker_sees(spec: InputSpec) -> None:
    still = Distortion()
    assert not still
    view = still.view(photo(), spec, np.random.default_rng(1))
    assert view.dtype == np.float32
    np.testing.assert_array_equal(view, to_array(photo(), spec))


def test_real_photos_as_well(shared_data: Path) -> None:
    paths = sorted((shared_data / "flowers" / "daisy").glob("*.jpg"))[:5]
    assert paths
    for path in paths:
        real = decode(path.read_bytes())
        for spec in SPECS[:3]:
            np.testing.assert_array_equal(Distortion().view(real, spec, np.random.default_rng(0)), to_array(real, spec))


def test_the_mirror_is_even() -> None:
    flip, plain = Distortion(flip_left_right=True), to_array(photo(), SPEC)
    assert flip
    rng = np.random.default_rng(5)
    mirrored = 0
    for _ in range(400):
        view = flip.view(photo((60, 40)), SPEC, rng)
        if not np.array_equal(view, to_array(photo((60, 40)), SPEC)):
            np.testing.assert_array_equal(view[:, ::-1], to_array(photo((60, 40)), SPEC))
            mirrored += 1
    assert 150 < mirrored < 250
    np.testing.assert_array_equal(flip.view(photo(), SPEC, Drawn(0, 0, 0, 0.49, 0))[:, ::-1], plain)
    np.testing.assert_array_equal(flip.view(photo(), SPEC, Drawn(0, 0, 0, 0.5, 0)), plain)


@pytest.mark.parametrize(("light", "factor"), [(0.0, 0.7), (0.5, 1.0), (1.0, 1.3)])
def test_brightness_is_a_factor_before_the_mean(light: float, factor: float) -> None:
    view = Distortion(random_brightness=30).view(photo(), SPEC, Drawn(0, 0, 0, 0, light))
    raw = to_array(photo(), replace(SPEC, mean=(0.0,), std=(1.0,)))
    np.testing.assert_allclose(view, (raw * factor - 127.5) / 127.5, atol=1e-5)  # not clipped at white


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_crop_is_a_window_of_the_enlarged_picture(resize: Any) -> None:
    spec = InputSpec(width=50, height=50, resize=resize)
    ground = slope((400, 400))
    whole = to_array(ground, spec)
    corners = [
        Distortion(random_crop=100).view(ground, spec, Drawn(0, x, y, 0, 0)) for x, y in ((0, 0), (0.999, 0.999))
    ]
    for corner, edge in zip(corners, (0, -1), strict=True):
        assert corner.shape == (50, 50, 3)
        assert np.ptp(corner[:, :, 0]) == pytest.approx(np.ptp(whole[:, :, 0]) / 2, abs=3)  # twice as large
        assert np.ptp(corner[:, :, 1]) == pytest.approx(np.ptp(whole[:, :, 1]) / 2, abs=3)
        np.testing.assert_allclose(corner[edge, edge], whole[edge, edge], atol=3)


def test_the_scale_is_drawn_from_one_to_all_of_it() -> None:
    spec, ground = InputSpec(width=50, height=50), slope((400, 400))
    scaled = Distortion(random_scale=100)
    none, half, all_of_it = (
        np.ptp(scaled.view(ground, spec, Drawn(drawn, 0, 0, 0, 0))[:, :, 0]) for drawn in (0.0, 0.5, 0.9999)
    )
    assert none == np.ptp(to_array(ground, spec)[:, :, 0])
    assert half == pytest.approx(none / 1.5, abs=4)
    assert all_of_it == pytest.approx(none / 2, abs=4)
    both = Distortion(random_crop=100, random_scale=100).view(ground, spec, Drawn(0.9999, 0, 0, 0, 0))
    assert np.ptp(both[:, :, 0]) == pytest.approx(none / 4, abs=4)


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0, 300), st.floats(0, 300), st.floats(0, 100),
    st.sampled_from(SPECS[:4]), st.integers(0, 9),
)  # fmt: skip
def test_any_distortion_of_any_picture_fits(
    width: int, height: int, crop: float, scale: float, brightness: float, spec: InputSpec, seed: int
) -> None:
    distortion = Distortion(True, crop, scale, brightness)
    views = [distortion.view(photo((width, height)), spec, np.random.default_rng(seed)) for _ in range(2)]
    assert views[0].shape == (spec.height, spec.width, 3)
    np.testing.assert_array_equal(views[0], views[1])
    assert np.isfinite(views[0]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [({"random_crop": -1}, "--random-crop is -1"), ({"random_brightness": 101}, "darker than black")],
)
def test_what_cannot_be_is_said(given: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Distortion(**given)  # type: ignore[arg-type]
