"""The order in which readers are told: one engine that is slow, and others who write to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fairway.registry import Hub
from fairway.registry.changes import Change, Mark, Put
from fairway.registry.errors import StoreRefused
from fairway.registry.wire import Accepted, Free, Hello, Marked, Register, Rejected

from .peers import greeted, row


class Slow:
    """The hub's engine, which takes what it is given only once it is `let_go`."""

    def __init__(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write, self._gate, self.busy = hub.store.write, asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(hub.store, "write", self.write)
        self.let_go = self._gate.set

    async def write(self, changes: Sequence[Change]) -> None:
        self.busy.set()
        await self._gate.wait()
        if any(isinstance(change, Put) and change.instance.id == "BAD" for change in changes):
            raise StoreRefused("BAD: not in this engine")
        if any(isinstance(change, Put) and change.instance.id == "BUG" for change in changes):
            raise ZeroDivisionError
        await self._write(changes)


async def test_a_worker_that_is_at_another_hub_already_is_not_told_as_gone(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with greeted(hub.port) as watcher:
        async with greeted(hub.port, Hello(services=())) as worker:
            worker.say(row("A"))
            assert await worker.next() == Accepted("A")
            there = hub.catalog.get("A")
            assert there is not None
            engine = Slow(hub, monkeypatch)
        await engine.busy.wait()  # with the end of A
        hub._others_wrote([Put(there)])
        engine.let_go()
        assert [type(await watcher.next()) for _ in range(3)] == [Register, Free, Register]
        assert hub.published.keys() == {"A"}


async def test_a_mark_from_another_hub_is_not_overtaken_by_what_was_said_before_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with greeted(hub.port, Hello(services=())) as worker:
        engine = Slow(hub, monkeypatch)
        worker.say(row("A"))
        await engine.busy.wait()
        hub._others_wrote([Mark("A", False, "elsewhere")])
        engine.let_go()
        assert await worker.next() == Accepted("A")
        assert await worker.next() == Marked("A", False, "elsewhere")
        assert not hub.published["A"].enabled


async def test_one_row_that_the_engine_refuses_is_no_reason_to_refuse_the_others(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with greeted(hub.port, Hello(services=())) as one, greeted(hub.port, Hello(services=())) as two:
        engine = Slow(hub, monkeypatch)
        one.say(row("FIRST"))
        await engine.busy.wait()
        two.say(row("A", 9002), row("BAD", 9003), row("B", 9004))
        while len(hub.catalog.instances()) < 4:  # noqa: ASYNC110 - all three are to wait for the same write
            await asyncio.sleep(0)
        engine.let_go()
        assert await one.next() == Accepted("FIRST")
        answers = [await two.next() for _ in range(3)]
        assert answers == [Accepted("A"), Rejected("BAD", "BAD: not in this engine"), Accepted("B")]
        assert hub.store._own.keys() == {"FIRST", "A", "B"}


async def test_an_engine_that_fails_is_taken_for_one_that_is_away(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async with greeted(hub.port, Hello(services=())) as worker:
        Slow(hub, monkeypatch).let_go()
        worker.say(row("BUG"))
        assert await worker.next() == Rejected("BUG", "the engine failed: ZeroDivisionError()")
        worker.say(row("A", 9002))
        assert await worker.next() == Accepted("A")


async def test_a_reader_that_fails_does_not_silence_the_hub(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a reader of ours")

    hub.subscribe(fail)
    async with greeted(hub.port, Hello(services=())) as worker:
        for id in ("A", "B"):
            worker.say(row(id))
            assert await worker.next() == Accepted(id)
    assert "readers could not be told" in caplog.text
