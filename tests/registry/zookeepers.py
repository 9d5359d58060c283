"""Stores on a real ZooKeeper, and a client of it that is not ours: what its tests are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fairway.registry.changes import Change
from fairway.registry.instance import Address, Instance
from fairway.registry.store import Store, open_store

PATIENCE = 30.0


def instance(id: str = "w1", port: int = 9001, **more: Any) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", port), **more)


@asynccontextmanager
async def opened(url: str, on_change: Callable[[Sequence[Change]], None] = lambda _: None, **more: Any) -> Any:
    store = open_store(url, on_change, **more)
    await store.start()
    try:
        await until(store, lambda: store.connected and store.synced)
        yield store
    finally:
        await store.close()


async def until(store: Store, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    try:
        await store.wait_for(condition, seconds)
    except TimeoutError:
        raise AssertionError(f"{store!r} did not come to it; it holds {store.instances()}") from None


async def sees(store: Store, *ids: str, seconds: float = PATIENCE) -> None:
    await until(store, lambda: {one.id for one in store.instances()} == set(ids), seconds)


@asynccontextmanager
async def stranger(hosts: str, **more: Any) -> AsyncIterator[Any]:
    """A client of somebody else's: kazoo itself, on its own terms; its methods block."""
    from kazoo.client import KazooClient  # it may be missing

    client = KazooClient(hosts, **more)
    await asyncio.to_thread(client.start)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.stop)
        client.close()


async def owner(client: Any, path: str) -> int:
    """The session of a node, 0 if it stays; -1: there is none."""
    stat = await asyncio.to_thread(client.exists, path)
    return -1 if stat is None else int(stat.ephemeralOwner)


def session(store: Store) -> Any:
    return store._session  # type: ignore[attr-defined]


async def until_owner(client: Any, path: str, session: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await owner(client, path) != session:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
