"""What `registry/store.py` promises of rows, asked of each engine: one suite, and the real thing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fairway.registry.changes import Change, Gone, Put
from fairway.registry.errors import StoreRefused
from fairway.registry.instance import Address, Instance, State

from .stage import Stage, plain

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_one_announces_another_sees_with_every_field(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine = stage.instance(
        address=Address("127.0.0.1", 9001),
        version="1.2.3-rc.1",
        state="starting",
        models=("flowers", "v2/größe"),
        meta={"café": "日本 ☕ \U0001f300", "n": 1.5, "flag": False, "none": None, "deep": {"a": [1, {"b": "c"}]}},
        tags=("gpu", "zone=ä"),
        weight=7,
    )
    await writer.announce(mine)
    await stage.sees(reader, [mine.id])
    assert plain(stage.seen(reader)[mine.id], mine) == mine


@pytest.mark.parametrize("id", ["a b/c%d", "ünïcode-☕", "x" * 128, "..", "."])
async def test_an_id_may_be_any_text(stage: Stage, id: str) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine = stage.instance()
    mine = replace(mine, id=id)
    await writer.announce(mine)
    await stage.sees(reader, [id])
    await writer.withdraw(id)
    await stage.sees(reader, [])


async def test_a_change_of_state_is_seen(stage: Stage) -> None:
    changes: list[Change] = []
    writer, reader = await stage.store(), await stage.store(changes.extend)
    mine = stage.instance()
    states: tuple[State, ...] = ("starting", "passing", "draining", "critical", "passing")
    for state in states:
        await writer.announce(replace(mine, state=state))
        await stage.until(reader, lambda state=state: [i.state for i in stage.seen(reader).values()] == [state])  # type: ignore[misc]
    told = [change.instance.state for change in changes if isinstance(change, Put) and change.instance.id == mine.id]
    assert told == list(states)


async def test_what_is_withdrawn_is_gone(stage: Stage) -> None:
    changes: list[Change] = []
    writer, reader = await stage.store(), await stage.store(changes.extend)
    mine, other = stage.instance(1), stage.instance(2)
    await writer.write([Put(mine), Put(other)])
    await stage.sees(reader, [mine.id, other.id])
    await writer.withdraw(mine.id)
    await stage.sees(reader, [other.id])
    gone = [change for change in changes if isinstance(change, Gone)]
    assert [change.instance.id for change in gone if change.instance.service == stage.service] == [mine.id]


async def test_to_withdraw_what_one_never_had_does_nothing(stage: Stage) -> None:
    writer, other, reader = await stage.store(), await stage.store(), await stage.store()
    mine = stage.instance()
    await writer.announce(mine)
    await stage.sees(other, [mine.id])
    await other.withdraw(mine.id)
    await other.write([Gone(mine)])
    await stage.settled(other, reader)
    await stage.sees(reader, [mine.id])


async def test_a_row_may_come_back_after_its_end(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    for weight in range(1, 6):
        mine = stage.instance(weight=weight)
        await writer.announce(mine)
        await stage.until(reader, lambda wanted=weight: [i.weight for i in stage.seen(reader).values()] == [wanted])  # type: ignore[misc]
        await writer.withdraw(mine.id)
        await stage.sees(reader, [])


async def test_a_newcomers_first_copy_is_complete(stage: Stage) -> None:
    writer = await stage.store()
    rows = [stage.instance(number) for number in range(50)]
    await writer.write([Put(row) for row in rows])
    newcomer = await stage.store()
    if stage.engine.lists:
        assert stage.seen(newcomer).keys() == {row.id for row in rows}
    await stage.sees(newcomer, [row.id for row in rows])


async def test_of_many_quick_changes_none_is_missed(stage: Stage) -> None:
    told: list[Change] = []
    writer, reader = await stage.store(), await stage.store(told.extend)
    rows = [stage.instance(number) for number in range(200)]
    await asyncio.gather(*(writer.announce(replace(row, state="starting")) for row in rows))
    await asyncio.gather(*(writer.announce(replace(row, weight=2)) for row in rows))
    await asyncio.gather(*(writer.withdraw(row.id) for row in rows[:100]))
    last = {row.id: replace(row, weight=2) for row in rows[100:]}
    await stage.until(reader, lambda: {id: plain(i, last.get(id, i)) for id, i in stage.seen(reader).items()} == last)
    followed: dict[str, Instance] = {}
    for change in told:  # who follows the changes knows what the copy knows
        match change:
            case Put(instance) if instance.service == stage.service:
                followed[instance.id] = instance
            case Gone(instance):
                followed.pop(instance.id, None)
    assert followed == stage.seen(reader)


async def test_the_last_of_many_words_on_one_row_counts(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine = stage.instance()
    await asyncio.gather(*(writer.announce(replace(mine, weight=number)) for number in range(1, 200)))
    await stage.until(reader, lambda: [i.weight for i in stage.seen(reader).values()] == [199])
    await stage.settled(writer, reader)
    assert [i.weight for i in stage.seen(reader).values()] == [199]


async def test_one_write_of_several_changes_to_one_row(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine, other = stage.instance(1), stage.instance(2)
    await writer.write([Put(mine), Put(other), Gone(mine), Put(replace(mine, weight=3)), Gone(other)])
    await stage.settled(writer, reader)
    assert [(i.id, i.weight) for i in stage.seen(reader).values()] == [(mine.id, 3)]


async def test_500_instances_in_one_write(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    rows = [stage.instance(number, meta={"words": "x" * 300}) for number in range(500)]
    await writer.write([Put(row) for row in rows])
    await stage.sees(reader, [row.id for row in rows])
    await writer.write([Gone(row) for row in rows])
    await stage.sees(reader, [])


async def test_ones_own_rows_are_not_in_ones_own_copy(stage: Stage) -> None:
    changes: list[Change] = []
    writer, reader = await stage.store(changes.extend), await stage.store()
    mine = stage.instance()
    await writer.announce(mine)
    await writer.announce(replace(mine, weight=2))
    await stage.settled(writer, reader)
    await stage.settled(reader, writer)
    assert not stage.seen(writer)
    await writer.withdraw(mine.id)
    await stage.settled(reader, writer)
    assert not [change for change in changes if isinstance(change, Put | Gone) and change.instance.id == mine.id]


async def test_two_services_do_not_mix(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine = stage.instance(1)
    other = replace(stage.instance(2), service=f"{stage.service}.other")
    await writer.write([Put(mine), Put(other)])
    await stage.sees(reader, [mine.id])
    await stage.until(reader, lambda: any(i.id == other.id and i.service == other.service for i in reader.instances()))
    await writer.withdraw(other.id)
    await stage.until(reader, lambda: all(i.id != other.id for i in reader.instances()))
    assert stage.seen(reader).keys() == {mine.id}


async def test_an_instance_may_change_its_service(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    mine = stage.instance()
    moved = replace(mine, service=f"{stage.service}.moved")
    await writer.announce(mine)
    await stage.sees(reader, [mine.id])
    await writer.announce(moved)
    await stage.until(reader, lambda: [i.service for i in reader.instances() if i.id == mine.id] == [moved.service])
    newcomer = await stage.store()
    await stage.until(newcomer, lambda: [i.service for i in newcomer.instances() if i.id == mine.id] == [moved.service])
    await writer.withdraw(mine.id)
    await stage.until(reader, lambda: all(i.id != mine.id for i in reader.instances()))


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_a_document_that_is_too_large_is_refused_and_harms_nothing(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    small, large = stage.instance(1), stage.instance(2, meta={"words": "x" * 9000})
    await writer.announce(small)
    with pytest.raises(StoreRefused):
        await writer.announce(large)
    await writer.announce(replace(small, weight=2))
    await stage.until(reader, lambda: [(i.id, i.weight) for i in stage.seen(reader).values()] == [(small.id, 2)])
    await writer.announce(replace(large, meta={}))  # and that it was once too large is not held against it
    await stage.sees(reader, [small.id, large.id])


async def test_what_cannot_be_said_in_json_is_refused(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    with pytest.raises(StoreRefused):
        await writer.announce(stage.instance(1, meta={"score": float("nan")}))
    await writer.announce(stage.instance(2))
    await stage.sees(reader, [stage.instance(2).id])
