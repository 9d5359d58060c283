"""Stores at real etcd clusters, and a look at what lies there, past our own client."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fairway.registry.credentials import Credentials
from fairway.registry.instance import Address, Instance
from fairway.registry.store import NOBODY, Store, open_store
from fairway.registry.stores.etcd import EtcdStore

from ..conformance.etcd import Member

PATIENCE = 30.0  # seconds; no test waits that long unless something is broken


@asynccontextmanager
async def store_at(
    where: str, on_change: Callable[..., None] = lambda _: None, credentials: Credentials = NOBODY, ready: bool = True
) -> AsyncIterator[EtcdStore]:
    store = open_store(where if "://" in where else f"etcd://{where}", on_change, credentials)
    assert isinstance(store, EtcdStore)
    await store.start()
    try:
        if ready:
            await store.wait_for(lambda: store.connected, PATIENCE)
        yield store
    finally:
        await store.close()


def instance(number: int, **more: Any) -> Instance:
    return replace(Instance(f"A{number}", "classify", Address("127.0.0.1", 9000 + number)), **more)


def ids(store: Store) -> list[str]:
    return sorted(instance.id for instance in store.instances())


async def sees(store: Store, wanted: Iterable[str]) -> None:
    wanted = sorted(wanted)
    try:
        await store.wait_for(lambda: ids(store) == wanted, PATIENCE)
    except TimeoutError:
        raise AssertionError(f"{store!r} holds {ids(store)}, not {wanted}") from None


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def listing(member: Member, prefix: str = "/fairway/", token: str = "") -> dict[str, dict[str, Any]]:
    """All keys, and what etcd says of each."""
    answer = member.call("kv/range", {"key": encoded(prefix), "range_end": encoded(prefix[:-1] + "0")}, token)
    return {base64.b64decode(kv["key"]).decode(): kv for kv in answer.get("kvs", [])}
