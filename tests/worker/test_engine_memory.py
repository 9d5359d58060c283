"""What a worker holds: nothing of a request outlives its answer."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np

from fairway.worker.engine import Engine
from fairway.worker.image import ImageLimits
from fairway.worker.lane import Job
from fairway.worker.model import Model

from .colours import Colours, plain


def jobs_of(model: Model) -> list[Job]:
    return [each for each in gc.get_objects() if type(each) is Job and each.owner.served.model is model]


async def test_what_a_request_held_goes_with_its_answer() -> None:
    """Without the collector, which looks seldom: a worker whose arrays wait for it grows to a multiple of its size."""
    model, engine = (
        Colours().model(),
        Engine(ImageLimits(max_bytes=100_000, max_pixels=10_000), threads=2, max_waiting=3),
    )
    await engine.add(model)
    gc.collect()
    gc.disable()
    try:
        held = []
        for _ in range(3):
            pictures = np.ones((2, 4, 4, 3), np.float32)
            held.append(weakref.ref(pictures))
            await engine.infer(model, {"image": pictures})
            del pictures
        await engine.classify(model, [plain("#c02020")])
        async with asyncio.timeout(10):  # the thread that has answered lets go of its work a moment later
            while any(r() is not None for r in held) or jobs_of(model):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
        engine.close()
