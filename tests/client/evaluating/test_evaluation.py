"""When an evaluation gives up, and when not; of an endpoint that answers as each test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from fairway.client.courier import Failed
from fairway.client.errors import Busy, ClientError, NoWorker, Unreachable
from fairway.client.evaluating.config import EvaluateSettings
from fairway.client.evaluating.endpoint import Endpoint, Prepared
from fairway.client.evaluating.evaluation import Evaluation, Naming, evaluate
from fairway.client.evaluating.forms import Heard, Npy, Upload
from fairway.client.evaluating.labelled import Example
from fairway.client.retry import Failure
from fairway.worker.tensor import Prediction

DAISY = Heard(prediction=Prediction((("daisy", 0.9),)))


class Scripted(Endpoint):
    """`answer`: told of the example's number, and of how often anything was asked before."""

    def __init__(self, answer: Callable[[int, int], Awaitable[Heard]]) -> None:
        super().__init__("http://127.0.0.1:1", "", "forward", Upload(), None, EvaluateSettings(data="."), "a script")
        self._answer, self._asked = answer, 0

    def prepare(self, example: Example) -> Prepared:
        return example.name.encode()

    async def ask(self, prepared: Prepared) -> Heard:
        self._asked += 1
        return await self._answer(int(bytes(prepared)), self._asked - 1)


async def evaluated(answer: Callable[[int, int], Awaitable[Heard]], concurrency: int = 1) -> Evaluation:
    examples = [Example(str(number), "daisy", Path(f"{number}.jpg")) for number in range(12)]
    naming = Naming((), "", ("daisy",))
    return await evaluate(examples, ("daisy",), Scripted(answer), naming, concurrency=concurrency)


def refused(failure: Failure, error: ClientError) -> ClientError:
    """As the client says it after all its attempts."""
    error.__cause__ = Failed(failure, error)
    return error


async def test_three_who_find_nobody_end_it() -> None:
    async def answer(number: int, before: int) -> Heard:
        if before > 4:
            raise refused(Failure.NOT_SENT, Unreachable("cannot reach it"))
        return DAISY

    found = await evaluated(answer)
    assert (len(found.answered), len(found.failed), found.missing) == (4, 3, 5)
    assert found.stopped == "3 in a row found nobody: cannot reach it"


async def test_who_is_busy_is_there() -> None:
    async def answer(number: int, before: int) -> Heard:
        if 3 <= number < 9:
            raise refused(Failure.BUSY, Busy("full"))
        return DAISY

    found = await evaluated(answer)
    assert (len(found.answered), found.missing, found.stopped) == (6, 0, "")
    assert found.errors() == {"everybody was busy": 6}


async def test_of_several_at_once_one_who_finds_somebody_goes_on() -> None:
    failed, gone = 0, asyncio.Event()

    async def answer(number: int, before: int) -> Heard:
        nonlocal failed
        if before == 1:  # the first that counts: it is answered when the other client has given up
            await gone.wait()
        elif before and failed < 3:
            failed += 1
            if failed == 3:
                gone.set()
            raise NoWorker("nobody")
        return DAISY

    found = await evaluated(answer, concurrency=2)
    assert (len(found.answered), len(found.failed), found.missing, found.stopped) == (9, 3, 0, "")


def test_a_signature_may_be_called_anything() -> None:
    assert Npy("a b&c").query == "?signature_name=a%20b%26c"
