"""The hub's own engine and crashes: at each step of a compaction, with the power gone, and real ones, by SIGKILL."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.registry.changes import Put
from fairway.registry.errors import ConfigurationError, StoreUnavailable
from fairway.registry.journal import record
from fairway.registry.stores import embedded
from fairway.registry.stores.embedded import EmbeddedStore

from .directories import kept, on_disk, opened, row


class Crashed(BaseException):
    pass


class Platter:
    """What a disk has when the power goes: names as of the last sync of their directory, bytes as of the last flush."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.seen = directory, directory.with_name(directory.name + "-platter")
        self.flushed: dict[int, int] = {}
        self.busy = False
        flush, sync_names = embedded.FLUSH, embedded.sync_names

        def flushing(fd: int) -> None:
            flush(fd)
            self.flushed[os.fstat(fd).st_ino] = os.fstat(fd).st_size

        def syncing(directory: Path) -> None:
            sync_names(directory)
            if directory == self.directory:
                self.busy = True
                shutil.rmtree(self.seen, ignore_errors=True)
                self.seen.mkdir()
                for path in directory.iterdir():
                    os.link(path, self.seen / path.name)
                self.busy = False

        monkeypatch.setattr(embedded, "FLUSH", flushing)
        monkeypatch.setattr(embedded, "sync_names", syncing)

    def lose_power(self) -> Path:
        for path in self.seen.iterdir():
            data = path.read_bytes()[: self.flushed.get(path.stat().st_ino, 0)]
            path.unlink()
            path.write_bytes(data)
        return self.seen


async def test_a_crash_at_any_step_of_a_compaction_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each call of the system that compaction makes, in turn: the process is killed there, or the power goes."""
    steps = 0
    for crash_at in range(1, 100):
        directory = tmp_path / str(crash_at)
        platter = Platter(directory, monkeypatch)
        files = embedded.Files(directory, 1 << 20, 4)
        state = files.open().state
        for generation in range(2):
            state.absorb(record(row(f"A{generation}")))
            files.append(state.owed())
            state.settle()
            if not generation:
                files.begin(state)
        calls = 0

        def counted(call: Callable[..., Any], stop: int = crash_at, platter: Platter = platter) -> Callable[..., Any]:
            def counting(*arguments: Any, **more: Any) -> Any:
                nonlocal calls
                calls += not platter.busy
                if calls == stop and not platter.busy:
                    raise Crashed
                return call(*arguments, **more)

            return counting

        with monkeypatch.context() as patched:
            for name in ("open", "write", "rename", "unlink", "fsync", "close", "listdir"):
                patched.setattr(os, name, counted(getattr(os, name)))
            patched.setattr(embedded, "FLUSH", counted(embedded.FLUSH))
            try:
                files.begin(state)
            except Crashed:
                steps += 1
        files.close()
        for view in (directory, platter.lose_power()):
            left = on_disk(view)
            assert list(left.changes.values()) == [row("A0"), row("A1")], f"before call {crash_at}: {view}"
            assert (left.damaged, left.remarks) == ({}, [])
        monkeypatch.undo()
        async with opened(directory) as store:
            assert store.loaded == [row("A0"), row("A1")]
            await store.write([row("B")])
        assert kept(directory) == [row("A0"), row("A1"), row("B")]
        if calls < crash_at:
            break
    assert steps > 12


async def test_nothing_is_acknowledged_in_a_file_whose_name_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    platter = Platter(directory, monkeypatch)
    async with opened(directory, compact_bytes=500) as store:
        sync_names = embedded.sync_names

        def fail(directory: Path) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(embedded, "sync_names", fail)
        acknowledged = []

        async def until_it_fails() -> None:
            for n in range(1, 100):
                await store.write([row(f"A{n}")])
                acknowledged.append(row(f"A{n}"))

        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await until_it_fails()
        assert acknowledged
        monkeypatch.setattr(embedded, "sync_names", sync_names)
        await store.write([row("B")])
        assert kept(platter.lose_power()) == [*acknowledged, row(f"A{len(acknowledged) + 1}"), row("B")]


# -- real crashes ------------------------------------------------------------------------------------------------------

# A process that has imported all it needs, and forks writers: `write DIR SEED COMPACT_BYTES`, one a line. A writer says
# what it tries and what was acknowledged, for ever; several callers at once, each with ids of its own.
NURSERY = """
import asyncio, os, random, sys
from fairway.registry.changes import Gone, Mark, Put
from fairway.registry.errors import ConfigurationError, StoreUnavailable
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.embedded import EmbeddedStore

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def caller(store, name, chance):
    n = 0
    while True:
        id, port = f"{name}-{chance.randrange(8)}", chance.randrange(1, 60000)
        instance = Instance(id, "classify", Address("127.0.0.1", port), meta={"x": "y" * chance.randrange(300)})
        what = chance.choice(("put", "put", "put", "gone"))
        say("try", id, port if what == "put" else 0)
        await store.write([Put(instance) if what == "put" else Gone(instance)])
        say("did", id)

async def write(directory, seed, compact_bytes):
    store = EmbeddedStore(directory, compact_bytes=int(compact_bytes), compact_factor=0)
    await store.start()
    say("open", await store.epoch(0))
    chance = random.Random(seed)
    await asyncio.gather(*(caller(store, f"{n}", random.Random(f"{seed}/{n}")) for n in range(20)))

async def full(directory):
    import resource
    store = EmbeddedStore(directory)
    await store.start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    for n in range(1, 1000):
        try:
            await store.announce(Instance(f"A{n}", "classify", Address("127.0.0.1", n)))
        except StoreUnavailable as error:
            say("full", n, error)
            break
    try:
        await store.announce(Instance("B", "classify", Address("127.0.0.1", 1)))
    except StoreUnavailable:
        say("still full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.announce(Instance("C", "classify", Address("127.0.0.1", 1)))
    say("recovered", store.connected)

say("ready")
for line in sys.stdin:
    what, *words = line.split()
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run({"write": write, "full": full}[what](*words))
        except ConfigurationError as error:
            say("refused", error)
        os._exit(0)
    say("pid", pid)
    os.waitpid(pid, 0)
    say("over")
"""


class Nursery:
    def __init__(self) -> None:
        path = str(Path(fairway.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.hear() == ["ready"]

    def say(self, *words: object) -> int:
        """-> the pid of the process that does it. Its first words may come before that."""
        assert self.process.stdin
        print(*words, file=self.process.stdin, flush=True)
        self.early: list[list[str]] = []
        while (heard := self.hear(new=True))[0] != "pid":
            self.early.append(heard)
        return int(heard[1])

    def hear(self, new: bool = False) -> list[str]:
        assert self.process.stdout
        if not new and getattr(self, "early", None):
            return self.early.pop(0)
        line = self.process.stdout.readline()
        assert line, "the nursery is gone"
        return line.split()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.mark.parametrize("compact_bytes", [1 << 20, 1000], ids=["appending", "compacting all the time"])
def test_killed_at_any_moment_it_has_all_that_was_acknowledged(
    tmp_path: Path, nursery: Nursery, compact_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(20 + compact_bytes)
    known: dict[str, int] = {}  # id -> port, as it was acknowledged, or found after a crash
    epoch, acknowledged = 0, 0
    for life in range(25):
        pid = nursery.say("write", tmp_path, life, compact_bytes)
        tried: dict[str, int] = {}
        acks_before_the_end = chance.choice([-1, 0, *[chance.randrange(1, 600)] * 4])
        if acks_before_the_end < 0:
            time.sleep(chance.random() / 100)  # any moment of its opening
            os.kill(pid, signal.SIGKILL)
        while (heard := nursery.hear()) != ["over"]:
            match heard:
                case ["open", number]:
                    assert int(number) > epoch
                    epoch = int(number)
                case ["try", id, port]:
                    tried[id] = int(port)
                case ["did", id]:
                    known[id] = tried.pop(id)
                    acknowledged += 1
                    acks_before_the_end -= 1
                case _:
                    raise AssertionError(heard)
            if acks_before_the_end == 0:
                os.kill(pid, signal.SIGKILL)
                acks_before_the_end = -1  # what it had said before is still heard
        left = on_disk(tmp_path)
        assert left.damaged == {}
        assert left.epoch >= epoch
        found = {c.instance.id: c.instance.address.port for c in left.changes.values() if isinstance(c, Put)}
        for id in known.keys() | found.keys() | tried.keys():
            now, acked = found.get(id, 0), known.get(id, 0)
            assert now == acked or now == tried.get(id), f"life {life}: {id} is {now}, acknowledged {acked}"
        known = found
    assert acknowledged > 2000
    if compact_bytes == 1000:
        assert left.generation > 200


def test_a_directory_in_use_is_left_alone(tmp_path: Path, nursery: Nursery) -> None:
    pid = nursery.say("write", tmp_path, 1, 1 << 20)
    while nursery.hear()[0] != "did":
        pass
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(EmbeddedStore(str(tmp_path)).start())
    assert str(caught.value) == (
        f"{tmp_path} is in use by another registry (pid {pid}): stop that one, "
        "or give this one a directory of its own, --store embedded:DIR"
    )
    os.kill(pid, signal.SIGKILL)
    while nursery.hear() != ["over"]:
        pass

    async def free_again() -> None:
        async with opened(tmp_path) as store:
            assert store.loaded

    asyncio.run(free_again())


def test_a_full_disk(tmp_path: Path, nursery: Nursery) -> None:
    nursery.say("full", tmp_path)
    full = nursery.hear()
    assert full[0] == "full"
    assert " ".join(full[2:]) == f"{tmp_path} cannot be written: File too large"
    assert 5 < int(full[1]) < 40
    assert nursery.hear() == ["still", "full"]
    assert nursery.hear() == ["recovered", "True"]
    assert nursery.hear() == ["over"]
    left = on_disk(tmp_path)
    assert (left.damaged, left.remarks) == ({}, [])
    ids = [change.instance.id for change in left.changes.values() if isinstance(change, Put)]
    assert ids == [f"A{n}" for n in range(1, int(full[1]) + 1)] + ["B", "C"], "what found no room was written later"
