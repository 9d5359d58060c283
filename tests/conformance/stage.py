"""Stores and owners for one test, at whichever engine is under test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.registry.changes import Change
from fairway.registry.instance import Address, Instance
from fairway.registry.store import Store, new_id, open_store

from ..cluster.processes import Running
from .engines import Engine

OWNER = Path(__file__).with_name("owner.py")
START_SECONDS = 30.0  # for a store to find its engine


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


def plain(seen: Instance, like: Instance) -> Instance:
    """`seen` without words that an engine added to `meta` for itself."""
    return replace(seen, meta={name: seen.meta[name] for name in like.meta if name in seen.meta})
