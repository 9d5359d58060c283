"""A registry watch, or a fixed list -> live pools, one a service."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from random import Random
from time import monotonic

from ..registry.changes import Change
from ..registry.credentials import Credentials
from ..registry.instance import Address, Instance
from ..registry.store import NOBODY, open_store
from .balancing import Balancer, balancer_of, header_of
from .candidates import Candidates
from .lines import Lines
from .pool import Pool, Upstream

MOST_TURNS = 1000


class Resolver:
    """`await start()`; `choose_now(service)` gives the next worker, `available(service, ...)` waits for one to be there.

    Times are of `time.monotonic`, as those that are given to the pools must be.
    """

    def __init__(
        self,
        registry: str | Address | None = None,
        static: Sequence[Address] = (),
        service: str = "classify",
        credentials: Credentials = NOBODY,
        *,
        balance: str = "round-robin",
        slow_start_seconds: float = 10.0,
        worker_limit: int = 0,
    ) -> None:
        """`registry`: HOST:PORT, or an engine's URL, as `open_store` takes it. Raises ConfigurationError.

        `balance`: as `balancer_of` takes it; `key_header` is then the header whose value is the `key` of a choice, in lower
        case, or empty. `slow_start_seconds`, `worker_limit`: 0 is none.
        """
        self.key_header = header_of(balance)
        self._balance, self._slow_start, self._limit = balance, slow_start_seconds, worker_limit
        self._random = Random()
        balancer_of(balance, self._random)  # what is wrong with it is said now
        self._fixed = [Instance(f"static-{i}", service, address) for i, address in enumerate(static)]
        self._store = open_store(str(registry), self._follow, credentials) if registry and not static else None
        self._services: dict[str, tuple[Pool, Balancer]] = {}
        self._turns: dict[str, Balancer] = {}  # of a service's models, each with a turn of its own
        self._lines = Lines()
        self._stale = False
        self._known = False  # whether the list was complete once: who is new from then on has just joined

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

    async def choose(
        self, service: str, exclude: Collection[str], wait_seconds: float, key: bytes = b"", model: str = ""
    ) -> tuple[Pool, Upstream] | None:
        """None when nobody outside `exclude` (ids) was there within `wait_seconds`."""
        await self.available(service, wait_seconds, exclude, model)
        return self.choose_now(service, exclude, key, model)

    async def available(
        self, service: str, wait_seconds: float, exclude: Collection[str] = (), model: str = ""
    ) -> bool:
        """Whether `choose_now` has somebody to choose, at once or within `wait_seconds`."""
        if self._candidates(service, exclude, model):
            return True
        until = monotonic() + wait_seconds
        with self._lines.join(self._line(service, model), exclude) as place:
            while not self._candidates(service, exclude, model):
                now = monotonic()
                if now >= until:
                    return False
                # Somebody comes, or has room again; or an ejection ends, which nobody announces.
                due = self._services[service][0].due if service in self._services else until
                await place.called(min(until, due) - now)
        return True

    def choose_now(
        self, service: str, exclude: Collection[str] = (), key: bytes = b"", model: str = ""
    ) -> tuple[Pool, Upstream] | None:
        """The next one, if there is one. `exclude`: ids of those who have been tried. `model`: NAME or NAME/VERSION; those
        who have it, if anybody says so.
        """
        if service not in self._services:
            return None
        pool, balancer = self._services[service]
        now = monotonic()
        if model:
            model = pool.meant(model)
            balancer = self._turn(service, model) if model else balancer
        candidates = pool.candidates(now, exclude, model)
        return (pool, balancer.choose(candidates, now, key)) if candidates else None

    def has(self, service: str, model: str = "") -> bool:
        """Whether anybody could be chosen now; takes nobody's turn."""
        return bool(self._candidates(service, (), model))

    def some(self, service: str, count: int, key: bytes = b"", model: str = "") -> list[Instance]:
        """Up to `count` different instances, the next one first."""
        first = self.choose_now(service, (), key, model)
        if first is None:
            return []
        found = {first[1].id: first[1].instance}
        others = list(self._candidates(service, (), model))
        if len(others) == 1:  # that one; next to it those in doubt are better than none
            others = list(self._candidates(service, found, model))
        start = int(self._random.random() * len(others))
        for at in range(start, start + len(others)):
            if len(found) >= count:
                break
            upstream = others[at % len(others)]
            found[upstream.id] = upstream.instance
        return list(found.values())

    def _candidates(self, service: str, exclude: Collection[str] = (), model: str = "") -> Candidates | tuple[()]:
        if service not in self._services:
            return ()
        pool = self._services[service][0]
        return pool.candidates(monotonic(), exclude, pool.meant(model) if model else "")

    def _turn(self, service: str, model: str) -> Balancer:
        """`model`: as somebody has it; so there are not more of these than strangers may think of."""
        line = f"{service} {model}"
        if line not in self._turns:
            if len(self._turns) >= MOST_TURNS:  # versions come and go
                self._turns.clear()
            self._turns[line] = balancer_of(self._balance, self._random)
        return self._turns[line]

    def _line(self, service: str, model: str) -> str:
        """Who waits for a model does so apart: others' room is of no use to it, and it would keep them from it."""
        found = self._services[service][0].meant(model) if model and service in self._services else ""
        return f"{service} {found}" if found else service

    def _room(self, service: str, upstream: Upstream) -> None:
        self._lines.call(service, upstream.id)
        for model in upstream.models:
            self._lines.call(f"{service} {model}", upstream.id)

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
        now = monotonic()
        for name, members in found.items():
            if name not in self._services:
                self._services[name] = self._pool(name), balancer_of(self._balance, self._random)
            self._services[name][0].update(members, now, joining=self._known)
        self._known = self._known or self._store is None or self._store.synced
        self._lines.call_all()

    def _pool(self, service: str) -> Pool:
        return Pool(self._slow_start, self._limit, lambda upstream: self._room(service, upstream))

    def __repr__(self) -> str:
        return f"<Resolver {'up' if self.connected else 'down'} {self.services()}>"
