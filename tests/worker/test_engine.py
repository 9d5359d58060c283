"""The engine around models that are understood at a glance: ready, bounded, and alive after every failure."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.worker.call import activated
from fairway.worker.card import Activation, Card
from fairway.worker.engine import Answer, Engine
from fairway.worker.errors import (
    BadRequest,
    BrokenImage,
    ConfigurationError,
    DeadlineExceeded,
    ModelError,
    NotAnImage,
    NotReady,
    Overloaded,
    TooLarge,
)
from fairway.worker.image import ImageLimits
from fairway.worker.model import Model

from .colours import LABELS, Colours, plain
from .doubles import Doubles, rows

RED = plain("#c02020")
LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000)


@pytest.fixture
async def colours() -> Colours:
    return Colours()


@pytest.fixture
async def model(colours: Colours) -> Model:
    return colours.model()


@pytest.fixture
async def engine(colours: Colours, model: Model) -> AsyncIterator[Engine]:
    engine = Engine(LIMITS, threads=2, max_waiting=3)
    await engine.add(model)
    colours.entered.clear()
    yield engine
    colours.gate.set()
    engine.close()


async def entered(colours: Colours) -> None:
    assert await asyncio.to_thread(colours.entered.wait, 10), "the model was never called"


def winner(answer: Answer, row: int = 0) -> str:
    return LABELS[int(answer.outputs["scores"][row].argmax())]


async def test_pictures_become_scores(engine: Engine, model: Model) -> None:
    answer = await engine.classify(model, [RED])
    scores = answer.outputs["scores"]
    assert (scores.shape, scores.dtype.name, list(answer.outputs)) == ((1, 3), "float32", ["scores"])
    assert scores[0] == pytest.approx([0xC0 / 0x100, 0x20 / 0x100, 0x20 / 0x100])
    assert answer.batch == 1
    assert answer.decode > 0
    assert answer.infer > 0
    assert answer.queue >= 0
    several = await engine.classify(model, [memoryview(RED), bytearray(plain("blue")), plain("#00ff00")])  # type: ignore[list-item]
    assert [winner(several, i) for i in range(3)] == ["red", "blue", "green"]
    with pytest.raises(BadRequest, match="no picture"):
        await engine.classify(model, [])


async def test_ready_means_warmed_up(colours: Colours, model: Model) -> None:
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    assert engine.alive
    assert not engine.ready
    assert repr(engine) == "<Engine no model [loading | 0 waiting of 3]>"
    colours.gate.clear()
    adding = asyncio.create_task(engine.add(model))
    await entered(colours)
    assert not engine.ready  # not before the first call is through
    with pytest.raises(NotReady, match="colours version 1 is not served"):
        await engine.classify(model, [RED])
    colours.gate.set()
    await adding
    assert engine.ready
    assert repr(engine) == "<Engine colours/1 [ready | 0 waiting of 3]>"
    assert engine.describe(model)["max"] >= 1
    assert engine.describe(model) == model.report["batching"]

    engine.draining = True
    assert not engine.ready
    assert winner(await engine.classify(model, [RED])) == "red"  # whoever still holds the address is served
    assert repr(engine) == "<Engine colours/1 [draining | 0 waiting of 3]>"
    engine.close()
    assert not engine.alive


class Broken(Colours):
    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise RuntimeError("no kernel for this device")


async def test_a_model_that_cannot_warm_up_is_a_matter_of_configuration() -> None:
    """No restart would cure it, so it must not be taken for a crash."""
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    with pytest.raises(ConfigurationError, match=r"colours fails on a plain picture.*no kernel for this device"):
        await engine.add(Broken().model())
    assert not engine.ready
    engine.close()


async def test_labels_that_do_not_fit_are_found_when_it_is_added(model: Model) -> None:
    assert model.card is not None
    model.card = Card(model.card.input, (*LABELS, "violet"))
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    with pytest.raises(ConfigurationError, match="colours has 3 outputs, but there are 4 labels"):
        await engine.add(model)
    assert not engine.ready
    engine.close()


async def test_a_model_whose_first_call_hangs_is_not_served(colours: Colours, model: Model) -> None:
    engine = Engine(LIMITS, threads=1, max_waiting=3, hang_seconds=0.2)
    colours.gate.clear()
    with pytest.raises(ConfigurationError, match=r"first calls hang: one did not end in 0\.2 s"):
        await engine.add(model)
    assert engine.alive  # whatever else it serves
    colours.gate.set()
    engine.close()


async def test_more_than_it_may_hold_is_refused_at_once(engine: Engine, colours: Colours, model: Model) -> None:
    colours.gate.clear()
    held = [asyncio.create_task(engine.classify(model, [RED])) for _ in range(3)]
    await entered(colours)
    assert engine.waiting == 3
    assert engine.load() == (3, 3 - engine._crew.busy, 1.0)
    for _ in range(2):
        with pytest.raises(Overloaded, match="3 requests are waiting already; try again in 1 s") as caught:
            await engine.classify(model, [RED])
        assert (caught.value.status, caught.value.queue, caught.value.retry_after) == (429, 3, 1.0)
    assert repr(engine) == "<Engine colours/1 [ready | 3 waiting of 3]>"
    colours.gate.set()
    assert [winner(answer) for answer in await asyncio.gather(*held)] == ["red"] * 3
    assert engine.waiting == 0
    assert winner(await engine.classify(model, [RED])) == "red"
    assert 'request_failure{model="colours",version="1",reason="REJECTED"} 2' in engine.metrics.text()
    assert 'request_success{model="colours",version="1"} 4' in engine.metrics.text()


async def test_when_to_come_again_is_told_from_how_long_answers_take() -> None:
    class Slow(Doubles):
        seconds = 0.0

        def pause(self, items: int) -> None:
            time.sleep(self.seconds)

    slow = Slow()
    engine = Engine(LIMITS, threads=1, max_waiting=5, batching="off")
    model = slow.model()
    await engine.add(model)
    slow.seconds = 0.4
    for _ in range(2):
        await engine.infer(model, rows(1))
    held = [asyncio.create_task(engine.infer(model, rows(1))) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await engine.infer(model, rows(1))
    assert 1.5 < caught.value.retry_after < 4
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    engine.close()


async def test_a_caller_who_gives_up_makes_room(engine: Engine, colours: Colours, model: Model) -> None:
    colours.gate.clear()
    held = [asyncio.create_task(engine.classify(model, [RED])) for _ in range(3)]
    await entered(colours)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert engine.waiting == 0
    waiting = asyncio.create_task(engine.classify(model, [plain("blue")]))
    colours.gate.set()
    assert winner(await waiting) == "blue"
    assert 'reason="CANCELED"} 3' in engine.metrics.text()


async def test_who_gave_up_before_it_began_is_not_run() -> None:
    doubles = Doubles()
    model = doubles.model()
    engine = Engine(LIMITS, threads=2, max_waiting=9, batching="off")
    await engine.add(model)
    doubles.hold()
    first = asyncio.create_task(engine.infer(model, rows(1)))
    await doubles.held()
    other, never = asyncio.create_task(engine.infer(model, rows(2))), asyncio.create_task(engine.infer(model, rows(3)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # they are handed over
    at_once = asyncio.create_task(engine.infer(model, rows(4)))
    await asyncio.sleep(0)
    at_once.cancel()  # before it is
    other.cancel()
    await asyncio.gather(other, at_once, return_exceptions=True)
    doubles.gate.set()
    await asyncio.gather(first, never)
    assert [call[0, 0] for call in doubles.calls] == [1, 3]
    engine.close()


async def test_who_is_cut_off_in_the_turn_in_which_it_came_leaves_nothing_behind() -> None:
    """As a connection does it that steps its handler by hand."""
    doubles = Doubles()
    model = doubles.model()
    engine = Engine(LIMITS, threads=2, max_waiting=9)
    await engine.add(model)
    doubles.calls.clear()
    asked = engine.infer(model, rows(1))
    asked.send(None)
    assert engine.waiting == 1
    with pytest.raises(asyncio.CancelledError):
        asked.throw(asyncio.CancelledError())
    assert engine.waiting == 0
    assert (await engine.infer(model, rows(2))).outputs["y"].tolist() == [[4, 4]]
    assert [call[0, 0] for call in doubles.calls] == [2]
    assert repr(engine._crew).endswith("0 ready, 0 running]>>")
    engine.close()


async def test_at_its_deadline_a_request_is_told_so_whatever_the_model_does() -> None:
    doubles = Doubles()
    model = doubles.model()
    engine = Engine(LIMITS, threads=2, max_waiting=9, batching="off")
    await engine.add(model)
    doubles.hold()
    began = time.monotonic()
    running = asyncio.create_task(engine.infer(model, rows(1), deadline=began + 0.5))
    await doubles.held()
    late = asyncio.create_task(engine.infer(model, rows(2), deadline=began + 0.3))
    patient = asyncio.create_task(engine.infer(model, rows(3), deadline=began + 60))
    for task, seconds in ((late, 0.3), (running, 0.5)):
        with pytest.raises(DeadlineExceeded) as caught:
            await task
        assert caught.value.status == 504
        assert seconds <= time.monotonic() - began < 5
    assert engine.waiting == 1
    with pytest.raises(DeadlineExceeded):
        await engine.infer(model, rows(4), deadline=time.monotonic() - 1)
    doubles.gate.set()
    assert (await patient).outputs["y"].tolist() == [[6, 6]]
    assert [call[0, 0] for call in doubles.calls] == [1, 3]
    assert 'reason="TIMEOUT"} 3' in engine.metrics.text()
    engine.close()


async def test_a_model_that_hangs_is_noticed() -> None:
    doubles = Doubles()
    model = doubles.model()
    engine = Engine(LIMITS, threads=2, max_waiting=9, hang_seconds=0.3)
    await engine.add(model)
    hung = asyncio.create_task(engine.hung())
    doubles.hold()
    held = [asyncio.create_task(engine.infer(model, rows(i))) for i in range(3)]
    await doubles.held()
    assert engine.alive
    assert not hung.done()
    async with asyncio.timeout(10):
        await hung
    assert not engine.alive
    assert not engine.ready
    assert repr(engine).startswith("<Engine doubles/1 [hung | ")
    for error in await asyncio.gather(*held, return_exceptions=True):
        assert isinstance(error, NotReady)
    with pytest.raises(NotReady, match="hangs"):
        await engine.infer(model, rows(1))
    doubles.gate.set()
    engine.close()


async def test_calls_that_follow_one_another_are_no_hang() -> None:
    engine = Engine(LIMITS, threads=1, max_waiting=9, hang_seconds=0.2)
    doubles = Doubles()
    model = doubles.model()
    await engine.add(model)
    began = time.monotonic()
    while time.monotonic() < began + 0.6:
        await engine.infer(model, rows(1))
    assert engine.alive
    engine.close()


async def test_the_loop_stays_responsive_while_threads_work(model: Model) -> None:
    engine = Engine(ImageLimits(), threads=2, max_waiting=99)
    await engine.add(model)
    photo = plain("#c02020", (3000, 2000), "JPEG")
    held = [asyncio.create_task(engine.classify(model, [photo])) for _ in range(30)]
    gaps = []
    while not all(task.done() for task in held):
        before = time.monotonic()
        await asyncio.sleep(0.001)
        gaps.append(time.monotonic() - before)
    assert [winner(task.result()) for task in held] == ["red"] * 30
    assert len(gaps) > 10  # decoded on the loop, they would be a handful, and long
    assert sorted(gaps)[len(gaps) * 9 // 10] < 0.05
    engine.close()


FAILURES = [
    (plain("black"), ModelError, "the model failed: ArithmeticError: black has no colour"),
    (plain("white"), ModelError, "not finite"),
    (b"hello", NotAnImage, "not an image"),
    (RED[: len(RED) // 2], BrokenImage, "broken image"),
    (plain("red", (101, 100)), TooLarge, "101 x 100"),
    (bytes(100_001), TooLarge, "100001 bytes"),
]


@pytest.mark.parametrize("batching", ["off", "max=4"])
@pytest.mark.parametrize(("upload", "error", "text"), FAILURES, ids=[text for _, _, text in FAILURES])
async def test_after_every_failure_the_next_request_is_served(
    model: Model, upload: bytes, error: type[Exception], text: str, batching: str
) -> None:
    engine = Engine(LIMITS, threads=2, max_waiting=5, batching=batching)
    await engine.add(model)
    bad, mixed, good = await asyncio.gather(
        engine.classify(model, [upload]),
        engine.classify(model, [RED, upload, RED]),
        engine.classify(model, [RED]),
        return_exceptions=True,
    )
    for failed in (bad, mixed):
        assert isinstance(failed, error)
        assert text in str(failed)
    assert isinstance(good, Answer)
    assert winner(good) == "red"
    assert engine.waiting == 0
    assert winner(await engine.classify(model, [RED])) == "red"
    async with asyncio.timeout(10):
        while engine._crew.busy:  # noqa: ASYNC110  a picture of the request that failed may still be decoded
            await asyncio.sleep(0)
    assert repr(engine._crew).endswith("[1 models | 0 to decode, 0 decoding, 0 ready, 0 running]>>")
    reason = "BACKEND" if error is ModelError else "INPUT"
    assert f'reason="{reason}"}} 2' in engine.metrics.text()
    engine.close()


@pytest.mark.parametrize("batching", ["off", "max=8"])
async def test_many_at_once_get_each_their_own_answer(model: Model, batching: str) -> None:
    engine = Engine(LIMITS, threads=4, max_waiting=300, batching=batching)
    await engine.add(model)
    colours = [("#c01010", "red"), ("#10c010", "green"), ("#1010c0", "blue")] * 40
    answers = await asyncio.gather(*(engine.classify(model, [plain(colour)]) for colour, _ in colours))
    assert [winner(answer) for answer in answers] == [name for _, name in colours]
    engine.close()


async def test_a_model_is_taken_out_when_its_last_request_is_answered() -> None:
    old, new = Doubles(), Doubles()
    first, second = old.model(1), new.model(2)
    engine = Engine(LIMITS, threads=2, max_waiting=9, batching="off")
    await engine.add(first)
    await engine.add(second)
    assert repr(engine) == "<Engine doubles/1, doubles/2 [ready | 0 waiting of 9]>"
    old.hold()
    held = [asyncio.create_task(engine.infer(first, rows(i))) for i in range(2)]
    await old.held()
    removing = asyncio.create_task(engine.remove(first))
    again = asyncio.create_task(engine.remove(first))
    assert (await engine.infer(second, rows(1))).outputs["y"][0, 0] == 2  # beside it
    assert not removing.done()
    assert not old.closed
    old.gate.set()
    assert [answer.outputs["y"][0, 0] for answer in await asyncio.gather(*held)] == [0, 2]
    await asyncio.gather(removing, again)
    assert old.closed
    assert not new.closed
    with pytest.raises(NotReady, match="doubles version 1 is not served"):
        await engine.infer(first, rows(1))
    await engine.remove(first)  # it is gone
    assert repr(engine) == "<Engine doubles/2 [ready | 0 waiting of 9]>"
    await engine.remove(second)
    assert not engine.ready  # with no model at all
    engine.close()


async def test_whoever_waits_when_it_closes_is_told_so() -> None:
    doubles = Doubles()
    model = doubles.model()
    engine = Engine(LIMITS, threads=1, max_waiting=9)
    await engine.add(model)
    doubles.hold()
    held = asyncio.create_task(engine.infer(model, rows(1)))
    await doubles.held()
    closing = asyncio.create_task(asyncio.to_thread(doubles.gate.wait, 0.2))
    await closing
    doubles.gate.set()
    engine.close()
    engine.close()  # twice is once
    with pytest.raises(NotReady, match="stopped"):
        await held
    with pytest.raises(NotReady):
        await engine.infer(model, rows(1))


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


async def test_the_cards_activation_is_applied(model: Model) -> None:
    assert model.card is not None
    model.card = dataclasses.replace(model.card, activation="softmax")
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    await engine.add(model)
    answer = await engine.classify(model, [plain("#ff0000")])
    assert answer.outputs["scores"][0, 0] == pytest.approx(np.e / (np.e + 2))
    engine.close()
