"""Items of several requests in one call, and one request's items in several: each gets what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.worker.card import Card, InputSpec
from fairway.worker.engine import Answer, Engine
from fairway.worker.errors import BadRequest, ModelError, NotFound
from fairway.worker.image import ImageLimits
from fairway.worker.model import Model
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.tuning import wish_of

from .colours import LABELS, plain
from .doubles import QUITS, SCALAR, SHORT, SPOILT, Doubles, rows

Held = Callable[..., asyncio.Task[Answer]]


@asynccontextmanager
async def serving(doubles: Doubles, batching: str = "max=8", threads: int = 2) -> AsyncIterator[tuple[Engine, Model]]:
    engine, model = Engine(ImageLimits(), threads, 99, batching=batching), doubles.model()
    await engine.add(model)
    doubles.calls.clear()
    doubles.wide.clear()
    yield engine, model
    doubles.gate.set()
    engine.close()


@asynccontextmanager
async def standing(doubles: Doubles, batching: str = "max=8") -> AsyncIterator[tuple[Engine, Held]]:
    """The model is busy with a request of 0 while the test asks; then it is let go."""
    async with serving(doubles, batching) as (engine, model):
        doubles.hold()
        first = asyncio.create_task(engine.infer(model, rows(0)))
        await doubles.held()

        def ask(*values: float, signature: str = "", priority: int = 0, **more: Any) -> asyncio.Task[Answer]:
            inputs = rows(*values) | more
            return asyncio.create_task(engine.infer(model, inputs, signature, priority=priority))

        yield engine, ask
        doubles.gate.set()
        await first


def firsts(answer: Answer) -> list[float]:
    found: list[float] = answer.outputs["y"][:, 0].tolist()
    return found


async def test_requests_that_wait_share_a_call() -> None:
    doubles = Doubles()
    async with standing(doubles) as (engine, ask):
        held = [ask(1), ask(2, 3), ask(4)]
        await asyncio.sleep(0.01)
        doubles.gate.set()
        answers = await asyncio.gather(*held)
    assert [firsts(answer) for answer in answers] == [[2], [4, 6], [8]]
    assert doubles.sizes == [1, 4]
    assert [answer.batch for answer in answers] == [4, 4, 4]
    assert all(answer.queue > 0 for answer in answers)
    text = engine.metrics.text()
    assert 'inference_count{model="doubles",version="1"} 5' in text
    assert 'exec_count{model="doubles",version="1"} 2' in text
    assert 'batch_size_bucket{model="doubles",version="1",le="1"} 1' in text
    assert 'batch_size_sum{model="doubles",version="1"} 5' in text


async def test_a_request_that_is_too_large_is_cut_and_joined() -> None:
    doubles = Doubles()
    async with serving(doubles) as (engine, model):
        answer = await engine.infer(model, rows(*range(20)))
        assert firsts(answer) == [2 * i for i in range(20)]
        assert sorted(doubles.sizes) == [4, 8, 8]
        assert answer.batch == 8
        assert engine.metrics.of("doubles", 1).success == 1


async def test_calls_are_padded_up_to_the_sizes_that_are_allowed() -> None:
    doubles = Doubles()
    async with serving(doubles, "sizes=2:6") as (engine, model):
        assert firsts(await engine.infer(model, rows(1))) == [2]
        assert firsts(await engine.infer(model, rows(1, 2, 3))) == [2, 4, 6]
        assert firsts(await engine.infer(model, rows(*range(8)))) == [2 * i for i in range(8)]
        assert doubles.sizes == [2, 6, 6, 2]
        assert doubles.calls[1][:, 0].tolist() == [1, 2, 3, 3, 3, 3]  # with what the model can surely bear
        assert 'inference_count{model="doubles",version="1"} 12' in engine.metrics.text()  # without what was added


async def test_what_waits_for_company_gets_it() -> None:
    doubles = Doubles()
    async with serving(doubles, "max=3,wait_ms=60000") as (engine, model):
        held = [asyncio.create_task(engine.infer(model, rows(i))) for i in range(3)]
        await asyncio.gather(*held)
        assert doubles.sizes == [3]
    async with serving(doubles, "max=3,wait_ms=50") as (engine, model):
        answer = await engine.infer(model, rows(5))
        assert doubles.sizes == [1]
        assert answer.queue >= 0.05


async def test_who_spoils_a_call_does_not_spoil_it_for_the_others() -> None:
    for spoilt, text in (
        (SPOILT, "ArithmeticError: thirteen"),
        (SHORT, "output 'y' has shape [0, 2]; expected 1 items"),
        (SCALAR, "output 'y' has shape []; expected 1 items"),
        (QUITS, "SystemExit"),
    ):
        doubles = Doubles()
        async with standing(doubles) as (engine, ask):
            held = [ask(1), ask(spoilt), ask(2, 3)]
            await asyncio.sleep(0.01)
            doubles.gate.set()
            good, bad, other = await asyncio.gather(*held, return_exceptions=True)
            assert engine.alive
            assert 'reason="BACKEND"} 1' in engine.metrics.text()
        assert isinstance(good, Answer)
        assert isinstance(other, Answer)
        assert (firsts(good), firsts(other)) == ([2], [4, 6])
        assert isinstance(bad, ModelError)
        assert text in str(bad)
        assert doubles.sizes == [1, 4, 1, 1, 2]


async def test_only_the_same_signature_shares_a_call() -> None:
    doubles = Doubles()
    async with standing(doubles) as (_, ask):
        scale = np.full((1, 2), 10, np.int64)
        held = [ask(1), ask(4, signature="half", scale=scale), ask(2), ask(6, signature="half", scale=scale)]
        await asyncio.sleep(0.01)
        doubles.gate.set()
        answers = await asyncio.gather(*held)
    assert [firsts(answer) for answer in answers] == [[2], [20], [4], [30]]
    assert doubles.sizes == [1, 2, 2]


async def test_the_lower_priority_number_goes_first() -> None:
    doubles = Doubles()
    async with standing(doubles, "off") as (_, ask):
        held = [ask(1), ask(2, priority=3), ask(3, priority=-1)]
        await asyncio.sleep(0.01)
        doubles.gate.set()
        await asyncio.gather(*held)
    assert [call[0, 0] for call in doubles.calls] == [0, 3, 1, 2]


async def test_without_batches_requests_run_side_by_side_and_one_alone_widely() -> None:
    doubles = Doubles(streams=2)
    async with serving(doubles, "off", threads=2) as (engine, model):
        await engine.infer(model, rows(1))
        doubles.hold()
        held = [asyncio.create_task(engine.infer(model, rows(i, i))) for i in range(4)]
        await doubles.held()
        await asyncio.sleep(0.05)
        assert len(doubles.calls) == 2
        doubles.gate.set()
        assert [firsts(answer) for answer in await asyncio.gather(*held)] == [[2 * i, 2 * i] for i in range(4)]
        assert doubles.most_at_once == 2
        assert doubles.sizes == [2] * 4  # what comes as one request stays one


@pytest.mark.parametrize("streams", [1, 2])
async def test_no_more_calls_at_once_than_the_model_bears(streams: int) -> None:
    doubles = Doubles(streams=streams)
    async with serving(doubles, "off", threads=4) as (engine, model):
        doubles.hold()
        held = [asyncio.create_task(engine.infer(model, rows(i))) for i in range(9)]
        await doubles.held()
        await asyncio.sleep(0.05)
        doubles.gate.set()
        await asyncio.gather(*held)
    assert doubles.most_at_once == streams


async def test_two_models_are_served_in_turns() -> None:
    one, other = Doubles(), Doubles()
    engine = Engine(ImageLimits(), 1, 99, batching="off")
    models = [one.model(), other.model(2)]
    for model in models:
        await engine.add(model)
    order: list[NDArray[Any]] = []
    one.hold()
    one.calls = other.calls = order
    first = asyncio.create_task(engine.infer(models[0], rows(1)))
    await one.held()
    held = [asyncio.create_task(engine.infer(models[0], rows(1))) for _ in range(6)]
    held += [asyncio.create_task(engine.infer(models[1], rows(2))) for _ in range(3)]
    await asyncio.sleep(0.01)
    one.gate.set()
    await asyncio.gather(first, *held)
    assert "".join("b" if call[0, 0] == 2 else "a" for call in order) in ("aabababaaa", "abababaaaa")
    engine.close()


# -- signatures without a free number of items ----------------------------------------------------------------------


async def test_a_model_that_always_takes_three_gets_three() -> None:
    doubles = Doubles(batch=3)
    async with serving(doubles, "auto") as (engine, model):
        for many in (1, 3, 5):
            assert firsts(await engine.infer(model, rows(*range(many)))) == [2 * i for i in range(many)]
        assert doubles.sizes == [3, 3, 3, 3]


async def test_a_model_without_such_a_dimension_gets_items_one_by_one() -> None:
    doubles = Doubles(batch=None)
    async with serving(doubles, "auto") as (engine, model):
        single = await engine.infer(model, {"x": np.array([1, 2], np.float32)})
        assert single.outputs["y"].tolist() == [2, 4]  # as it is
        several = await engine.infer(model, rows(1, 2, 3))
        assert several.outputs["y"].tolist() == [[2, 2], [4, 4], [6, 6]]
        assert [call.shape for call in doubles.calls] == [(2,)] * 4
        with pytest.raises(BadRequest, match=r"'x' has shape \[3\]; expected \[2\]"):
            await engine.infer(model, {"x": np.zeros(3, np.float32)})
        with pytest.raises(BadRequest, match=r"'x' has shape \[2, 3\]; expected \[n, 2\]"):
            await engine.infer(model, {"x": np.zeros((2, 3), np.float32)})


class OnePicture:
    """Takes a picture of any size at a time, (height, width, 3), and gives its shares of the colours, (3,)."""

    runtime, default, streams = "python", "d", 2

    def __init__(self) -> None:
        spec = TensorSpec("x", "uint8", (None, None, 3)), TensorSpec("y", "float32", (3,))
        self.signatures: Mapping[str, Signature] = {"d": Signature("d", spec[:1], spec[1:], batch=None)}

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        total = inputs["x"].sum(axis=(0, 1), dtype=np.float32)
        return {"y": total / total.sum()}

    def close(self) -> None:
        pass


async def test_pictures_for_such_a_model() -> None:
    card = Card(InputSpec(resize="none", dtype="uint8"), LABELS)
    model = Model("one", 1, OnePicture(), card, "x", "y")
    engine = Engine(ImageLimits(), 2, 9)
    await engine.add(model)
    answer = await engine.classify(model, [plain("red", (9, 5)), plain("blue", (4, 4))])
    assert answer.outputs["scores"].tolist() == [[1, 0, 0], [0, 0, 1]]
    engine.close()


async def test_pictures_of_different_sizes_do_not_share_a_call() -> None:
    class AnySize(OnePicture):
        def __init__(self) -> None:
            spec = TensorSpec("x", "uint8", (None, None, None, 3)), TensorSpec("y", "float32", (None, 3))
            self.signatures = {"d": Signature("d", spec[:1], spec[1:])}

        def run(
            self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False
        ) -> dict[str, NDArray[Any]]:
            total = inputs["x"].sum(axis=(1, 2), dtype=np.float32)
            return {"y": total / total.sum(axis=1, keepdims=True)}

    card = Card(InputSpec(resize="none", dtype="uint8"), LABELS)
    model = Model("any", 1, AnySize(), card, "x", "y")
    engine = Engine(ImageLimits(), 2, 99, batching="max=8")
    await engine.add(model)
    uploads = [plain(LABELS[i % 3].replace("green", "lime"), (4 + i % 2, 5)) for i in range(24)]
    answer = await engine.classify(model, uploads)
    assert answer.outputs["scores"].argmax(axis=1).tolist() == [i % 3 for i in range(24)]
    engine.close()


@pytest.mark.parametrize("batch", [0, None])
async def test_uploads_for_a_model_that_reads_them_itself(batch: int | None) -> None:
    class Reads(OnePicture):
        def __init__(self) -> None:
            lead: tuple[int | None, ...] = (None,) if batch == 0 else ()
            spec = TensorSpec("x", "bytes", lead), TensorSpec("y", "float32", (*lead, 3))
            self.signatures = {"d": Signature("d", spec[:1], spec[1:], batch=batch)}

        def run(
            self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False
        ) -> dict[str, NDArray[Any]]:
            x = inputs["x"]
            rows = [[len(text), text[:1] == b"a", 0] for text in x.reshape(-1)]
            return {"y": np.array(rows, np.float32).reshape(*x.shape, 3)}

    card = Card(InputSpec(kind="raw", resize="none"), LABELS)
    engine = Engine(ImageLimits(), 2, 9, batching="max=4")
    model = Model("reads", 1, Reads(), card, "x", "y")
    await engine.add(model)
    answer = await engine.classify(model, [b"abc", memoryview(b"no picture")[:2]])
    assert answer.outputs["scores"].tolist() == [[3, 1, 0], [2, 0, 0]]
    assert answer.decode == 0
    engine.close()


# -- what does not fit ----------------------------------------------------------------------------------------------

NO = [
    ({}, "", "input 'x' is missing; expected 'x'"),
    ({"z": np.zeros((1, 2), np.float32)}, "", "input 'x' is missing and there is no input 'z'; expected 'x'"),
    (rows(1) | {"z": np.zeros(1)}, "", "there is no input 'z'; expected 'x'"),
    ({"x": np.zeros((1, 2))}, "", "input 'x' is of float64; expected float32"),
    ({"x": np.array([[b"a", b"b"]], object)}, "", "input 'x' is of bytes; expected float32"),
    ({"x": np.zeros((1, 3), np.float32)}, "", r"input 'x' has shape [1, 3]; expected [n, 2]"),
    ({"x": np.zeros(2, np.float32)}, "", r"input 'x' has shape [2]; expected [n, 2]"),
    ({"x": np.zeros((0, 2), np.float32)}, "", "the inputs have no items; expected at least one"),
    (rows(1) | {"scale": np.ones((2, 2), np.int64)}, "half", "input 'scale' has 2 items, but input 'x' has 1"),
]


@pytest.mark.parametrize(("inputs", "signature", "text"), NO, ids=[text for _, _, text in NO])
async def test_inputs_that_do_not_fit_are_told_why(inputs: dict[str, Any], signature: str, text: str) -> None:
    doubles = Doubles()
    async with serving(doubles) as (engine, model):
        with pytest.raises(BadRequest) as caught:
            await engine.infer(model, inputs, signature)
        assert str(caught.value) == text
        assert not doubles.calls
        assert engine.waiting == 0
        with pytest.raises(NotFound, match="doubles has no signature 'treble'; it has double, half"):
            await engine.infer(model, rows(1), "treble")
        with pytest.raises(BadRequest, match="doubles takes tensors, not pictures"):
            await engine.classify(model, [plain("red")])
        assert 'reason="INPUT"} 3' in engine.metrics.text()


async def test_byte_strings_come_as_objects_or_as_numpys_own() -> None:
    class Lengths(Doubles):
        def __init__(self) -> None:
            super().__init__()
            spec = TensorSpec("t", "bytes", (None,)), TensorSpec("n", "int64", (None,))
            self.signatures = {"d": Signature("d", spec[:1], spec[1:])}
            self.default = "d"

        def run(self, inputs: Any, signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
            assert inputs["t"].dtype == object
            return {"n": np.array([len(text) for text in inputs["t"]])}

    async with serving(Lengths(), "auto") as (engine, model):
        for array in (np.array([b"one", b"three"], object), np.array([b"one", b"three"])):
            assert (await engine.infer(model, {"t": array})).outputs["n"].tolist() == [3, 5]
        assert engine.describe(model)["why"] == "not measured: nobody can tell what it takes"


async def test_a_model_s_own_wish_comes_before_the_settings() -> None:
    told, other = Doubles(), Doubles()
    engine = Engine(ImageLimits(1000, 1000), threads=1, max_waiting=8, batching="off")
    special = Model("special", 1, told, wish=wish_of({"max": 3, "wait_ms": 1}, "card"))
    await engine.add(special)
    plain_one = other.model()
    await engine.add(plain_one)
    described = engine.describe(special)
    assert (described["mode"], described["max"], described["wait_ms"]) == ("batches", 3, 1.0)
    assert engine.describe(plain_one)["mode"] == "streams"
    told.hold()
    calls = [asyncio.create_task(engine.infer(special, rows(value))) for value in (1, 2, 3, 4)]
    await told.held()
    told.gate.set()
    await asyncio.gather(*calls)
    assert max(told.sizes) <= 3
    assert sum(told.sizes) == 4
    engine.close()
