"""The bookkeeping that engines of documents share, on an engine of paper: each law where a server would need luck."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.errors import StoreRefused, StoreUnavailable
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.document import Layout, document, mark_document
from fairway.registry.stores.documents import DocumentStore
from fairway.registry.stores.outbox import Entry

LAYOUT = Layout("fairway")
ROW = Instance("A1", "classify", Address("127.0.0.1", 9001))
PATH, MARK = LAYOUT.row(ROW), LAYOUT.mark("A1")


@dataclass(frozen=True)
class Sheet:
    value: bytes
    session: int = 1


class Paper(DocumentStore[Sheet]):
    """Whatever it is given it writes, or `fails` to; what it was given is in `sent`."""

    engine = "Paper"
    retry_seconds = 0.001, 0.002

    def __init__(self) -> None:
        self.told: list[Change] = []
        super().__init__(self.told.extend, LAYOUT, 100)
        self.sent: list[Entry] = []
        self.removed: list[str] = []
        self.fails: list[Exception] = []
        self.session, self.let_go = 1, 0

    async def start(self) -> None:
        self._run()
        self._followed(True)

    async def _send(self, entries: Sequence[Entry]) -> bool:
        if self.fails:
            error = self.fails.pop(0)
            if isinstance(error, StoreRefused):
                self._refused(entries[0], error)
                return True
            raise error
        for entry in entries:
            self.sent.append(entry)
            if isinstance(entry.change, Put):
                self._written[entry.change.instance.id] = 1
            entry.settle()
        return True

    async def _remove(self, paths: Sequence[str]) -> None:
        self.removed += paths

    async def _let_go(self) -> None:
        self.let_go += 1

    def _lives_as(self, own: Put, found: Sheet) -> bool:
        return found.session == self.session

    def hears(self, found: dict[str, Sheet] | None = None, same: bool = True) -> list[Change]:
        """All there is."""
        return self._listed(found or {}, same)

    def finds(self, path: str, sheet: Sheet) -> list[Change]:
        return self._found(path, sheet)

    def misses(self, path: str) -> list[Change]:
        return self._ended(path)

    def disconnect(self) -> None:
        self._followed(False)

    def waiting(self) -> list[tuple[Change, bool]]:
        """What is to be written, and whether only if nobody else did."""
        return [(entry.change, entry.again) for entry in self._outbox.take(100, self._touched)]


async def written(*changes: Change) -> Paper:
    """A store that has written them, and writes no more."""
    store = Paper()
    await store.start()
    await store.write(changes)
    store.disconnect()
    await asyncio.sleep(0)
    return store


def sheet(row: Instance, writer: str, principal: str = "", session: int = 1) -> Sheet:
    return Sheet(document(Put(row, principal), writer), session)


async def test_what_lived_by_an_old_session_is_written_again_unless_there_is_an_heir() -> None:
    """The word that it is there may have been on its way while we were stopped."""
    store = await written(Put(ROW))
    store.session = 2
    assert not store.finds(PATH, sheet(ROW, store.uid))
    assert store.waiting() == [(Put(ROW), True)]
    await store.close()


async def test_what_is_not_as_we_said_it_last_is_said_again() -> None:
    store = await written(Put(ROW))
    store.finds(PATH, sheet(ROW, store.uid))
    assert not store.waiting()
    store.finds(PATH, sheet(replace(ROW, weight=7), store.uid))
    assert store.waiting() == [(Put(ROW), False)]
    await store.close()


async def test_what_we_have_withdrawn_and_is_there_is_removed() -> None:
    store = await written(Put(ROW), Gone(ROW))
    store.finds(PATH, sheet(ROW, store.uid))
    assert store.waiting() == [(Gone(ROW), False)]
    await store.close()


async def test_while_a_row_is_on_its_way_what_is_found_there_is_no_reason_to_write() -> None:
    store, change = await written(Put(ROW)), Put(replace(ROW, weight=2))
    task = asyncio.ensure_future(store.write([change]))
    await asyncio.sleep(0)
    store.finds(PATH, sheet(ROW, store.uid, session=7))
    assert store.waiting() == [(change, False)]
    task.cancel()
    await store.close()


async def test_while_a_mark_is_on_its_way_what_is_found_there_is_no_news() -> None:
    store, theirs = await written(), Sheet(mark_document(Mark("A1", False, "theirs"), "W"))
    assert store.finds(MARK, Sheet(mark_document(Mark("A1", False, "before"), "W"))) == [Mark("A1", False, "before")]
    task = asyncio.ensure_future(store.write([Mark("A1", False, "ours")]))
    await asyncio.sleep(0)
    assert not store.finds(MARK, theirs)
    assert not store.misses(MARK)
    assert store.waiting() == [(Mark("A1", False, "ours"), False)]
    assert store.finds(MARK, theirs) == [Mark("A1", False, "theirs")]
    task.cancel()
    await store.close()


async def test_a_list_without_ours_ephemeral_ones_come_back_and_durable_ones_were_removed() -> None:
    durable = replace(ROW, id="A2")
    store = await written(Put(ROW), Put(durable, "ops"))
    assert store.hears() == [Gone(durable, "ops")]
    assert store.waiting() == [(Put(ROW), True)]
    await store.close()


async def test_a_list_of_an_engine_that_was_emptied_removes_nothing() -> None:
    durable, others = replace(ROW, id="A2"), replace(ROW, id="A3")
    store = await written(Put(ROW), Put(durable, "ops"))
    there = {one.id: sheet(one, store.uid, principal) for one, principal in ((ROW, ""), (durable, "ops"))}
    store.hears({PATH: there["A1"], LAYOUT.row(durable): there["A2"], LAYOUT.row(others): sheet(others, "W")})
    assert not store.hears(same=False)
    assert [one.id for one in store.instances()] == ["A3"]
    assert store.waiting() == [(Put(ROW), True), (Put(durable, "ops"), True)]
    await store.close()


async def test_who_takes_a_durable_row_has_it_and_an_ephemeral_one_comes_back_when_its_heir_ends() -> None:
    store = await written(Put(ROW))
    heir = replace(ROW, weight=2)
    assert store.finds(PATH, sheet(heir, "W")) == [Put(heir)]
    assert store.misses(PATH) == [Gone(heir)]
    assert store.waiting() == [(Put(ROW), True)]
    await store.close()
    store = await written(Put(ROW, "ops"))
    assert store.finds(PATH, sheet(heir, "W", "ops")) == [Put(heir, "ops")]
    assert store.misses(PATH) == [Gone(heir, "ops")]
    assert not store.waiting()
    await store.close()


async def test_a_row_that_moved_to_another_service_does_not_end_where_it_was() -> None:
    store = await written()
    moved = replace(ROW, service="other")
    store.finds(PATH, sheet(ROW, "W"))
    store.finds(LAYOUT.row(moved), sheet(moved, "W"))
    assert not store.misses(PATH)
    assert store.misses(LAYOUT.row(moved)) == [Gone(moved)]
    await store.close()


async def test_marks_of_what_ends_with_us_end_with_us(caplog: pytest.LogCaptureFixture) -> None:
    heirs, durable = replace(ROW, id="A2"), replace(ROW, id="A3")
    store = await written(Put(ROW), Put(heirs), Put(durable, "ops"))
    store.finds(LAYOUT.row(heirs), sheet(heirs, "W"))
    for id in ("A1", "A2", "A3"):
        store.finds(LAYOUT.mark(id), Sheet(mark_document(Mark(id, False), "W")))
    store.finds(PATH, Sheet(b"odd"))
    store.finds(PATH, Sheet(b"still odd"))
    assert [record.getMessage() for record in caplog.records] == [f"skipped '{PATH}': it is not JSON"]
    await store.close()
    await store.close()
    assert (store.removed, store.let_go) == ([MARK], 1)


async def test_what_is_not_taken_is_tried_again_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Paper()
    store.fails = [StoreUnavailable("busy"), StoreUnavailable("busy")]
    await store.start()
    with caplog.at_level(logging.INFO, "fairway.registry.paper"):
        await store.write([Put(ROW)])
    assert len(store.sent) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Paper does not take what is written (busy): trying on"
    ]
    store.fails = [StoreRefused("too large")]
    with pytest.raises(StoreRefused, match="too large"):
        await store.write([Put(replace(ROW, id="A2"))])
    await store.write([Gone(replace(ROW, id="A2"))])
    assert len(store.sent) == 1, "what was never there needs no end"
    await store.close()


async def test_who_waits_learns_that_it_is_closed() -> None:
    store = await written()
    task = asyncio.ensure_future(store.write([Put(ROW)]))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed before Paper took it"):
        await task
