"""From a picture to the numbers a model is fed: another resize than the one it learnt with moves scores by tenths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fairway.worker.card import Filter, InputSpec, Resize
from fairway.worker.image import KERNELS, resize, to_array

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: its resize cannot be compared with ours")

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def scene(width: int, height: int) -> Image.Image:
    """Smooth in both directions, so that a shift of half a pixel shows, and rounding does not."""
    x, y = np.meshgrid(np.linspace(0, 250, width), np.linspace(0, 250, height))
    return Image.fromarray(np.stack([x, y, 250 - x], axis=2).astype(np.uint8))


def test_an_array_is_rows_of_columns_of_channels() -> None:
    array = to_array(Image.new("RGB", (40, 30), "#204080"), InputSpec(width=5, height=3))
    assert array.shape == (3, 5, 3)
    assert array.dtype == np.float32
    assert array[1, 2].tolist() == [0x20, 0x40, 0x80]


@given(SIZES, SIZES)
@settings(max_examples=40, deadline=None)
def test_tf_bilinear_is_tensorflows_own(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = noise(size)
    ours = resize(image, InputSpec(width=target[0], height=target[1], filter="tf-bilinear"))
    theirs = tf.image.resize(np.asarray(image), (target[1], target[0])).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_tf_bilinear_of_a_photo_sized_picture() -> None:
    image = noise((1801, 1203))
    ours = resize(image, InputSpec(width=224, height=160, filter="tf-bilinear"))
    np.testing.assert_allclose(ours, tf.image.resize(np.asarray(image), (160, 224)).numpy(), atol=1e-3)


@pytest.mark.parametrize("filter", [*KERNELS, "tf-bilinear"])
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (150, 150), (400, 90)])
def test_crop_is_scaling_the_whole_and_cutting_out_the_middle(size: tuple[int, int], filter: Filter) -> None:
    image = scene(*size)
    ours = resize(image, InputSpec(width=56, height=56, resize="crop", resize_to=64, filter=filter)).astype(float)
    scale = 64 / min(size)
    whole_size = (round(size[0] * scale), round(size[1] * scale))
    whole = resize(image, InputSpec(width=whole_size[0], height=whole_size[1], filter=filter)).astype(float)
    left, top = (whole_size[0] - 56) // 2, (whole_size[1] - 56) // 2
    window = whole[top : top + 56, left : left + 56]
    # Half a pixel's slope where whole and cut-out do not lie on the same grid; a nearest pixel may be the next one.
    slope = 250 / min(whole_size)
    assert np.abs(ours - window).max() <= slope * (1.01 if filter == "nearest" else 0.51) + 1
    if all((n - 56) % 2 == 0 for n in whole_size) and filter != "nearest":
        assert np.abs(ours - window).mean() <= 0.5


@pytest.mark.parametrize(
    ("size", "target", "resize_to", "kept"),
    [
        ((200, 100), (50, 50), 0, (50, 0, 150, 100)),  # the shorter side exactly
        ((100, 200), (50, 50), 0, (0, 50, 100, 150)),
        ((100, 100), (50, 50), 100, (25, 25, 75, 75)),  # the middle half
        ((100, 100), (50, 25), 0, (0, 25, 100, 75)),  # a wide target of a square picture: never bent
        ((100, 100), (25, 50), 0, (25, 0, 75, 100)),
        ((300, 100), (50, 25), 0, (50, 0, 250, 100)),
        ((100, 100), (50, 50), 20, (0, 0, 100, 100)),  # smaller than the target: still filled
    ],
)
def test_crop_keeps_the_middle_and_the_aspect_ratio(
    size: tuple[int, int], target: tuple[int, int], resize_to: int, kept: tuple[int, int, int, int]
) -> None:
    image = scene(*size)
    ours = resize(image, InputSpec(width=target[0], height=target[1], resize="crop", resize_to=resize_to))
    expected = image.crop(kept).resize(target, KERNELS["bilinear"])
    assert np.abs(ours.astype(int) - np.asarray(expected)).max() <= 3


def test_squash_takes_all_of_the_picture() -> None:
    image = scene(200, 50)
    ours = resize(image, InputSpec(width=40, height=40, resize="squash"))
    assert np.array_equal(ours, np.asarray(image.resize((40, 40), KERNELS["bilinear"])))
    assert ours[20, 0, 0] < 8 < 240 < ours[20, -1, 0]


@pytest.mark.parametrize("filter", ["bilinear", "tf-bilinear"])
@pytest.mark.parametrize(
    ("size", "inside"), [((200, 100), (0, 10, 40, 30)), ((100, 200), (10, 0, 30, 40)), ((7, 7), (0, 0, 40, 40)),
                         ((5000, 1), (0, 19, 40, 20))],
)  # fmt: skip
def test_pad_keeps_the_aspect_ratio_on_black(
    size: tuple[int, int], inside: tuple[int, int, int, int], filter: Filter
) -> None:
    ours = resize(Image.new("RGB", size, "white"), InputSpec(width=40, height=40, resize="pad", filter=filter))
    expected = np.zeros((40, 40, 3))
    left, top, right, bottom = inside
    expected[top:bottom, left:right] = 255
    assert np.abs(ours - expected).max() < 1


def test_none_leaves_the_size_to_the_model() -> None:
    image = noise((37, 21))
    assert np.array_equal(resize(image, InputSpec(resize="none")), np.asarray(image))


# -- numbers --------------------------------------------------------------------------------------------------------

PIXEL = Image.new("RGB", (1, 1), (10, 100, 200))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [10, 100, 200]),
        ({"channels": "BGR"}, [200, 100, 10]),
        ({"channels": "L"}, [84]),  # 0.299 R + 0.587 G + 0.114 B
        ({"mean": (127.5,), "std": (127.5,)}, [-0.92156863, -0.21568628, 0.5686275]),
        ({"mean": (0.0,), "std": (255.0,)}, [10 / 255, 100 / 255, 200 / 255]),
        ({"mean": (1.0, 2.0, 3.0), "std": (2.0, 4.0, 8.0)}, [4.5, 24.5, 24.625]),
        # Means belong to the channels in the order in which the model gets them.
        ({"channels": "BGR", "mean": (103.939, 116.779, 123.68)}, [96.061, -16.779, -113.68]),
        ({"channels": "L", "mean": (85.0,), "std": (2.0,)}, [-0.5]),
        ({"flatten": True}, [10, 100, 200]),
        ({"dtype": "uint8"}, [10, 100, 200]),
        ({"dtype": "uint8", "mean": (0.0,), "std": (0.5,)}, [20, 200, 255]),  # no wrapping around
        ({"dtype": "uint8", "mean": (50.0,)}, [0, 50, 150]),
        ({"dtype": "uint8", "filter": "tf-bilinear"}, [10, 100, 200]),
        ({"filter": "tf-bilinear"}, [10, 100, 200]),
    ],
)
def test_pixel_minus_mean_by_std(options: dict[str, Any], expected: list[float]) -> None:
    spec = InputSpec(width=1, height=1, **options)
    array: NDArray[Any] = to_array(PIXEL, spec)
    assert array.dtype == spec.dtype
    assert array.shape == ((len(expected),) if spec.flatten else (1, 1, len(expected)))
    assert array.reshape(-1) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("channels", ["RGB", "L"])
@pytest.mark.parametrize("resize_", ["crop", "squash", "pad"])
@given(size=SIZES, target=SIZES, filter=st.sampled_from([*KERNELS, "tf-bilinear"]))
@settings(max_examples=25, deadline=None)
def test_every_size_becomes_the_models(
    channels: Any, resize_: Resize, size: tuple[int, int], target: tuple[int, int], filter: Any
) -> None:
    spec = InputSpec(width=target[0], height=target[1], resize=resize_, filter=filter, channels=channels)
    array = to_array(Image.new("RGB", size, (200, 200, 200)), spec)
    assert array.shape == (target[1], target[0], 1 if channels == "L" else 3)
    assert array.flags.c_contiguous
    if resize_ != "pad":
        assert np.abs(array - 200).max() <= 1
