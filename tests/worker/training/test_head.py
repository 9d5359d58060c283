"""The new last layer: it learns, keeps its best, goes on where it was stopped, and serves features as they come."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.worker.training.head import (
    Array,
    Head,
    HeadRecipe,
    Scale,
    batches,
    calibrating,
    judged,
    labelled,
    smoothed,
    softmax,
    steps_of,
)

RECIPE = HeadRecipe(steps=60, batch=16, learning_rate=0.05, weight_decay=0.01, label_smoothing=0.0, seed=3)


def clouds(count: int = 120, classes: int = 3, width: int = 8) -> tuple[Array, NDArray[np.int64]]:
    """Points around one centre a class, of very different sizes along the axes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width)) * 3
    sizes = 10.0 ** rng.uniform(-2, 2, width)
    return ((centres[truth] + rng.normal(size=(count, width))) * sizes + 5).astype(np.float32), truth


def run(head: Head, features: Array, truth: NDArray[np.int64], until: int) -> Head:
    scaled = head.scale(features)
    epoch, passed = 0, 0
    while head.step < until:
        for number, places in enumerate(batches(len(truth), head.recipe, epoch)):
            if passed + number >= head.step and head.step < until:
                head.learn(scaled[places], truth[places])
                head.keep_if_best(*head.judge(scaled, truth))
        passed += steps_of(len(truth), head.recipe.batch)
        epoch += 1
    return head


def test_it_learns_to_tell_clouds_apart() -> None:
    features, truth = clouds()
    head = run(Head.new(RECIPE, Scale.of(features), 3), features, truth, RECIPE.steps)
    assert head.judge(head.scale(features), truth)[0] > 0.95


def test_what_is_served_takes_features_as_they_come() -> None:
    features, truth = clouds()
    head = run(Head.new(RECIPE, Scale.of(features), 3), features, truth, RECIPE.steps)
    assert head.best_weights is not None
    assert head.best_bias is not None
    weights, bias = head.folded()
    best = head.scale(features) @ head.best_weights + head.best_bias
    np.testing.assert_allclose(features @ weights + bias, best, rtol=0, atol=2e-3)


def test_going_on_ends_where_it_would_have_ended() -> None:
    features, truth = clouds()
    whole = run(Head.new(RECIPE, Scale.of(features), 3), features, truth, RECIPE.steps)
    half = run(Head.new(RECIPE, Scale.of(features), 3), features, truth, 23)
    half.history.append(
        {
            "step": 23,
            "train_accuracy": 0.5,
            "validation_accuracy": 0.25,
            "cross_entropy": 1,
            "validation_cross_entropy": 2,
        }
    )
    file = io.BytesIO()
    np.savez(file, **half.as_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as arrays:
        again = Head.from_arrays(RECIPE, dict(arrays))
    assert again.history == half.history
    run(again, features, truth, RECIPE.steps)
    np.testing.assert_array_equal(again.weights, whole.weights)
    np.testing.assert_array_equal(again.folded()[0], whole.folded()[0])
    assert (again.best, again.best_step) == (whole.best, whole.best_step)


def test_its_steps_are_those_of_keras() -> None:
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    features, truth = clouds(32)
    recipe = replace(RECIPE, steps=10**9, label_smoothing=0.1)  # so many that the rate does not fall meanwhile
    head = Head.new(recipe, Scale.of(features), 3)
    scaled = head.scale(features)
    theirs = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, epsilon=1e-8)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    theirs.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    for _ in range(5):
        head.learn(scaled, truth)
        theirs.train_on_batch(scaled, np.eye(3, dtype=np.float32)[truth])
    weights, bias = theirs.get_weights()
    np.testing.assert_allclose(head.weights, weights, atol=2e-4)
    np.testing.assert_allclose(head.bias, bias, atol=2e-4)


def test_the_best_is_kept_and_a_tie_is_decided_by_the_cross_entropy() -> None:
    features, _ = clouds()
    head = Head.new(RECIPE, Scale.of(features), 3)
    assert head.keep_if_best(0.8, 1.0)
    head.weights += 1
    assert not head.keep_if_best(0.8, 1.0)
    assert not head.keep_if_best(0.7, 0.1)
    assert head.best_weights is not None
    assert not head.best_weights.any()
    assert head.keep_if_best(0.8, 0.9)
    assert head.best_weights.all()


def test_an_epoch_shows_each_photo_once_in_an_order_of_its_own() -> None:
    first, again, second = (np.concatenate(list(batches(50, RECIPE, epoch))) for epoch in (0, 0, 1))
    assert sorted(first) == list(range(50))
    assert list(first) == list(again)
    assert list(first) != list(second)
    assert steps_of(50, 16) == 4


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, truth = clouds()
    features[:, 2] = 7
    head = run(Head.new(RECIPE, Scale.of(features), 3), features, truth, RECIPE.steps)
    assert all(np.isfinite(array).all() for array in head.folded())


def test_scores_become_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(1)
    logits: Array = (rng.normal(size=(4000, 3)) * 2).astype(np.float32)
    truth = np.array([rng.choice(3, p=row / row.sum()) for row in softmax(logits).astype(float)])
    assert calibrating(logits, truth) == pytest.approx(1.0, abs=0.1)
    assert calibrating(logits * np.float32(4), truth) == pytest.approx(4.0, rel=0.1)
    assert calibrating(logits / np.float32(4), truth) == pytest.approx(0.25, rel=0.1)
    assert calibrating(logits[:20] * np.float32(4), truth[:20]) == 1.0
    head = Head.new(RECIPE, Scale.of(clouds()[0]), 3)
    head.weights += 1
    np.testing.assert_allclose(head.folded(2.0)[0] * 2, head.folded()[0], rtol=1e-6)


def test_of_photos_that_are_all_right_scores_are_not_certain() -> None:
    truth = np.arange(60) % 3
    logits: Array = np.eye(3, dtype=np.float32)[truth] * np.float32(4)
    temperature = calibrating(logits, truth)
    assert 0.5 < temperature < 2
    assert softmax(logits / np.float32(temperature)).max() == pytest.approx(61 / 63, abs=0.005)


def test_scores_targets_and_numbers() -> None:
    np.testing.assert_allclose(softmax(np.array([[1000, 1000], [0, -1000]], np.float32)), [[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(smoothed(np.array([1]), 4, 0.2), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
    accuracy, cross_entropy = judged(np.log(np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)), np.array([0, 1]))
    assert accuracy == 0.5
    assert cross_entropy == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)
    assert np.isnan(judged(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))).all()
    assert list(labelled(["b", "a", "b"], ("a", "b"))) == [1, 0, 1]
