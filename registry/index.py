"""Which state of the catalog an answer shows: one number that grows, a service's own. Pure.

A number is `epoch << 20 | n`. The epoch is of this life of this hub, and larger than that of any former life (it is wall
clock seconds, or one more than the last), so that a restart never looks like going backwards; fewer than a million
changes a second leave no number to two lives. All fit a JavaScript number.
"""

from __future__ import annotations

EPOCH_BITS = 20
MAX_SERVICES = 10_000  # remembered by name, those that are gone among them; of older ones only a common lower bound


class Index:
    def __init__(self, epoch: int) -> None:
        self._first = self._last = max(1, epoch << EPOCH_BITS)
        self._floor = self._first  # of services not remembered by name
        self._services: dict[str, int] = {}  # least recently changed first

    def grow(self, service: str) -> None:
        """Something of `service` changed. A service that goes and comes back goes on counting, so its watchers wake."""
        self._last += 1
        self._services.pop(service, None)
        self._services[service] = self._last
        if len(self._services) > MAX_SERVICES:
            self._floor = self._services.pop(next(iter(self._services)))

    def of(self, service: str | None) -> int:
        return self._last if service is None else self._services.get(service, self._floor)

    def knows(self, index: int) -> bool:
        """False: another life, or another hub, gave it out; who waits with it is answered at once."""
        return self._first <= index <= self._last
