"""The hub's own engine: what it acknowledged is there after any crash, and nothing that it finds keeps it from starting."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.registry.changes import Change, Mark
from fairway.registry.errors import ConfigurationError, StoreRefused, StoreUnavailable
from fairway.registry.journal import JOURNAL
from fairway.registry.stores import embedded
from fairway.registry.stores.embedded import EmbeddedStore

from .directories import PATIENCE, gone, kept, names, on_disk, opened, row


class Gate:
    """The disk's flush, held up: the real one follows when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.count = 0
        self._flush = embedded.FLUSH
        monkeypatch.setattr(embedded, "FLUSH", self)

    def __call__(self, fd: int) -> None:
        self.count += 1
        self.reached.set()
        assert self.free.wait(PATIENCE)
        self._flush(fd)

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.free.clear()
        self.reached.clear()
        try:
            yield
        finally:
            self.free.set()

    async def has_been_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.free.set()


# -- the contract ------------------------------------------------------------------------------------------------------


async def test_a_restart_finds_what_was_written(tmp_path: Path) -> None:
    said: list[Change] = [row("A", tags=("x",)), row("B", 2, "alice"), row("C", 3), Mark("B", False, "it smells")]
    async with opened(tmp_path / "deep" / "state") as store:
        assert (store.loaded, store.synced, store.connected) == ([], True, True)
        await store.write(said)
        await store.write([gone("C")])
        assert store.instances() == [], "nobody else wrote"
    async with opened(tmp_path / "deep" / "state") as store:
        assert store.loaded == [said[0], said[1], said[3]]
        assert store.synced
        assert [(i.id, i.enabled) for i in store.instances()] == [("A", True), ("B", False)]
        assert "2 instances" in repr(store)
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


async def test_what_the_last_life_left_is_taken_over_or_removed(tmp_path: Path) -> None:
    told: list[Sequence[Change]] = []
    async with opened(tmp_path) as store:
        await store.write([row("A"), row("B"), row("C", principal="alice")])
    async with opened(tmp_path, on_change=told.append) as store:
        copied = asyncio.create_task(store.wait_for(lambda: not store.instances(), PATIENCE))
        await asyncio.sleep(0)
        await store.write([row("A"), gone("B"), gone("C", "alice")])
        await copied
        assert store.loaded == []
        await store.withdraw("A")
        await store.withdraw("nobody")
    assert kept(tmp_path) == []
    assert told == [], "nobody but us writes here"


async def test_marks(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.write([row("A"), Mark("A", False, "one"), Mark("A", False, "two"), Mark("B", False)])
    async with opened(tmp_path) as store:
        assert store.loaded == [row("A"), Mark("A", False, "two"), Mark("B", False)]
        await store.write([Mark("A", True), Mark("B", True)])
        assert [i.enabled for i in store.instances()] == [True]
    assert kept(tmp_path) == [row("A")]


async def test_without_a_directory_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened("") as store:
        await store.announce(row("A").instance)
        await store.write([Mark("A", False)])
        assert await store.epoch(7.9) == 7
        assert await store.epoch(7.9) == 8
        assert (store.loaded, store.synced, store.connected) == ([], True, True)
        with pytest.raises(StoreRefused):
            await store.write([row("A", meta={"x": object()})])
    assert names(tmp_path) == []


async def test_an_epoch_is_larger_than_any_before_and_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.epoch(1000.5) == 1000
        assert on_disk(tmp_path).epoch == 1000
    for expected in (1001, 1002):
        async with opened(tmp_path) as store:  # the clock was set back
            assert await store.epoch(5) == expected
    async with opened(tmp_path) as store:
        assert await store.epoch(2000) == 2000


async def test_nothing_is_acknowledged_before_the_disk_has_it(tmp_path: Path, gate: Gate) -> None:
    async with opened(tmp_path) as store:
        with gate.shut():
            for writing in (store.write([row("A")]), store.epoch(9)):
                task = asyncio.ensure_future(writing)
                await gate.has_been_reached()
                await asyncio.sleep(0.05)
                assert not task.done()
                gate.free.set()
                await task
                gate.free.clear()
                gate.reached.clear()


async def test_who_waits_while_the_disk_is_busy_shares_the_next_write(tmp_path: Path, gate: Gate) -> None:
    async with opened(tmp_path) as store:
        with gate.shut():
            first = asyncio.create_task(store.write([row("first")]))
            await gate.has_been_reached()
            before = gate.count
            tasks = [asyncio.create_task(store.write([row(f"W{n}", n + 1)])) for n in range(1000)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *tasks)
        assert gate.count - before == 1
    assert len(kept(tmp_path)) == 1001


async def test_the_order_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        writes = [store.write([gone("A"), row("A", n)] if n % 2 else [row("A", n)]) for n in range(1, 100)]
        await asyncio.gather(*writes, store.write([row("A", 100)]))
    assert kept(tmp_path) == [row("A", 100)]


async def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreRefused, match=r"'B' cannot be kept: .* at most 65536"):
            await store.write([row("A"), row("B", meta={"x": "y" * 70_000})])
        assert "0 own" in repr(store)
    assert kept(tmp_path) == []


async def test_not_open(tmp_path: Path) -> None:
    store = EmbeddedStore(str(tmp_path))
    await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.write([row("A")])
    await store.start()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.epoch(1)


# -- a disk that is slow, full, or not ours ----------------------------------------------------------------------------


async def test_a_disk_that_hangs(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WRITE_SECONDS", 0.05)
    async with opened(tmp_path) as store:
        with gate.shut():
            with pytest.raises(StoreUnavailable, match=r"did not take it in 0\.05 s; trying on"):
                await store.write([row("A")])
            assert not store.connected
            with pytest.raises(StoreUnavailable):
                await store.write([row("B")])
        monkeypatch.setattr(embedded, "WRITE_SECONDS", PATIENCE)
        await store.write([row("C")])
        assert store.connected
    assert kept(tmp_path) == [row("A"), row("B"), row("C")]


async def test_closing_does_not_wait_for_ever(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "WRITE_SECONDS", 0.05)
    store = EmbeddedStore(str(tmp_path))
    await store.start()
    thread = store._thread
    assert thread
    with gate.shut():
        task = asyncio.create_task(store.write([row("A")]))
        await gate.has_been_reached()
        await store.close()
        assert "the disk does not answer" in caplog.text
        with pytest.raises(StoreUnavailable):
            await task
        with pytest.raises(ConfigurationError, match="in use"):
            await EmbeddedStore(str(tmp_path)).start()  # it may still be written
    await asyncio.to_thread(thread.join, PATIENCE)
    assert kept(tmp_path) == [row("A")]
    async with opened(tmp_path):
        pass


async def test_a_flush_that_fails(tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    real = gate._flush

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    async with opened(tmp_path) as store:
        await store.write([row("A")])
        size = (tmp_path / "journal-1").stat().st_size
        gate._flush = fail
        results = await asyncio.gather(*(store.write([row("B", n)]) for n in (1, 2, 3)), return_exceptions=True)
        assert {str(result) for result in results} == {f"{tmp_path} cannot be written: Input/output error"}
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert not store.connected
        gate._flush = real
        await store.write([row("C")])
        assert store.connected
        assert (tmp_path / "journal-1").read_bytes()[size:].count(b"\n") == 2, "what failed was cut, and written once"
    assert kept(tmp_path) == [row("A"), row("B", 3), row("C")]
    assert caplog.text.count("cannot be written: Input/output error; registrations go on") == 1
    assert "can be written again" in caplog.text


async def came_back(store: EmbeddedStore) -> None:
    while not store.connected:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_what_failed_is_written_without_being_asked(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RETRY_SECONDS", 0.01)
    async with opened(tmp_path) as store:
        await store.write([row("A"), row("B")])
        real, gate._flush = gate._flush, lambda fd: os.write(-1, b"")
        with pytest.raises(StoreUnavailable, match="Bad file descriptor"):
            await store.write([gone("A"), row("C")])
        gate._flush = real
        await asyncio.wait_for(came_back(store), PATIENCE)
        assert kept(tmp_path) == [row("B"), row("C")]


@pytest.mark.parametrize("place", ["a file", "under a file", "/proc/nowhere", "not writable"])
async def test_a_directory_that_will_not_do(tmp_path: Path, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    directory = {"a file": file, "under a file": file / "state"}.get(place, tmp_path / "locked")
    if place.startswith("/"):
        directory = Path(place)
    (tmp_path / "locked").mkdir(mode=0o500)
    user = os.geteuid()
    if place == "not writable" and user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(ConfigurationError) as caught:
            await EmbeddedStore(str(directory)).start()
    finally:
        os.seteuid(user)
    assert str(directory) in str(caught.value)
    assert "name another one, --store embedded:DIR" in str(caught.value)


async def test_state_of_another_user_is_left_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    directory = Path(tempfile.mkdtemp())
    try:
        async with opened(directory) as store:
            await store.write([row("A")])
        os.chown(directory, 65534, 65534)
        os.chown(directory / "lock", 65534, 65534)
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigurationError, match="Permission denied"):
                await EmbeddedStore(str(directory)).start()
        finally:
            os.seteuid(0)
        assert kept(directory) == [row("A")]
    finally:
        shutil.rmtree(directory)


# -- what is found on disk ---------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


async def test_a_damaged_journal_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as store:
        await store.write([row("A"), row("B"), row("C")])
    flip(tmp_path / "journal-1", len(JOURNAL) + 30)
    async with opened(tmp_path) as store:
        assert store.loaded == [row("B"), row("C")]
    assert names(tmp_path, "*.corrupt-*") == ["journal-1.corrupt-1"]
    assert f"{tmp_path}/journal-1 is damaged: 1 of its records cannot be read, the first at byte 18" in caplog.text
    assert "2 were kept; set aside as journal-1.corrupt-1" in caplog.text
    assert kept(tmp_path) == [row("B"), row("C")]


async def test_a_damaged_snapshot_is_set_aside_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store:
        await store.write([row("A"), row("B")])
        epoch = await store.epoch(100)
    async with opened(tmp_path) as store:
        await store.write([gone("A"), row("C")])
    flip(tmp_path / "snapshot-2", 60)
    async with opened(tmp_path) as store:
        assert store.loaded == [row("B"), row("C")]
        assert await store.epoch(0) == epoch + 1
    assert (tmp_path / "snapshot-2.corrupt-1").exists()
    assert "snapshot-2 is damaged" in caplog.text
    caplog.clear()
    async with opened(tmp_path) as store:
        assert store.loaded == [row("B"), row("C")]
    assert caplog.text == "", "said once"


async def test_nothing_but_rubbish(tmp_path: Path) -> None:
    for name in ("snapshot-3", "journal-3", "snapshot-4.tmp", "lock"):
        (tmp_path / name).write_bytes(os.urandom(1000))
    (tmp_path / "journal-2").mkdir()
    (tmp_path / "journal-99").symlink_to("nowhere")
    (tmp_path / "somebody else's").write_text("hello")
    async with opened(tmp_path) as store:
        assert store.loaded == []
        await store.write([row("A")])
    assert kept(tmp_path) == [row("A")]
    assert names(tmp_path, "*.corrupt-*") == [
        "journal-2.corrupt-1", "journal-3.corrupt-1", "journal-99.corrupt-1", "snapshot-3.corrupt-1"
    ]  # fmt: skip
    assert (tmp_path / "somebody else's").exists()
    assert not (tmp_path / "snapshot-4.tmp").exists()


async def test_a_torn_tail_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as store:
        await store.write([row("A"), row("B")])
    os.truncate(tmp_path / "journal-1", (tmp_path / "journal-1").stat().st_size - 10)
    async with opened(tmp_path) as store:
        assert store.loaded == [row("A")]
        await store.write([row("C")])
    assert "journal-1: cut " in caplog.text
    assert kept(tmp_path) == [row("A"), row("C")]
    assert names(tmp_path, "*.corrupt*") == []


# -- compaction --------------------------------------------------------------------------------------------------------


async def test_a_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path, compact_bytes=2000) as store:
        for n in range(1, 200):
            await store.write([row("A", n)])
    assert kept(tmp_path) == [row("A", 199)]
    newest = max(int(name.partition("-")[2]) for name in names(tmp_path, "snapshot-*"))
    assert newest > 5
    assert names(tmp_path) == sorted(
        ["lock"] + [f"{kind}-{n}" for kind in ("snapshot", "journal") for n in (newest - 1, newest)]
    )
    assert max((tmp_path / name).stat().st_size for name in names(tmp_path)) < 2500


async def test_a_snapshot_that_cannot_be_written_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, compact_bytes=2000) as store:
        (tmp_path / "snapshot-2.tmp").mkdir()
        for n in range(1, 200):
            await store.write([row("A", n)])
        assert 2 < caplog.text.count("no new snapshot") < 20, "tried now and then, not with every write"
        (tmp_path / "snapshot-2.tmp").rmdir()
        for n in range(1, 200):
            await store.write([row("B", n)])
    assert kept(tmp_path) == [row("A", 199), row("B", 199)]
    assert not (tmp_path / "journal-1").exists()
