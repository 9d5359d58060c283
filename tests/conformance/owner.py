"""An owner to be killed: opens the store at argv[1], announces id argv[2] of service argv[3], says so, and stays."""

from __future__ import annotations

import asyncio
import sys

from fairway.registry.instance import Address, Instance
from fairway.registry.store import open_store


async def main(url: str, id: str, service: str) -> None:
    store = open_store(url)
    await store.start()
    await store.announce(Instance(id, service, Address("127.0.0.1", 9100)))
    print("announced", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
