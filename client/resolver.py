"""A registry watch, or a fixed list -> live pools, one a service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence

from ..registry.changes import Change
from ..registry.credentials import Credentials
from ..registry.instance import Address, Instance
from ..registry.store import NOBODY, open_store
from .balancers import Balancer, RoundRobin
from .pool import Pool, Upstream


class Resolver:
    """`await start()`; `choose(service)` gives the next worker, waiting a bounded time for one to appear."""

    def __init__(
        self,
        registry: str | Address | None = None,
        static: Sequence[Address] = (),
        service: str = "classify",
        credentials: Credentials = NOBODY,
    ) -> None:
        """`registry`: HOST:PORT, or an engine's URL, as `open_store` takes it."""
        self._fixed = [Instance(f"static-{i}", service, address) for i, address in enumerate(static)]
        self._store = open_store(str(registry), self._follow, credentials) if registry and not static else None
        self._services: dict[str, tuple[Pool, Balancer]] = {}
        self._changed = asyncio.Condition()
        self._stale = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        if self._store:
            await self._store.start()
        self._refresh()

    async def close(self) -> None:
        if self._store:
            await self._store.close()

    @property
    def connected(self) -> bool:
        """Whether the list is being kept up to date; a fixed one always is."""
        return self._store is None or self._store.connected

    def services(self) -> dict[str, Pool]:
        return {name: pool for name, (pool, _) in self._services.items() if pool.upstreams}

    async def choose(self, service: str, exclude: Collection[str], wait_seconds: float) -> tuple[Pool, Upstream] | None:
        """None when nobody outside `exclude` (ids) was there within `wait_seconds`."""
        await self.available(service, wait_seconds, exclude)
        return self.choose_now(service, exclude)

    async def available(self, service: str, wait_seconds: float, exclude: Collection[str] = ()) -> bool:
        """Whether `choose_now` has somebody to choose, at once or within `wait_seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while not self._candidates(service, exclude):
            left = deadline - loop.time()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(min(left, 0.25)), self._changed:
                    await self._changed.wait()  # or an ejection ends, which nobody announces
            except TimeoutError:
                pass
        return True

    def choose_now(self, service: str, exclude: Collection[str] = ()) -> tuple[Pool, Upstream] | None:
        """The next in turn, if there is one."""
        candidates = self._candidates(service, exclude)
        if not candidates:
            return None
        pool, balancer = self._services[service]
        return pool, balancer.choose(candidates)

    def has(self, service: str) -> bool:
        """Whether anybody could be chosen now; takes nobody's turn."""
        return bool(self._candidates(service))

    def some(self, service: str, count: int) -> list[Instance]:
        """Up to `count` different instances, the next in turn first."""
        first = self.choose_now(service)
        if first is None:
            return []
        others = self._candidates(service, {first[1].instance.id})
        random.shuffle(others)
        return [upstream.instance for upstream in (first[1], *others)][:count]

    def _candidates(self, service: str, exclude: Collection[str] = ()) -> list[Upstream]:
        if service not in self._services:
            return []
        return self._services[service][0].candidates(asyncio.get_running_loop().time(), exclude)

    def _follow(self, _: Sequence[Change]) -> None:
        """Many changes that come together are taken in together."""
        if not self._stale:
            self._stale = True
            asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._stale = False
        instances = self._store.instances() if self._store else self._fixed
        found: dict[str, list[Instance]] = {name: [] for name in self._services}
        for instance in instances:
            found.setdefault(instance.service, []).append(instance)
        for name, members in found.items():
            if name not in self._services:
                self._services[name] = (Pool(), RoundRobin(random.Random()))
            self._services[name][0].update(members)
        task = asyncio.ensure_future(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<Resolver {'up' if self.connected else 'down'} {self.services()}>"
