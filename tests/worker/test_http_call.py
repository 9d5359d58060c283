"""A coroutine stepped by hand, beside what a task would do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fairway.worker.errors import DeadlineExceeded
from fairway.worker.listeners.http.call import Call
from fairway.worker.listeners.http.message import Response

Outcome = tuple[Response | None, BaseException | None]


def called(coroutine: Coroutine[Any, Any, Response]) -> tuple[Call, list[Outcome]]:
    outcomes: list[Outcome] = []
    call = Call(coroutine, lambda response, error: outcomes.append((response, error)))
    call.start()
    return call, outcomes


async def test_what_need_not_wait_is_done_at_once() -> None:
    async def handler() -> Response:
        return Response(b"done")

    async def failing() -> Response:
        raise ValueError

    _, outcomes = called(handler())
    assert outcomes == [(Response(b"done"), None)]
    _, outcomes = called(failing())
    assert isinstance(outcomes[0][1], ValueError)


async def test_it_waits_for_futures_tasks_threads_and_turns_of_the_loop() -> None:
    async def handler() -> Response:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        one, two = await asyncio.gather(asyncio.to_thread(lambda: b"a"), asyncio.to_thread(lambda: b"b"))
        async with asyncio.Lock():
            return Response(one + two)

    over = asyncio.Event()
    outcomes: list[Outcome] = []

    def done(response: Response | None, error: BaseException | None) -> None:
        outcomes.append((response, error))
        over.set()

    Call(handler(), done).start()
    assert not outcomes
    async with asyncio.timeout(5):
        await over.wait()
    assert outcomes == [(Response(b"ab"), None)]


async def test_who_is_cancelled_says_so_to_what_it_waits_for_and_is_not_heard_of_again() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cleaned: list[str] = []

    async def handler() -> Response:
        try:
            await future
        finally:
            cleaned.append("up")
        return Response()

    call, outcomes = called(handler())
    call.cancel()
    assert (future.cancelled(), cleaned, outcomes) == (True, ["up"], [])


async def test_a_reason_is_told_once_whatever_comes_later() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    late = DeadlineExceeded("too late")

    async def handler() -> Response:
        await asyncio.shield(future)
        return Response()

    call, outcomes = called(handler())
    call.cancel(late)
    assert outcomes == [(None, late)]
    future.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert outcomes == [(None, late)]


async def test_cleaning_up_may_take_its_time() -> None:
    freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    late = DeadlineExceeded("too late")

    async def handler() -> Response:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await freed
        return Response()

    call, outcomes = called(handler())
    call.cancel(late)
    assert not outcomes
    freed.set_result(None)
    await asyncio.sleep(0)
    assert outcomes == [(None, late)]


async def test_a_turn_of_the_loop_can_be_cancelled_too() -> None:
    async def handler() -> Response:
        await asyncio.sleep(0)
        return Response()

    call, outcomes = called(handler())
    call.cancel(DeadlineExceeded("too late"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(outcomes) == 1
