"""The directory of a hub's own engine, in the hands of tests: what is said to it, and what a crash would leave of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairway.registry.changes import Change, Gone, Put
from fairway.registry.instance import Address, Instance
from fairway.registry.journal import Recovered, recover
from fairway.registry.stores.embedded import EmbeddedStore

PATIENCE = 30.0


def row(id: str, port: int = 9001, principal: str = "", **more: Any) -> Put:
    return Put(Instance(id, "classify", Address("127.0.0.1", port), **more), principal)


def gone(id: str, principal: str = "") -> Gone:
    return Gone(row(id).instance, principal)


@asynccontextmanager
async def opened(directory: Path | str, **options: Any) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(str(directory), **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def on_disk(directory: Path) -> Recovered:
    """What a crash at this moment would leave; nothing there is touched."""
    return recover(os.listdir(directory), lambda name: (directory / name).read_bytes())


def kept(directory: Path) -> list[Change]:
    return list(on_disk(directory).changes.values())


def names(directory: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))
