"""A pretrained network without its last layer, from every form it comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .tiny_backbone import CARD, tiny_backbone

keras = pytest.importorskip("keras", reason="Keras is not installed")

from fairway.worker.card import InputSpec, InputUnknown  # noqa: E402
from fairway.worker.errors import ConfigurationError  # noqa: E402
from fairway.worker.training.backbone import open_backbone  # noqa: E402

NOTOP = "models/keras_notop/mobilenet_2_5_224_tf_no_top.h5"
FULL = "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"


def batch(side: int, count: int = 2) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_with_its_top_and_without_the_features_are_the_same(tmp_path: Path, top: bool, suffix: str) -> None:
    path = tiny_backbone(tmp_path / f"net{suffix}", top=top)
    backbone = open_backbone(str(path), "imagenet", 0, {})
    assert backbone.width == 8
    assert (backbone.spec.width, backbone.spec.height, backbone.spec.mean) == (16, 16, (127.5,))
    whole = keras.saving.load_model(path, compile=False)
    maps = whole(batch(16)) if not top else keras.Model(whole.inputs[0], whole.get_layer("maps").output)(batch(16))
    np.testing.assert_allclose(backbone.features()(batch(16)), np.mean(maps, axis=(1, 2)), atol=1e-6)


def test_earlier_maps_are_features_as_well(tmp_path: Path) -> None:
    layers = keras.layers
    picture = x = keras.Input((32, 32, 3))
    for width, stride in ((4, 1), (5, 2), (6, 2), (7, 2), (8, 1), (9, 1)):
        x = layers.ReLU()(layers.Conv2D(width, 3, stride, padding="same")(x))
    keras.Model(picture, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))).save(tmp_path / "net.keras")
    said: dict[str, Any] = {"mean": [0.0], "std": [255.0]}
    backbone = open_backbone(str(tmp_path / "net.keras"), "imagenet", 0, said)
    last = open_backbone(str(tmp_path / "net.keras"), "imagenet", 0, said, earlier=False)
    assert last.width == 9
    # The last of 8 x 8 and of 16 x 16, and the one before the last; what is pooled already is not counted twice.
    assert backbone.width == 9 + 6 + 5 + 8
    np.testing.assert_allclose(backbone.features()(batch(32))[:, :9], last.features()(batch(32)), atol=1e-6)
    assert backbone.fingerprint != last.fingerprint


def test_dense_layers_within_blocks_are_no_top(tmp_path: Path) -> None:
    """ConvNeXt's convolutions of one pixel are such."""
    layers = keras.layers
    picture = keras.Input((16, 16, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Dense(5)(layers.Dense(9)(layers.Conv2D(4, 3)(picture))))
    keras.Model(picture, pooled).save(tmp_path / "net.keras")
    said: dict[str, Any] = {"mean": [0.0], "std": [255.0]}
    assert open_backbone(str(tmp_path / "net.keras"), "imagenet", 0, said, earlier=False).width == 5


def test_a_card_that_wants_whole_numbers_is_no_backbone_s(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "net.keras", card=False)
    card = {"input": {"width": 16, "height": 16, "dtype": "uint8"}}
    path.with_name("net.model_card.json").write_text(json.dumps(card))
    with pytest.raises(ConfigurationError, match="takes uint8"):
        open_backbone(str(path), "imagenet", 0, {})


def test_its_mark_tells_other_weights_and_other_preprocessing(tmp_path: Path) -> None:
    path = str(tiny_backbone(tmp_path / "net.keras"))
    said: list[dict[str, Any]] = [{}, {}, {"resize": "pad"}, {"mean": [0.0], "std": [255.0]}]
    marks = [open_backbone(path, "imagenet", 0, raw).fingerprint for raw in said]
    other = open_backbone(str(tiny_backbone(tmp_path / "other.keras", seed=2)), "imagenet", 0, {}).fingerprint
    assert marks[0] == marks[1]
    assert len({*marks, other}) == 4


def test_nobody_guesses_how_pixels_are_scaled(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "net.keras", card=False)
    with pytest.raises(InputUnknown, match="--input-mean and --input-std"):
        open_backbone(str(path), "imagenet", 0, {})
    backbone = open_backbone(str(path), "imagenet", 0, {"mean": [0.0], "std": [255.0], "resize": "pad"})
    assert backbone.spec == InputSpec(width=16, height=16, resize="pad", mean=(0.0,), std=(255.0,))


def test_a_card_that_says_crop_and_no_more_means_its_own_size(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "net.keras", card=False)
    path.with_name("net.model_card.json").write_text(json.dumps({"input": CARD["input"] | {"resize": "crop"}}))
    assert open_backbone(str(path), "imagenet", 0, {}).spec.resize_to == 16


def test_a_card_of_another_size_is_scaled_to_what_is_asked_for(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "net.keras", side=None)
    card = json.loads(json.dumps(CARD))
    card["input"] |= {"resize": "crop", "resize_to": 20}
    path.with_name("net.model_card.json").write_text(json.dumps(card))
    spec = open_backbone(str(path), "imagenet", 32, {}).spec
    assert (spec.width, spec.height, spec.resize_to) == (32, 32, 40)


def test_a_size_that_the_network_cannot_take(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "net.keras")
    with pytest.raises(ConfigurationError, match="--input-size 20: this backbone takes 16 x 16 only"):
        open_backbone(str(path), "imagenet", 20, {})


def test_what_is_no_backbone_is_said(tmp_path: Path) -> None:
    gray = tmp_path / "gray.keras"
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]).save(gray)
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"PK\3\4 no model")
    for wanted, weights, text in (
        (str(gray), "imagenet", "does not take pictures of three channels"),
        (str(broken), "imagenet", "Keras cannot load it"),
        (str(tmp_path / "none.keras"), "imagenet", "no such file"),
        (str(tmp_path / "model.onnx"), "imagenet", r"ends in .keras or .h5"),
        ("keras:MobileNet9", "imagenet", "Keras has no such application"),
        ("keras:MobileNet", str(tmp_path / "none.h5"), "no such file; expected one, or imagenet"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            open_backbone(wanted, weights, 0, {})


def test_the_width_of_a_mobilenet_shows_in_its_weights(shared_data: Path) -> None:
    backbone = open_backbone("keras:MobileNet", str(shared_data / NOTOP), 64, {}, earlier=False)
    assert backbone.width == 256
    assert (backbone.spec.width, backbone.spec.mean, backbone.spec.std) == (64, (127.5,), (127.5,))
    features = backbone.features()(batch(64))
    assert features.shape == (2, 256)
    assert features.std() > 0.01  # weights of which some were not read give maps of noughts


def test_weights_of_another_network_are_refused(shared_data: Path) -> None:
    with pytest.raises(ConfigurationError, match="they do not fit keras:MobileNet, with its top or without"):
        open_backbone("keras:MobileNet", str(shared_data / FULL), 64, {})


def test_weights_with_imagenets_top(shared_data: Path) -> None:
    backbone = open_backbone("keras:MobileNetV2", str(shared_data / FULL), 224, {})
    assert backbone.width == 1280 + 576 + 192 + 960  # and the last maps of 14 x 14, of 28 x 28, and before the last
    assert (backbone.spec.width, backbone.spec.resize_to) == (224, 224)  # all of the shorter side
    whole = keras.applications.MobileNetV2(weights=None)
    whole.load_weights(shared_data / FULL)
    weights, bias = whole.layers[-1].get_weights()
    found = backbone.features()(batch(224, 1))[:, :1280] @ weights + bias
    np.testing.assert_allclose(np.exp(found - found.max()) / np.exp(found - found.max()).sum(), whole(batch(224, 1)),
                               atol=1e-4)  # fmt: skip
