"""How items come together in calls: as told, or as measured."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from fairway.worker.engine import Engine
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import ImageLimits
from fairway.worker.lane import Batching
from fairway.worker.measuring import SIZES, measure
from fairway.worker.tuning import Figures, Plan, Wish, decide, read_wish, unmeasured, wish_of

from .doubles import Doubles, rows

# -- the setting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("auto", Wish("auto")),
        ("off", Wish("off")),
        ("max=16", Wish("given", Batching(16, True))),
        ("max=32,wait_ms=2,sizes=1:8:32", Wish("given", Batching(32, True, 0.002, (1, 8, 32)))),
        ("sizes=8:1:32", Wish("given", Batching(32, True, 0.0, (1, 8, 32)))),
        ("wait_ms=0.5", Wish("given", Batching(32, True, 0.0005))),
        (" max=4 , wait_ms=1 ", Wish("given", Batching(4, True, 0.001))),
        ("max=1", Wish("given", Batching(1, False))),
    ],
)
def test_the_setting_is_read(text: str, wish: Wish) -> None:
    assert read_wish(text) == wish


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'' in ''; expected auto, off, or e.g. max=32,wait_ms=2,sizes=1:8:32"),
        ("on", "'on' in 'on'; expected auto, off"),
        ("max=many", "'max=many'"),
        ("max=0", "max is at least 1"),
        ("max=8,size=8", "'size=8'"),
        ("sizes=0:8", "at least 1"),
        ("sizes=", "'sizes='"),
        ("wait_ms=-1", "a wait is 0 to 60000 ms"),
        ("wait_ms=nan", "a wait is 0 to 60000 ms"),
        ("max=8,sizes=1:16", "max is 8, but the largest of the sizes is 16"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_wish(text)
    assert str(caught.value).startswith("--batching")
    assert error in str(caught.value)


# -- what is decided ------------------------------------------------------------------------------------------------


def figures(
    cost: Callable[[int], float], *, streams: int = 2, side: float = 2.0, wide: float = 1.0, odd: bool = False
) -> Figures:
    """`cost`: seconds of a call on one core; all cores are `wide` times as fast, `streams` calls `side` times."""
    narrow = {n: cost(n) for n in SIZES}
    return Figures(streams, narrow, {n: c / wide for n, c in narrow.items()}, side=side, odd=odd, widens=wide > 1.2)


def test_where_items_cost_the_same_in_any_call_calls_run_side_by_side() -> None:
    """ONNX Runtime, LiteRT, OpenVINO in float32 on a processor."""
    plan = decide(figures(lambda n: 0.007 * n, wide=1.9), Wish("auto"))
    assert (plan.batching, plan.streams, plan.wide, plan.widens) == (Batching(1), 2, False, True)
    assert plan.report["mode"] == "streams"
    assert plan.report["items_per_second"]["2 x 1"] == pytest.approx(286, abs=5)
    assert str(plan) == "calls as they come, 2 at once (batches give 1.0 times the items a second)"


def test_where_a_call_costs_as_much_as_its_items_batches_pay() -> None:
    """A small network: 50 us a call, and 2 us an item."""
    plan = decide(figures(lambda n: 50e-6 + 2e-6 * n), Wish("auto"))
    assert plan.batching == Batching(32, True)
    assert plan.report["mode"] == "batches"
    assert str(plan).startswith("batches of up to 32, 2 at once (")
    assert not plan.widens  # it is not faster on all cores


def test_the_smallest_that_gives_nearly_as_much_is_taken() -> None:
    plan = decide(figures(lambda n: 0.014 + 0.001 * n if n <= 8 else 0.00275 * n, streams=1, side=1), Wish("auto"))
    assert plan.batching == Batching(8, True)


def test_a_runtime_that_only_all_cores_make_fast_gets_one_call_at_a_time() -> None:
    """TensorFlow with a single caller: 69/s alone, 161/s in batches."""
    plan = decide(figures(lambda n: 0.016 + 0.012 * n, streams=1, side=1, wide=2), Wish("auto"))
    assert (plan.batching.merge, plan.streams, plan.wide, plan.widens) == (True, 1, True, True)


def test_a_model_of_python_code_is_called_by_one_thread_at_a_time() -> None:
    """Several only take the interpreter from one another."""
    plan = decide(figures(lambda n: 0.002 * n, side=0.8), Wish("auto"))
    assert (plan.batching, plan.streams, plan.wide) == (Batching(1), 1, False)


def test_where_new_shapes_cost_calls_are_padded() -> None:
    cost = figures(lambda n: 0.001 + 0.00001 * n, odd=True)
    assert decide(cost, Wish("auto")).batching == Batching(32, True, 0.0, SIZES)


def test_what_is_told_is_done() -> None:
    told = Batching(16, True, 0.003, (4, 16))
    plan = decide(figures(lambda n: 0.007 * n), Wish("given", told))
    assert plan.batching == told
    assert plan.report["why"] == "as told"
    off = decide(figures(lambda n: 0.001), Wish("off"))
    assert off.batching == Batching(0)
    assert off.streams == 2
    assert unmeasured(Wish("given", told), 3).batching == told
    assert unmeasured(Wish("off"), 3).streams == 3
    assert unmeasured(Wish("auto"), 1).report["why"].startswith("not measured")


def test_a_model_of_a_fixed_number_of_items_leaves_nothing_to_decide() -> None:
    plan = decide(Figures(2, {4: 0.01}, {4: 0.004}, side=1.8, widens=True), Wish("auto"))
    assert plan.report["mode"] == "streams"
    assert plan.widens


# -- what is measured -----------------------------------------------------------------------------------------------


def test_costs_are_measured() -> None:
    calls: list[tuple[int, bool]] = []

    def call(items: int, wide: bool) -> None:
        calls.append((items, wide))
        time.sleep(0.002 + 0.001 * items)

    found = measure(call, (1, 2, 4, 8), 2)
    assert list(found.narrow) == [1, 2, 4, 8]
    assert {1, 4} <= set(found.wide) <= {1, 2, 4, 8}  # the others only if that looked promising
    for items, cost in found.narrow.items():
        assert 0.002 + 0.001 * items <= cost < 0.02
    assert 1.3 < found.side < 3  # two sleep well side by side
    assert not found.odd
    assert decide(found, Wish("auto")).batching.merge


def test_a_new_shape_that_costs_is_noticed() -> None:
    seen: set[int] = set()

    def call(items: int, wide: bool) -> None:
        time.sleep(0.001 if items in seen else 0.08)
        seen.add(items)

    assert measure(call, SIZES, 1).odd


def test_measuring_takes_its_time_and_no_more() -> None:
    began = time.monotonic()
    found = measure(lambda items, wide: time.sleep(0.06 + 0.02 * items), SIZES, 1, seconds=1.0)
    assert max(found.narrow) < 32
    assert time.monotonic() - began < 4


def test_where_four_gain_nothing_thirtytwo_are_not_tried() -> None:
    """The first answer comes the sooner."""
    seen = set()

    def call(items: int, wide: bool) -> None:
        seen.add(items)
        time.sleep(0.005 * items)

    assert decide(measure(call, SIZES, 2), Wish("auto")).report["mode"] == "streams"
    assert seen == {1, 4}


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="this system does not tell who waits")
def test_what_others_take_of_the_machine_is_not_the_models_cost() -> None:
    """Waiting for a core is not computing on it."""
    block = bytes(2_000_000)

    def call(items: int, wide: bool) -> None:
        for _ in range(16 * items):
            hashlib.sha256(block)  # without the interpreter

    quiet = min(spent(lambda: call(1, False)) for _ in range(5))
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    found = measure(call, (1, 4), 2)
    for other in others:
        other.kill()
        other.wait()
    assert found.narrow[1] < 1.6 * quiet
    assert decide(found, Wish("auto")).report["mode"] == "streams"


def spent(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_beside_others_there_are_few_calls_each_at_a_good_moment() -> None:
    calls, moments = [], []
    found = measure(lambda items, wide: calls.append((items, wide)), SIZES, 2, calm=lambda: moments.append(1))
    assert len(moments) == len(calls) < 40
    assert {items for items, wide in calls if wide} == {1}
    assert not [size for size in found.wide if size > 1]


def test_what_a_call_raises_comes_out_even_of_threads() -> None:
    def call(items: int, wide: bool) -> None:
        if threading.current_thread().name == "measure":
            raise ArithmeticError("not beside another")

    with pytest.raises(ArithmeticError, match="beside another"):
        measure(call, (1,), 2)


# -- in the engine --------------------------------------------------------------------------------------------------


class Costly(Doubles):
    """Sleeps as long as it is told, as a runtime computes: without holding the interpreter."""

    def __init__(self, call: float, item: float, streams: int = 2) -> None:
        super().__init__(streams=streams)
        self._call, self._item = call, item

    def pause(self, items: int) -> None:
        time.sleep(self._call + self._item * items)


async def test_the_engine_finds_out_which_is_better() -> None:
    engine = Engine(ImageLimits(), 2, 99)
    even, steep = Costly(0.0, 0.01), Costly(0.02, 0.0001)
    first, second = even.model(), steep.model(2)
    await engine.add(first)
    assert engine.describe(first)["mode"] == "streams"
    await asyncio.gather(*(engine.infer(first, rows(i)) for i in range(6)))
    assert even.most_at_once == 2

    alone = Engine(ImageLimits(), 2, 99)
    await alone.add(second)
    assert alone.describe(second)["mode"] == "batches"
    steep.calls.clear()
    answers = await asyncio.gather(*(alone.infer(second, rows(i)) for i in range(30)))
    assert [answer.outputs["y"][0, 0] for answer in answers] == [2 * i for i in range(30)]
    assert len(steep.calls) <= 3
    for one in (engine, alone):
        one.close()


async def test_all_that_will_be_called_is_warmed() -> None:
    for batching, sizes in (("sizes=3:20:40", {3, 20, 40}), ("off", {1}), ("max=9", {1, 9})):
        engine, doubles = Engine(ImageLimits(), 2, 99, batching=batching), Costly(0.0, 0.004)
        await engine.add(doubles.model())
        assert sizes <= set(doubles.sizes)
        engine.close()


async def test_the_next_version_is_served_as_the_one_before() -> None:
    engine = Engine(ImageLimits(), 2, 99)
    old, new = Costly(0.02, 0.0001), Costly(0.02, 0.0001)
    first, second = old.model(1), new.model(2)
    await engine.add(first)
    await engine.add(second)
    assert len(new.calls) < 8 < len(old.calls)
    assert sorted(set(new.sizes)) == [1, 32]  # warmed, not measured
    assert engine.describe(second) == engine.describe(first) | {"why": "as the version before"}
    engine.close()


async def test_a_model_that_joins_disturbs_those_that_are_served_little() -> None:
    engine = Engine(ImageLimits(), 2, 99)
    served, joins = Costly(0.004, 0.0), Costly(0.0, 0.01)
    first, second = served.model(1), joins.model(1)
    second.name = "another"
    await engine.add(first)

    async def slowest(until: Callable[[], bool]) -> float:
        times = []
        while not until():
            began = time.monotonic()
            await engine.infer(first, rows(1))
            times.append(time.monotonic() - began)
            await asyncio.sleep(0.004)
        return sorted(times)[len(times) * 9 // 10]

    quiet = time.monotonic() + 0.5
    before = await slowest(lambda: time.monotonic() > quiet)
    adding = asyncio.create_task(engine.add(second))
    meanwhile = await slowest(adding.done)
    await adding
    assert meanwhile < 2 * before + 0.01
    assert engine.describe(second)["mode"] == "streams"
    engine.close()


def test_a_plan_says_what_it_is() -> None:
    assert str(Plan(Batching(8, True), 1)) == "batches of up to 8, 1 at once (as told)"
    assert np.isfinite(Plan(Batching(), 1).gather)


@pytest.mark.parametrize(
    ("said", "wish"),
    [
        ("off", Wish("off")),
        ({"max": 8, "wait_ms": 1.5}, Wish("given", Batching(8, True, 0.0015))),
        ({"sizes": [1, 4]}, Wish("given", Batching(4, True, 0.0, (1, 4)))),
    ],
)
def test_a_card_says_it_as_text_or_object(said: object, wish: Wish) -> None:
    assert wish_of(said, "card.json: batching") == wish


@pytest.mark.parametrize(
    "said", [None, 8, [], {}, {"max": "8"}, {"max": True}, {"most": 8}, {"max": 0}, "max=x", {"max": [1, 2]}]
)
def test_a_card_that_says_it_badly_is_named(said: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^card\.json: batching"):
        wish_of(said, "card.json: batching")


def test_the_cost_of_one_item_is_kept() -> None:
    assert decide(Figures(1, {4: 0.02}), Wish("auto")).seconds == pytest.approx(0.005)
    assert unmeasured(Wish("auto"), 1).seconds == float("inf")
