"""Who is to be told of which service: a change costs nothing to those whom it does not concern. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Reader = TypeVar("Reader", bound=Hashable)


class Audience(Generic[Reader]):
    """Readers of some services, and readers of all. In the order in which they came."""

    def __init__(self) -> None:
        self._of_all: dict[Reader, None] = {}
        self._of: dict[str, dict[Reader, None]] = {}
        self._services: dict[Reader, frozenset[str] | None] = {}

    def add(self, reader: Reader, services: frozenset[str] | None) -> None:
        """From now on it hears of these (None: of all), and of no others."""
        self.remove(reader)
        self._services[reader] = services
        if services is None:
            self._of_all[reader] = None
        for service in services or ():
            self._of.setdefault(service, {})[reader] = None

    def remove(self, reader: Reader) -> None:
        for service in self._services.pop(reader, None) or ():
            del self._of[service][reader]
            if not self._of[service]:
                del self._of[service]
        self._of_all.pop(reader, None)

    def of(self, services: Collection[str]) -> Collection[Reader]:
        """Each once, whether it wants to hear of one of `services` or of all."""
        some = [self._of[service] for service in services if service in self._of]
        if len(some) + bool(self._of_all) > 1:
            return dict.fromkeys(reader for readers in (*some, self._of_all) for reader in readers)
        return some[0] if some else self._of_all
