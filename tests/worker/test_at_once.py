"""Requests that are alone and take next to nothing: answered by the event loop itself, and only those."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.worker.batcher import Work
from fairway.worker.crew import Crew, Member
from fairway.worker.engine import AT_ONCE, FAR, Engine
from fairway.worker.errors import ModelError
from fairway.worker.guard import EXIT_HUNG, Guard
from fairway.worker.image import ImageLimits
from fairway.worker.lane import Lane

from .colours import Colours, plain
from .doubles import SPOILT, Doubles, rows

LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000)


class Even(Doubles):
    """By an engine that always takes as long. `by`: the threads that called it."""

    runtime = "litert"

    def __init__(self, batch: int | None = 0) -> None:
        super().__init__(batch)
        self.by: list[threading.Thread] = []

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        self.by.append(threading.current_thread())
        return super().run(inputs, signature, wide)


async def asked(loaded: Doubles, seconds: float, *requests: dict[str, NDArray[Any]]) -> list[Any]:
    """Answers, or errors, to requests of one turn of the loop. `seconds`: what a call is known to take."""
    model = loaded.model()
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    try:
        await engine.add(model)
        engine._served[model].seconds = seconds
        loaded.calls.clear()
        if isinstance(loaded, Even):
            loaded.by.clear()
        calls = (engine.infer(model, inputs) for inputs in requests)
        return list(await asyncio.gather(*calls, return_exceptions=True))
    finally:
        engine.close()


async def test_one_that_is_alone_is_answered_by_the_loop() -> None:
    even = Even()
    (answer,) = await asked(even, AT_ONCE / 2, rows(1, 2))
    assert answer.outputs["y"].tolist() == [[2.0, 2.0], [4.0, 4.0]]
    assert answer.batch == 2
    assert answer.counts.success == answer.counts.exec_count == 1
    assert even.by == [threading.current_thread()]


async def test_several_share_the_threads_as_ever() -> None:
    even = Even()
    answers = await asked(even, AT_ONCE / 10, rows(1), rows(2))
    assert [answer.outputs["y"][0, 0] for answer in answers] == [2.0, 4.0]
    assert threading.current_thread() not in even.by


@pytest.mark.parametrize(
    ("runtime", "seconds", "items"),
    [
        ("litert", AT_ONCE * 2, 1),
        ("litert", AT_ONCE / 2, 3),  # together they take longer
        ("litert", float("inf"), 1),  # nobody knows
        ("python", AT_ONCE / 10, 1),  # whose next call may do anything
        ("torch", AT_ONCE / 10, 1),
    ],
)
async def test_whatever_may_take_longer_is_not(runtime: str, seconds: float, items: int) -> None:
    even = Even()
    even.runtime = runtime
    (answer,) = await asked(even, seconds, rows(*range(items)))
    assert answer.outputs["y"][-1, 0] == 2.0 * (items - 1)
    assert even.by
    assert threading.current_thread() not in even.by


async def test_another_signature_is_not() -> None:
    """Of which nothing was measured; nor does it say anything of the one that was."""
    even = Even()
    model = even.model()
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    try:
        await engine.add(model)
        engine._served[model].seconds = AT_ONCE / 10
        even.by.clear()
        both = {**rows(3), "scale": np.ones((1, 2), np.int64)}
        assert (await engine.infer(model, both, "half")).outputs["y"][0, 0] == 1.5
        assert even.by
        assert threading.current_thread() not in even.by
        assert engine._served[model].seconds == AT_ONCE / 10
        assert (await engine.infer(model, rows(3), "double")).outputs["y"][0, 0] == 6.0
        assert even.by[-1] == threading.current_thread()
    finally:
        engine.close()


async def test_a_call_that_is_padded_counts_as_what_it_is() -> None:
    even = Even(batch=4)
    model = even.model()
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    try:
        await engine.add(model)
        engine._served[model].seconds = AT_ONCE / 2
        even.by.clear()
        await engine.infer(model, rows(1))
        assert even.sizes[-1] == 4
        assert threading.current_thread() not in even.by
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("shape", "dtype", "known"),
    [
        ((None, 4, 4, 3), "float32", True),
        ((None, None, None, 3), "float32", False),
        (None, "float32", False),
        ((None,), "bytes", False),
    ],
)
async def test_where_an_item_may_be_of_any_size_nothing_is_known(
    shape: tuple[int | None, ...] | None, dtype: str, known: bool
) -> None:
    """The plain picture that it was measured with was small."""
    colours = Colours()
    (signature,) = colours.signatures.values()
    (fed,) = signature.inputs
    colours.signatures = {signature.name: replace(signature, inputs=(replace(fed, shape=shape, dtype=dtype),))}
    model = colours.model()
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    try:
        await engine.add(model)
        assert (engine._served[model].seconds < float("inf")) is known
    finally:
        engine.close()


async def test_while_the_threads_are_busy_nothing_is(caplog: pytest.LogCaptureFixture) -> None:
    even = Even()
    model = even.model()
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    await engine.add(model)
    engine._served[model].seconds = AT_ONCE * 2
    even.gate.clear()
    even.entered.clear()
    slow = asyncio.create_task(engine.infer(model, rows(1)))
    assert await asyncio.to_thread(even.entered.wait, 10)
    even.by.clear()
    engine._served[model].seconds = AT_ONCE / 10
    quick = asyncio.create_task(engine.infer(model, rows(2)))
    await asyncio.sleep(0)  # it is handed over in the next turn, and would stand still in it
    await asyncio.sleep(0)
    even.gate.set()
    assert (await quick).outputs["y"][0, 0] == 4.0
    assert (await slow).outputs["y"][0, 0] == 2.0
    assert threading.current_thread() not in even.by
    engine.close()


async def test_a_call_that_fails_there_fails_as_anywhere() -> None:
    even = Even()
    (answer,) = await asked(even, AT_ONCE / 2, rows(SPOILT))
    assert isinstance(answer, ModelError)
    assert even.by == [threading.current_thread()]


async def test_pictures_are_never_decoded_by_the_loop() -> None:
    colours = Colours()
    colours.runtime = "onnx"
    model = colours.model()
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    await engine.add(model)
    engine._served[model].seconds = 0.0
    decoders: list[threading.Thread] = []
    decoded = Crew._decoded

    def noted(crew: Crew, job: Any) -> Any:
        decoders.append(threading.current_thread())
        return decoded(crew, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "_decoded", noted)
        await engine.classify(model, [plain("red")])
    assert decoders
    assert threading.current_thread() not in decoders
    engine.close()


async def test_what_a_call_takes_is_learnt() -> None:
    """A model that became slow goes to the threads, and one that was only said to be comes back."""
    even = Even()
    model = even.model()
    engine = Engine(LIMITS, threads=1, max_waiting=3)
    await engine.add(model)
    engine._served[model].seconds = 10.0
    for _ in range(5):
        await engine.infer(model, rows(1))
    assert engine._served[model].seconds < 10.0
    engine._served[model].seconds = 1e-9
    for _ in range(5):
        await engine.infer(model, rows(1))
    assert engine._served[model].seconds > 1e-9
    engine.close()


class Lingering(Even):
    """Of the same shapes as `Even`, and slower."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def pause(self, items: int) -> None:
        time.sleep(self.seconds)


async def test_a_further_version_is_as_quick_as_itself() -> None:
    """Not as the one before, whose batching it has."""
    first, second = Even(), Lingering(8 * AT_ONCE)
    models = [first.model(1), second.model(2)]
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    try:
        await engine.add(models[0])
        engine._served[models[0]].plan = replace(engine._served[models[0]].plan, seconds=AT_ONCE / 10)
        await engine.add(models[1])
        assert models[1].report["batching"]["why"] == "as the version before"
        assert engine._served[models[1]].seconds >= second.seconds
        second.by.clear()
        await engine.infer(models[1], rows(1))
        assert threading.current_thread() not in second.by
    finally:
        engine.close()


@pytest.mark.parametrize("value", [1.0, SPOILT])
async def test_one_that_took_far_too_long_was_the_last(value: float) -> None:
    """Whether or not it succeeded."""
    even = Lingering(0.0)
    model = even.model()
    engine = Engine(LIMITS, threads=2, max_waiting=10)
    try:
        await engine.add(model)
        served = engine._served[model]
        even.by.clear()
        even.seconds, served.seconds = FAR * AT_ONCE, AT_ONCE / 10
        for _ in range(2):
            await asyncio.gather(engine.infer(model, rows(value)), return_exceptions=True)
        assert even.by[0] == threading.current_thread()
        assert threading.current_thread() not in even.by[1:]
        assert AT_ONCE < served.seconds < float("inf"), "it may come back"
    finally:
        engine.close()


def test_a_loop_that_hangs_in_a_call_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    host, ended = Member(Crew(LIMITS, 1, lambda: None), -1), threading.Event()
    said: list[int] = []

    def end(status: int) -> None:
        said.append(status)
        ended.set()

    guard = Guard(host, 0.05, end)
    guard.start()
    assert not ended.wait(0.2), "nothing hangs"
    host.doing, host.since = Work(Lane("slow"), [], True, 1, 1, False), 1e-3
    assert ended.wait(10)
    assert said == [EXIT_HUNG]
    assert "the worker hangs: <Work slow [run 1 of 1" in caplog.text
    guard.join()

    dismissed = Guard(host, 10, end)
    dismissed.start()
    dismissed.dismiss()
    dismissed.join(10)
    assert not dismissed.is_alive()
