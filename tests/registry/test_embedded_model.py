"""The hub's own engine against a dict: writes, restarts and crashes at random."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.journal import record
from fairway.registry.stores.embedded import EmbeddedStore

from .directories import gone, kept, on_disk, row

ids = st.sampled_from("ABCDE")
changes = (
    st.builds(row, ids, st.integers(1, 3), st.sampled_from(["", "alice"]))
    | st.builds(gone, ids)
    | st.builds(Mark, ids, st.booleans(), st.sampled_from(["", "why"]))
)


def apply(model: dict[str, Change], change: Change) -> None:
    match change:
        case Put(instance):
            model[f"row {instance.id}"] = change
        case Gone(instance):
            model.pop(f"row {instance.id}", None)
        case Mark(id, True):
            model.pop(f"mark {id}", None)
        case Mark(id):
            model[f"mark {id}"] = change


class EmbeddedMachine(RuleBasedStateMachine):
    """Writes, restarts and crashes against a dict. A crash is the directory as it is at that moment, copied."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.epoch = 0
        self.model: dict[str, Change] = {}
        self.open(self.root / "0")

    def open(self, directory: Path) -> None:
        self.directory = directory
        self.store = EmbeddedStore(str(directory), compact_bytes=400, compact_factor=1)
        self.runner.run(self.store.start())
        self.check(self.store.loaded)
        epoch = self.runner.run(self.store.epoch(0))
        assert epoch > self.epoch
        self.epoch = epoch

    def check(self, found: Sequence[Change]) -> None:
        assert {record(change).key: change for change in found} == self.model

    @rule(said=st.lists(changes, max_size=5))
    def write(self, said: list[Change]) -> None:
        self.runner.run(self.store.write(said))
        for change in said:
            apply(self.model, change)

    @rule(said=st.lists(changes, max_size=20))
    def write_at_once(self, said: list[Change]) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self.store.write([change]) for change in said))

        self.runner.run(all_of_them())
        for change in said:
            apply(self.model, change)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.open(self.directory)

    @rule()
    def crash(self) -> None:
        self.lives += 1
        copy = self.root / str(self.lives)
        copy_as_it_is(self.directory, copy)
        self.runner.run(self.store.close())
        self.open(copy)

    @rule(said=st.lists(changes, min_size=1, max_size=10), turns=st.integers(0, 5))
    def crash_while_writing(self, said: list[Change], turns: int) -> None:
        """What nobody was told of may be there or not, in order for each id."""
        self.lives += 1
        copy = self.root / str(self.lives)

        async def interrupted() -> None:
            tasks = [asyncio.ensure_future(self.store.write([change])) for change in said]
            for _ in range(turns):
                await asyncio.sleep(0)
            copy_as_it_is(self.directory, copy)
            await asyncio.gather(*tasks)

        self.runner.run(interrupted())
        self.runner.run(self.store.close())
        found = on_disk(copy).changes
        allowed: dict[str, list[Change | None]] = {}
        after = dict(self.model)
        for change in said:
            key = record(change).key
            apply(after, change)
            allowed.setdefault(key, [self.model.get(key)]).append(after.get(key))
        for key in self.model.keys() | found.keys() | allowed.keys():
            assert found.get(key) in allowed.get(key, [self.model.get(key)]), key
        self.model = dict(found)
        self.open(copy)

    @invariant()
    def the_copy_is_what_the_last_life_left(self) -> None:
        if hasattr(self, "store"):
            left = {change.instance.id for change in self.store.loaded if isinstance(change, Put)}
            assert {instance.id for instance in self.store.instances()} == left

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.check(kept(self.directory))
            self.runner.close()
            shutil.rmtree(self.root)


def copy_as_it_is(directory: Path, copy: Path) -> None:
    copy.mkdir()
    for name in os.listdir(directory):
        try:
            shutil.copyfile(directory / name, copy / name)
        except FileNotFoundError:
            pass  # a compaction removed it meanwhile


TestEmbeddedMachine = EmbeddedMachine.TestCase
TestEmbeddedMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
