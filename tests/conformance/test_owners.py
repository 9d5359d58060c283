"""How an owner ends, whose a row is, and what outlives both: with owners that really die."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.store import Store, open_store

from .stage import START_SECONDS, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- how an owner ends -------------------------------------------------------------------------------------------------


async def test_who_closes_takes_its_rows_along(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    await writer.write([Put(stage.instance(1)), Put(stage.instance(2))])
    await stage.sees(reader, [stage.instance(1).id, stage.instance(2).id])
    await writer.close()
    await stage.sees(reader, [])


async def test_who_is_killed_is_gone(stage: Stage) -> None:
    reader = await stage.store()
    owner = await stage.owner("K1" + stage.service)
    await stage.sees(reader, ["K1" + stage.service])
    owner.send(signal.SIGKILL)
    await stage.sees(reader, [], stage.engine.ttl_seconds)


async def test_who_is_stopped_is_gone_and_back_when_it_goes_on(stage: Stage) -> None:
    id = "S1" + stage.service
    reader = await stage.store()
    owner = await stage.owner(id)
    await stage.sees(reader, [id])
    owner.send(signal.SIGSTOP)
    try:
        # An engine may still name it meanwhile, but not as one to send uploads to.
        def over() -> bool:
            return not any(instance.serving and not instance.suspect for instance in stage.seen(reader).values())

        await stage.until(reader, over, stage.engine.ttl_seconds)
        await stage.sees(reader, [], stage.engine.ttl_seconds)
    finally:
        owner.send(signal.SIGCONT)
    await stage.sees(reader, [id])


async def test_close_leaves_nothing_running(stage: Stage) -> None:
    before = asyncio.all_tasks()
    store = await stage.store()
    await store.write([Put(stage.instance())])
    assert asyncio.all_tasks() > before
    await store.close()
    await store.close()  # once more does no harm
    left = asyncio.all_tasks() - before
    if left:  # what was cancelled may take a turn of the loop to end
        await asyncio.wait(left, timeout=5)
    assert not asyncio.all_tasks() - before


async def test_a_store_that_was_never_started_may_be_closed(stage: Stage) -> None:
    await open_store(stage.engine.url).close()


# -- whose a row is ----------------------------------------------------------------------------------------------------


async def test_who_writes_somebody_elses_id_takes_it_over(contested: Stage) -> None:
    stage, told = contested, list[Change]()
    first, second, reader = await stage.store(), await stage.store(), await stage.store(told.extend)
    mine = stage.instance(meta={"by": "first"})
    await first.announce(mine)
    await stage.sees(second, [mine.id])
    await second.announce(replace(mine, meta={"by": "second"}))
    await stage.until(reader, lambda: [i.meta.get("by") for i in stage.seen(reader).values()] == ["second"])
    await stage.until(first, lambda: [i.meta.get("by") for i in stage.seen(first).values()] == ["second"])
    await stage.settled(first, second)
    assert not stage.seen(second), "what one wrote oneself is not in one's own copy"
    # The one from whom it was taken can end as it likes: it is another's now.
    told.clear()
    await first.withdraw(mine.id)
    await stage.settled(first, reader)
    assert stage.seen(reader)[mine.id].meta["by"] == "second"
    await first.close()
    await stage.settled(second, reader)
    assert stage.seen(reader)[mine.id].meta["by"] == "second"
    gone = [change.instance.id for change in told if isinstance(change, Gone)]
    assert mine.id not in gone, "not even for a moment"
    await second.withdraw(mine.id)
    await stage.sees(reader, [])


async def test_the_death_of_a_former_owner_ends_nothing(contested: Stage) -> None:
    stage, id = contested, "T1" + contested.service
    heir, reader = await stage.store(), await stage.store()
    owner = await stage.owner(id)
    await stage.sees(heir, [id])
    await heir.announce(replace(stage.seen(heir)[id], meta={"by": "heir"}))
    witness = await stage.owner("T2" + stage.service)
    owner.send(signal.SIGKILL)
    witness.send(signal.SIGKILL)
    await stage.sees(reader, [id], stage.engine.ttl_seconds)  # the witness is gone, and so would be what died with it
    assert stage.seen(reader)[id].meta["by"] == "heir"


async def test_who_was_silent_does_not_take_back_what_has_an_heir(contested: Stage) -> None:
    stage, id = contested, "U1" + contested.service
    heir, reader = await stage.store(), await stage.store()
    owner = await stage.owner(id)
    await stage.sees(heir, [id])
    owner.send(signal.SIGSTOP)
    try:
        await stage.sees(reader, [], stage.engine.ttl_seconds)
        await heir.announce(stage.instance(meta={"by": "heir"}, id=id))
    finally:
        owner.send(signal.SIGCONT)
    witness = await stage.owner("U2" + stage.service)  # longer than it takes a process to come up
    await stage.sees(reader, [id, "U2" + stage.service])
    witness.send(signal.SIGKILL)
    await stage.sees(reader, [id], stage.engine.ttl_seconds)
    assert stage.seen(reader)[id].meta["by"] == "heir"


# -- rows that outlive their writer ------------------------------------------------------------------------------------


async def test_a_durable_row_outlives_its_writer_and_ends_by_anothers_hand(durable: Stage) -> None:
    stage, told = durable, list[Change]()
    writer, reader = await stage.store(), await stage.store(told.extend)
    lasting, passing = stage.instance(1), stage.instance(2)
    await writer.write([Put(lasting, "ops"), Put(passing)])
    await stage.sees(reader, [lasting.id, passing.id])
    assert [c.principal for c in told if isinstance(c, Put) and c.instance.id == lasting.id] == ["ops"]
    await writer.close()
    await stage.sees(reader, [lasting.id])
    remover, newcomer = await stage.store(), await stage.store()
    await stage.sees(newcomer, [lasting.id])
    await remover.write([Gone(lasting, "ops")])
    await stage.sees(reader, [])
    await stage.sees(newcomer, [])
    await stage.sees(remover, [])


async def test_a_durable_row_may_be_changed_by_another_and_stays_what_it_is(durable: Stage) -> None:
    stage = durable
    writer, other, reader = await stage.store(), await stage.store(), await stage.store()
    mine = stage.instance()
    await writer.write([Put(mine, "ops")])
    await stage.sees(other, [mine.id])
    await other.write([Put(replace(mine, weight=5), "ops")])
    await stage.until(reader, lambda: [i.weight for i in stage.seen(reader).values()] == [5])
    await writer.close()
    await other.close()
    await reader.close()
    newcomer = await stage.store()
    await stage.until(newcomer, lambda: [i.weight for i in stage.seen(newcomer).values()] == [5])
    await newcomer.write([Gone(mine, "ops")])


async def test_who_wrote_a_durable_row_does_not_bring_back_what_another_removed(durable: Stage) -> None:
    stage, told = durable, list[Change]()
    writer, other, reader = await stage.store(told.extend), await stage.store(), await stage.store()
    mine = stage.instance()
    await writer.write([Put(mine, "ops")])
    await stage.sees(other, [mine.id])
    await other.write([Gone(mine, "ops")])
    await stage.sees(reader, [])
    ended = [mine.id, "ops"]
    await stage.until(writer, lambda: ended in [[c.instance.id, c.principal] for c in told if isinstance(c, Gone)])
    async with stage.away():
        await stage.until(writer, lambda: not writer.connected)
    await stage.until(writer, lambda: writer.connected and writer.synced, START_SECONDS)
    await stage.until(reader, lambda: reader.connected and reader.synced, START_SECONDS)
    await stage.settled(writer, reader)
    assert not stage.seen(reader)


# -- the operator's marks ----------------------------------------------------------------------------------------------


async def test_marks_are_seen_survive_and_go_away(marked: Stage) -> None:
    stage = marked
    owner_told: list[Change] = []
    reader_told: list[Change] = []
    owner, reader = await stage.store(owner_told.extend), await stage.store(reader_told.extend)
    operator = await stage.store()
    mine = stage.instance()

    def enabled(store: Store) -> list[bool]:
        return [instance.enabled for instance in stage.seen(store).values()]

    def marks(told: list[Change]) -> list[bool]:
        return [change.enabled for change in told if isinstance(change, Mark) and change.id == mine.id]

    await owner.announce(mine)
    await stage.sees(operator, [mine.id])
    await operator.write([Mark(mine.id, False, "the fan is loud")])
    await stage.until(reader, lambda: enabled(reader) == [False])
    await stage.until(operator, lambda: enabled(operator) == [False])
    await stage.until(owner, lambda: marks(owner_told) == [False])
    assert not stage.seen(reader)[mine.id].serving
    # The owner says on what it has to say; the mark is not its to lift.
    await owner.announce(replace(mine, weight=4))
    await stage.until(reader, lambda: [i.weight for i in stage.seen(reader).values()] == [4])
    assert enabled(reader) == [False]
    newcomer = await stage.store()
    await stage.until(newcomer, lambda: enabled(newcomer) == [False])
    await operator.write([Mark(mine.id, True)])
    await stage.until(reader, lambda: enabled(reader) == [True])
    await stage.until(newcomer, lambda: enabled(newcomer) == [True])
    await stage.until(owner, lambda: marks(owner_told) == [False, True])


async def test_a_mark_ends_with_its_instance(marked: Stage) -> None:
    stage = marked
    owner, operator = await stage.store(), await stage.store()
    mine = stage.instance()
    await owner.announce(mine)
    await stage.sees(operator, [mine.id])
    await operator.write([Mark(mine.id, False)])
    await stage.until(operator, lambda: [i.enabled for i in stage.seen(operator).values()] == [False])
    await stage.settled(operator, owner)
    await owner.withdraw(mine.id)
    await stage.sees(operator, [])
    await owner.announce(mine)
    await stage.until(operator, lambda: [i.enabled for i in stage.seen(operator).values()] == [True])
    newcomer = await stage.store()
    await stage.until(newcomer, lambda: [i.enabled for i in stage.seen(newcomer).values()] == [True])
