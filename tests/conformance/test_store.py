"""What `registry/store.py` promises, asked of each engine: one suite, the real thing, and owners that really die."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.errors import StoreRefused, StoreUnavailable
from fairway.registry.instance import Address, Instance, State
from fairway.registry.store import WRITE_SECONDS, Store, new_id, open_store

from ..cluster.processes import Running
from .engines import ENGINES, Engine, load

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = Path(__file__).with_name("owner.py")
START_SECONDS = 30.0  # for a store to find its engine


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    found = load(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    engine = found()
    await engine.start()
    yield engine
    await engine.stop()


class Stage:
    """Stores and owners of one test, on one engine; the rows are of a service of the test's own."""

    def __init__(self, engine: Engine, exits: ExitStack) -> None:
        self.engine, self._exits = engine, exits
        self.service = f"s{new_id()}"
        self.stores: list[Store] = []

    async def store(self, on_change: Callable[[Sequence[Change]], None] = lambda _: None) -> Store:
        """One whose first copy is complete."""
        store = open_store(self.engine.url, on_change)
        self.stores.append(store)
        await store.start()
        await self.until(store, lambda: store.synced and store.connected, START_SECONDS)
        return store

    async def owner(self, id: str) -> Running:
        """A process that has announced `id`."""
        command = [sys.executable, str(OWNER), self.engine.url, id, self.service]
        owner = self._exits.enter_context(Running(command))
        await asyncio.to_thread(owner.line, "announced")
        return owner

    def instance(self, number: int = 0, **more: object) -> Instance:
        id = f"{self.service}-{number}"
        return replace(Instance(id, self.service, Address("127.0.0.1", 10_000 + number)), **more)  # type: ignore[arg-type]

    def seen(self, store: Store) -> dict[str, Instance]:
        return {instance.id: instance for instance in store.instances() if instance.service == self.service}

    async def until(self, store: Store, condition: Callable[[], bool], seconds: float = 0.0) -> None:
        try:
            await store.wait_for(condition, seconds or self.engine.settle_seconds)
        except TimeoutError:
            raise AssertionError(f"{store!r} did not come to it; it holds {list(self.seen(store).values())}") from None

    async def sees(self, store: Store, ids: Iterable[str], seconds: float = 0.0) -> None:
        wanted = set(ids)
        await self.until(store, lambda: self.seen(store).keys() == wanted, seconds)

    async def settled(self, writer: Store, reader: Store) -> None:
        """`reader` has seen all that `writer` wrote before this."""
        signpost = Instance(new_id(), f"{self.service}.signpost", Address("127.0.0.1", 9))
        await writer.announce(signpost)
        await self.until(reader, lambda: any(instance.id == signpost.id for instance in reader.instances()))
        await writer.withdraw(signpost.id)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """The engine is dead meanwhile, and back at the end."""
        if not self.engine.restarts:
            pytest.skip(f"{self.engine.name} has no process to kill")
        await self.engine.kill()
        try:
            yield
        finally:
            await self.engine.restart()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(engine: Engine) -> AsyncIterator[Stage]:
    with ExitStack() as exits:
        stage = Stage(engine, exits)
        try:
            yield stage
        finally:
            for store in reversed(stage.stores):
                await store.close()


@pytest.fixture(autouse=True)
def _no_stray_failures(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A task that failed unheard, or a store that caught what it did not expect, is a fault wherever it happened."""
    yield
    stray = [record for record in caplog.records if record.exc_info and record.name.startswith(("fairway", "asyncio"))]
    assert not stray, [record.getMessage() for record in stray]


def plain(seen: Instance, like: Instance) -> Instance:
    """`seen` without words that an engine added to `meta` for itself."""
    return replace(seen, meta={name: seen.meta[name] for name in like.meta if name in seen.meta})


# -- rows that live as long as their writer ----------------------------------------------------------------------------


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


@pytest.fixture
def contested(stage: Stage) -> Stage:
    if not stage.engine.takeover:
        pytest.skip(f"at {stage.engine.name}, only its owner changes an entry")
    return stage


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


@pytest.fixture
def durable(stage: Stage) -> Stage:
    if not stage.engine.durable:
        pytest.skip(f"{stage.engine.name} takes no rows that outlive their writer")
    return stage


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
    stage = durable
    writer, other, reader = await stage.store(), await stage.store(), await stage.store()
    mine = stage.instance()
    await writer.write([Put(mine, "ops")])
    await stage.sees(other, [mine.id])
    await other.write([Gone(mine, "ops")])
    await stage.sees(reader, [])
    async with stage.away():
        await stage.until(writer, lambda: not writer.connected)
    await stage.until(writer, lambda: writer.connected and writer.synced, START_SECONDS)
    await stage.until(reader, lambda: reader.connected and reader.synced, START_SECONDS)
    await stage.settled(writer, reader)
    assert not stage.seen(reader)


# -- the operator's marks ----------------------------------------------------------------------------------------------


@pytest.fixture
def marked(stage: Stage) -> Stage:
    if not stage.engine.marks:
        pytest.skip(f"{stage.engine.name} keeps no marks")
    return stage


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


# -- when the engine is away -------------------------------------------------------------------------------------------


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
