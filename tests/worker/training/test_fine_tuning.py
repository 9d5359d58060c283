"""Fine-tuning: which layers learn, that they do learn, and that what is kept is never worse than what there was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
keras = tf.keras
layers = keras.layers

from fairway.worker.card import InputSpec  # noqa: E402
from fairway.worker.dataset.folder import Photo, read_folder  # noqa: E402
from fairway.worker.errors import BrokenImage, ConfigurationError  # noqa: E402
from fairway.worker.image import decode, to_array  # noqa: E402
from fairway.worker.training.distortion import Distortion  # noqa: E402
from fairway.worker.training.fine_tuning import blocks_of, fine_tune  # noqa: E402

SPEC = InputSpec(width=8, height=8, mean=(127.5,), std=(127.5,))
LABELS = ("flat", "striped")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Photo, ...]:
    """Flat and striped squares of any colour."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for label in LABELS:
        (folder / label).mkdir()
        for number in range(40):
            pixels = np.full((8, 8, 3), rng.integers(60, 150, 3), np.uint8)
            if label == "striped":
                pixels[::2] += 100
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return read_folder(folder)


def network(nested: bool = False, seed: int = 3) -> Any:
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    x = image
    for number in (1, 2, 3):
        x = layers.Conv2D(6, 3, padding="same", name=f"block_{number}_conv")(x)
        x = layers.BatchNormalization(name=f"block_{number}_BN")(x)
        x = layers.ReLU(name=f"block_{number}_relu")(x)
    x = layers.Conv2D(6, 1, name="Conv_1")(x)
    backbone = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    backbone.trainable = False  # as it is while the head is trained
    head = layers.Dense(2, name="logits")
    return keras.Sequential([backbone, head]) if nested else keras.Model(image, head(backbone.output))


def tuned(model: Any, train: Any, validation: Any, **more: Any) -> Any:
    settings = {"blocks": 1, "epochs": 4, "learning_rate": 0.02, "batch": 8, "seed": 5} | more
    return fine_tune(model, train, validation, LABELS, SPEC, **settings)


def accuracy(model: Any, photos: Any) -> float:
    pixels = np.stack([to_array(decode(photo.path.read_bytes()), SPEC) for photo in photos])
    called = model(pixels, training=False).numpy().argmax(axis=1)
    return float(np.mean([LABELS[number] == photo.label for number, photo in zip(called, photos, strict=True)]))


def names(blocks: list[list[Any]]) -> list[list[str]]:
    return [[layer.name for layer in block] for block in blocks]


def weights(model: Any) -> dict[str, Any]:
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.mark.parametrize("nested", [False, True])
def test_the_last_blocks_and_the_head_learn_and_nothing_else(photos: tuple[Photo, ...], nested: bool) -> None:
    model = network(nested)
    before = weights(model)
    after = weights(tuned(model, photos, (), blocks=2, epochs=1))
    changed = {path.split("/")[-2] for path, value in before.items() if not np.array_equal(value, after[path])}
    assert changed == {"block_2_conv", "block_3_conv", "Conv_1", "logits"}  # and no BN: neither averages nor scales


def test_it_learns(photos: tuple[Photo, ...], capsys: pytest.CaptureFixture[str]) -> None:
    validation, train = photos[::4], [photo for i, photo in enumerate(photos) if i % 4]
    model = network()
    before = accuracy(model, validation)
    after = accuracy(tuned(model, train, validation, blocks=9, epochs=6), validation)
    said = capsys.readouterr().out
    found = [float(number) for number in re.findall(r"Validation accuracy = ([\d.]+)% \(N=20\)", said)]
    assert len(found) == 6
    assert 100 * after == pytest.approx(max(found))  # the best of them is what is kept
    assert after > max(before, 0.8)
    assert "Fine-tuning 6/6: Train accuracy = " in said


def test_it_is_never_worse_than_it_was(photos: tuple[Photo, ...]) -> None:
    """A rate that destroys everything: the state it came with is the best there is."""
    good = tuned(network(), photos, photos, blocks=9, epochs=8)
    before, kept = accuracy(good, photos), weights(good)
    assert before > 0.9
    ruined = tuned(good, photos, photos, blocks=9, epochs=2, learning_rate=1e6)
    for path, value in weights(ruined).items():
        np.testing.assert_array_equal(value, kept[path])


def test_without_validation_the_last_state_is_kept(photos: tuple[Photo, ...]) -> None:
    model = network()
    before = weights(model)["logits/kernel"]
    assert not np.array_equal(weights(tuned(model, photos, (), epochs=1))["logits/kernel"], before)


def test_equal_seeds_give_equal_networks(photos: tuple[Photo, ...]) -> None:
    """Whatever the threads that decode do."""
    distortion = Distortion(flip_left_right=True, random_crop=20, random_brightness=10)
    first, second, other = (
        weights(tuned(network(), photos, (), epochs=2, distortion=distortion, seed=seed)) for seed in (1, 1, 2)
    )
    for path, value in first.items():
        np.testing.assert_allclose(value, second[path], atol=1e-5)
    assert not np.allclose(first["logits/kernel"], other["logits/kernel"], atol=1e-5)


def test_it_stops_at_the_next_step(photos: tuple[Photo, ...], capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) >= 3

    tuned(network(), photos, photos, epochs=50, stop=stop)
    assert len(asked) == 4  # three steps, and the end of the epoch
    assert capsys.readouterr().out.count("Fine-tuning") == 1


def test_a_photo_that_broke_meanwhile_is_an_error(photos: tuple[Photo, ...], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff half of it")
    with pytest.raises(BrokenImage):
        tuned(network(), [*photos, Photo(tmp_path / "broken.jpg", "flat")], ())
    with pytest.raises(ConfigurationError, match="needs photos"):
        tuned(network(), (), photos)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("MobileNetV2", 18, "block_16_expand", "Conv_1_bn"),
        ("MobileNetV3Small", 12, "expanded_conv_10_expand", "conv_2"),
        ("MobileNet", 14, "conv_dw_13", "conv_pw_13_bn"),
        ("ResNet50", 17, "conv5_block3_1_conv", "conv5_block3_3_bn"),
    ],
)
def test_blocks_of_keras_applications(name: str, count: int, first: str, last: str) -> None:
    blocks = names(blocks_of(getattr(keras.applications, name)(weights=None)))
    assert (len(blocks), blocks[-1][0], blocks[-1][-1]) == (count, first, last)


def test_blocks_without_such_names() -> None:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    for left, right in ("bc", "de"):
        y = layers.Conv2D(4, 3, padding="same", name=left)(x)
        x = layers.Add()([x, layers.Conv2D(4, 3, padding="same", name=right)(layers.BatchNormalization()(y))])
    pooled = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    joined = keras.Model(image, layers.Dense(2, name="head")(pooled))
    assert [[name for name in block if len(name) == 1] for block in names(blocks_of(joined))] == [
        ["a", "b", "c"],
        ["d", "e"],
    ]
    plain = keras.Sequential([keras.Input((4,)), *(layers.Dense(3, name=name) for name in ("a", "b", "head"))])
    assert names(blocks_of(plain)) == [["a"], ["b"]]
