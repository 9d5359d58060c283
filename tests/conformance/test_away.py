"""The engine is killed, and comes back: what was known is not lost meanwhile, nor what was written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fairway.registry.changes import Gone, Put
from fairway.registry.errors import StoreUnavailable
from fairway.registry.store import WRITE_SECONDS, open_store

from .stage import START_SECONDS, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_copy_stays_when_the_engine_is_killed_and_is_right_when_it_is_back(stage: Stage) -> None:
    sizes: list[int] = []
    writer = await stage.store()
    reader = await stage.store(lambda _: sizes.append(len(stage.seen(reader))))
    rows = [stage.instance(number) for number in range(20)]
    await writer.write([Put(row) for row in rows])
    await stage.sees(reader, [row.id for row in rows])
    sizes.clear()
    async with stage.away():
        await stage.until(reader, lambda: not reader.connected)
        await stage.until(writer, lambda: not writer.connected)
        assert not reader.synced
        assert stage.seen(reader).keys() == {row.id for row in rows}, "what was known is all there is to go on with"
    for store in (reader, writer):
        await stage.until(store, lambda store=store: store.connected and store.synced, START_SECONDS)  # type: ignore[misc]
    late = stage.instance(99)
    await writer.announce(late)
    await writer.withdraw(rows[0].id)
    wanted = {row.id for row in (*rows[1:], late)}
    await stage.sees(reader, wanted, stage.engine.ttl_seconds)
    assert min(sizes) >= 19, f"the copy emptied meanwhile: {sizes}"
    newcomer = await stage.store()
    await stage.sees(newcomer, wanted)


async def test_what_is_written_while_the_engine_is_away_is_refused_and_written_later(stage: Stage) -> None:
    writer, reader = await stage.store(), await stage.store()
    before, changed, meanwhile = stage.instance(1), stage.instance(2), stage.instance(3)
    await writer.write([Put(before), Put(changed)])
    await stage.sees(reader, [before.id, changed.id])
    async with stage.away():
        await stage.until(writer, lambda: not writer.connected)
        begin = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable):
            await writer.write([Put(meanwhile), Put(replace(changed, weight=9))])
        assert asyncio.get_running_loop().time() - begin < WRITE_SECONDS + 5
        withdrawing = asyncio.create_task(writer.write([Gone(before)]))
        await asyncio.wait([withdrawing], timeout=WRITE_SECONDS + 5)
    await asyncio.gather(withdrawing, return_exceptions=True)
    wanted = {changed.id: 9, meanwhile.id: 1}
    seconds = START_SECONDS + stage.engine.ttl_seconds
    await stage.until(reader, lambda: {i.id: i.weight for i in stage.seen(reader).values()} == wanted, seconds)


async def test_a_store_may_be_there_before_its_engine(stage: Stage) -> None:
    reader = await stage.store()
    async with stage.away():
        await stage.until(reader, lambda: not reader.connected)
        early = open_store(stage.engine.url)
        stage.stores.append(early)
        await early.start()
        with pytest.raises(StoreUnavailable):
            await early.announce(stage.instance())
        assert not early.connected
        assert not early.synced
    await stage.sees(reader, [stage.instance().id], START_SECONDS)


async def test_a_store_may_be_closed_while_its_engine_is_away(stage: Stage) -> None:
    writer = await stage.store()
    await writer.announce(stage.instance())
    async with stage.away():
        await stage.until(writer, lambda: not writer.connected)
        async with asyncio.timeout(20):
            await writer.close()
