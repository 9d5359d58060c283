"""The engine around a model that is understood at a glance: ready, bounded, and alive after every failure."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.worker.card import Activation, Card
from fairway.worker.engine import Engine, activated
from fairway.worker.errors import (
    BrokenImage,
    ConfigurationError,
    ModelError,
    NotAnImage,
    NotReady,
    Overloaded,
    TooLarge,
)
from fairway.worker.image import ImageLimits

from .colours import LABELS, Colours, plain

RED = plain("#c02020")


@pytest.fixture
async def model() -> Colours:
    return Colours()


@pytest.fixture
async def engine(model: Colours) -> AsyncIterator[Engine]:
    engine = Engine(model, ImageLimits(max_bytes=100_000, max_pixels=10_000), threads=2, max_waiting=3)
    await engine.warm_up()
    model.entered.clear()
    yield engine
    model.gate.set()
    engine.close()


async def entered(model: Colours) -> None:
    assert await asyncio.to_thread(model.entered.wait, 5), "predict was never called"


async def test_it_answers_best_first(engine: Engine) -> None:
    prediction = await engine.classify(RED, top=2)
    assert prediction.label == "red"
    assert [label for label, _ in prediction] == ["red", "green"]
    assert prediction.score == pytest.approx(0xC0 / (0xC0 + 0x40))
    assert len(await engine.classify(memoryview(RED), top=10**9)) == 3


async def test_ready_means_warmed_up(model: Colours) -> None:
    engine = Engine(model, ImageLimits(), threads=1, max_waiting=3)
    assert not engine.ready
    assert repr(engine) == "<Engine colours [loading | 0 waiting of 3]>"
    with pytest.raises(NotReady):
        await engine.classify(RED, top=1)
    assert not model.entered.is_set()  # nor is the model bothered before

    model.gate.clear()
    warming = asyncio.create_task(engine.warm_up())
    await entered(model)
    assert not engine.ready  # not before the first inference is through
    model.gate.set()
    await warming
    assert engine.ready
    assert repr(engine) == "<Engine colours [ready | 0 waiting of 3]>"

    engine.draining = True
    assert not engine.ready
    assert (await engine.classify(RED, top=1)).label == "red"  # whoever still holds the address is served
    assert repr(engine) == "<Engine colours [draining | 0 waiting of 3]>"
    engine.close()


class Broken(Colours):
    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise RuntimeError("no kernel for this device")


async def test_a_model_that_cannot_warm_up_is_a_matter_of_configuration() -> None:
    """No restart would cure it, so it must not be taken for a crash."""
    engine = Engine(Broken(), ImageLimits(), threads=1, max_waiting=3)
    with pytest.raises(ConfigurationError, match=r"colours fails on a plain picture.*no kernel for this device"):
        await engine.warm_up()
    assert not engine.ready
    engine.close()


async def test_labels_that_do_not_fit_are_found_by_the_warm_up(model: Colours) -> None:
    model.card = Card(model.card.input, (*LABELS, "violet"))
    engine = Engine(model, ImageLimits(), threads=1, max_waiting=3)
    with pytest.raises(ConfigurationError, match="colours has 3 outputs, but there are 4 labels"):
        await engine.warm_up()
    assert not engine.ready
    engine.close()


async def test_more_than_it_may_hold_is_refused_at_once(engine: Engine, model: Colours) -> None:
    model.gate.clear()
    held = [asyncio.create_task(engine.classify(RED, top=1)) for _ in range(3)]
    await entered(model)
    assert engine.waiting == 3
    for _ in range(2):
        with pytest.raises(Overloaded, match="3 requests are waiting already") as caught:
            await engine.classify(RED, top=1)
        assert caught.value.status == 429
    assert repr(engine) == "<Engine colours [ready | 3 waiting of 3]>"
    model.gate.set()
    assert [p.label for p in await asyncio.gather(*held)] == ["red"] * 3
    assert engine.waiting == 0
    assert (await engine.classify(RED, top=1)).label == "red"


async def test_a_caller_who_gives_up_makes_room(engine: Engine, model: Colours) -> None:
    model.gate.clear()
    held = [asyncio.create_task(engine.classify(RED, top=1)) for _ in range(3)]
    await entered(model)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert engine.waiting == 0
    waiting = asyncio.create_task(engine.classify(plain("blue"), top=1))
    model.gate.set()
    assert (await waiting).label == "blue"


async def test_the_loop_stays_responsive_while_the_model_works(engine: Engine, model: Colours) -> None:
    model.gate.clear()
    held = asyncio.create_task(engine.classify(RED, top=1))
    await entered(model)
    turns = 0
    for _ in range(1000):
        await asyncio.sleep(0)
        turns += 1
    assert turns == 1000
    assert not held.done()
    model.gate.set()
    assert (await held).label == "red"


FAILURES = [
    (plain("black"), ModelError, "the model failed: ArithmeticError: black has no colour"),
    (plain("white"), ModelError, "not finite"),
    (b"hello", NotAnImage, "not an image"),
    (RED[: len(RED) // 2], BrokenImage, "broken image"),
    (plain("red", (101, 100)), TooLarge, "101 x 100"),
    (bytes(100_001), TooLarge, "100001 bytes"),
]


@pytest.mark.parametrize(("upload", "error", "text"), FAILURES, ids=[text for _, _, text in FAILURES])
async def test_after_every_failure_the_next_request_is_served(
    engine: Engine, upload: bytes, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await engine.classify(upload, top=1)
    assert engine.waiting == 0
    assert (await engine.classify(RED, top=1)).label == "red"


async def test_many_at_once_get_each_their_own_answer(model: Colours) -> None:
    engine = Engine(model, ImageLimits(), threads=4, max_waiting=300)
    await engine.warm_up()
    colours = [("#c01010", "red"), ("#10c010", "green"), ("#1010c0", "blue")] * 40
    answers = await asyncio.gather(*(engine.classify(plain(colour), top=1) for colour, _ in colours))
    assert [answer.label for answer in answers] == [name for _, name in colours]
    engine.close()


# -- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "scores", "expected"),
    [
        ("none", [1.0, -2.0, 700.0], [1.0, -2.0, 700.0]),
        ("softmax", [0.0, 0.0, 0.0, 0.0], [0.25] * 4),
        ("softmax", [0.0, np.log(3)], [0.25, 0.75]),
        ("softmax", [1000.0, 0.0], [1.0, 0.0]),  # no overflow
        ("softmax", [-1000.0, -1000.0], [0.5, 0.5]),
        ("sigmoid", [0.0, np.log(3)], [0.5, 0.75]),
        ("sigmoid", [1000.0, -1000.0], [1.0, 0.0]),
    ],
)
def test_activations(activation: Activation, scores: list[float], expected: list[float]) -> None:
    assert activated(np.array(scores, np.float32), activation) == pytest.approx(expected, abs=1e-6)


async def test_the_cards_activation_is_applied(model: Colours) -> None:
    model.card = dataclasses.replace(model.card, activation="softmax")
    engine = Engine(model, ImageLimits(), threads=1, max_waiting=3)
    await engine.warm_up()
    assert (await engine.classify(plain("#ff0000"), top=1)).score == pytest.approx(np.e / (np.e + 2))
    engine.close()
