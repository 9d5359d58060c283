"""What one reader still has to be told. Sans-io.

A reader that keeps up is told every change. For one that does not, only WHICH rows changed is remembered, and their state
at the time it reads again is told: it misses no final state, and however slow it is, it costs no more than a set of ids:
of the rows that are there, and of those it was told of once.
The dump that begins a connection is just the first backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .instance import Instance


@dataclass(frozen=True, slots=True)
class Tell:
    """To be told: the row as it is now, or, with None, that it is gone."""

    id: str
    instance: Instance | None


@dataclass(frozen=True, slots=True)
class Synced:
    """To be told: this was all there is."""


class Watcher:
    """`services`: those it wants to hear of, None for all. `plain`: a peer of seaport's, which knows no states.

    A plain peer is told of those that may be sent to, and that one which no longer may be is gone.
    """

    def __init__(self, services: Sequence[str] | None = None, plain: bool = True) -> None:
        self.services = None if services is None else frozenset(services)
        self._plain = plain
        self._backlog: dict[str, bool] = {}  # id -> whether it was told of it before
        self._dump: set[str] | None = None  # what of the backlog is to be told before `synced`
        self.flowing = True  # the connection takes more

    @property
    def wants_any(self) -> bool:
        return self.services is None or bool(self.services)

    def greet(self, instances: Iterable[Instance]) -> None:
        """All there is becomes the backlog."""
        self._backlog = dict.fromkeys((instance.id for instance in instances if self._shows(instance)), False)
        self._dump = set(self._backlog)

    def offer(self, id: str, before: Instance | None, now: Instance | None) -> Tell | None:
        """A row changed: what to tell at once, if anything. `before`, `now`: None if it was, or is, not there."""
        if not any(instance is not None and self._wants(instance) for instance in (before, now)):
            return None
        if not self.flowing or self._backlog:
            knows = self._backlog.setdefault(id, before is not None and self._shows(before))
            if not knows and (now is None or not self._shows(now)):  # it came and went meanwhile
                del self._backlog[id]
                if self._dump is not None:
                    self._dump.discard(id)
            return None
        tell = self._tell(id, now)
        return tell if tell.instance or (before is not None and self._shows(before)) else None

    def take(self, look_up: Callable[[str], Instance | None], rows: int) -> list[Tell | Synced]:
        """Up to `rows` of the backlog, oldest first, as the rows are now."""
        told: list[Tell | Synced] = []
        while self._backlog and len(told) < rows:
            id = next(iter(self._backlog))
            del self._backlog[id]
            told.append(self._tell(id, look_up(id)))
            if self._dump is not None:
                self._dump.discard(id)
        if self._dump is not None and not self._dump:
            self._dump = None
            told.append(Synced())
        return told

    @property
    def behind(self) -> int:
        """How many rows it has yet to be told of."""
        return len(self._backlog) + (self._dump is not None)

    def _tell(self, id: str, now: Instance | None) -> Tell:
        """That nobody knew of the one who is gone does no harm."""
        return Tell(id, now if now is not None and self._shows(now) else None)

    def _wants(self, instance: Instance) -> bool:
        return self.services is None or instance.service in self.services

    def _shows(self, instance: Instance) -> bool:
        return self._wants(instance) and (instance.serving or not self._plain)
