"""Looks for registries until it is ended, and prints what it knows of, whenever that changed."""

from __future__ import annotations

import asyncio

from fairway.registry.finder import Finder


async def main() -> None:
    finder, told = Finder(), "nobody"
    await finder.start()
    print("looking", flush=True)
    while True:
        known = " ".join(map(str, finder.addresses())) or "nobody"
        if known != told:
            print(f"knows {known}", flush=True)
        told = known
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
