"""Looks for registries on the local network. A hint, no more: anybody may answer, and an address that was given wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .beacon import BEAT_SECONDS, KIND, PROTO, TTL_SECONDS
from .hearing import LOOK_SECONDS, Hearing
from .instance import Address
from .txt import unpack

if TYPE_CHECKING:
    from .lan import Heard, Lan

log = logging.getLogger("fairway.registry.finder")

MOST = 64  # registries that are remembered
OTHERS_SECONDS = 0.3  # for which `find_registries` listens on once it found one


class Finder:
    """`await start()`; `addresses()` are those found so far. Silent where there is no network, or nobody on it.

    `interfaces`: IPv4 addresses of those to use, all but loopback if none are named; `tls`: only registries that speak
    it, or only those that do not.
    """

    def __init__(self, interfaces: Sequence[str] = (), tls: bool | None = None) -> None:
        self._interfaces, self._wanted = tuple(interfaces), None if tls is None else str(int(tls)).encode()
        self._known: dict[str, tuple[Address, ...]] = {}  # label -> where, in the order in which they were found
        self._hearing: Hearing[str] = Hearing(2.1 * BEAT_SECONDS, TTL_SECONDS)
        self._found = asyncio.Event()
        self._named: set[Address] = set()
        self._lan: Lan | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns at once."""
        from .lan import Lan  # and zeroconf with it

        self._lan = Lan(KIND, self._interfaces, heard=self._heard, beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS)
        await self._lan.start()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._lan is not None:
            await self._lan.close()

    def addresses(self) -> list[Address]:
        return list(dict.fromkeys(address for known in self._known.values() for address in known))

    async def wait(self, seconds: float) -> bool:
        """Until one is found. False if none was in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._found.wait()
        except TimeoutError:
            return False
        return True

    def _heard(self, told: list[Heard]) -> None:
        now = asyncio.get_running_loop().time()
        for heard in told:
            said = unpack(heard.txt)
            if heard.parted:
                self._forget(heard.label)
                continue
            if said.get("proto") != PROTO.encode() or self._wanted not in (None, said.get("tls", b"0")):
                continue
            near = tuple(sorted(address for address in heard.addresses if self._lan and self._lan.near(address.host)))
            if not near or (heard.label not in self._known and len(self._known) >= MOST):
                continue
            self._known[heard.label] = near[:MOST]
            self._hearing.heard(heard.label, now)
            self._found.set()
            if new := set(near[:MOST]) - self._named if len(self._named) < MOST else set():
                self._named |= new
                log.info("found a registry at %s on the local network", ", ".join(map(str, sorted(new))))

    def _forget(self, label: str) -> None:
        self._known.pop(label, None)
        self._hearing.forget(label)
        if not self._known:
            self._found.clear()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            ask, lost = self._hearing.due(asyncio.get_running_loop().time())
            if ask and self._lan:
                self._lan.ask(ask)
            for label in lost:
                self._forget(label)

    def __repr__(self) -> str:
        return f"<Finder [{len(self._known)} registries]>"


async def find_registries(seconds: float, interfaces: Sequence[str] = (), tls: bool | None = None) -> list[Address]:
    """Those that answer within `seconds`; not waited for once one was found and others had a moment as well."""
    finder = Finder(interfaces, tls)
    await finder.start()
    try:
        if await finder.wait(seconds):
            await asyncio.sleep(min(seconds, OTHERS_SECONDS))
        return finder.addresses()
    finally:
        await finder.close()
