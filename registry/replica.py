"""A reader's copy of what others registered. It never empties itself because the engine did. Sans-io: `now` is an argument.

After a reconnect the engine says all it knows. One that was restarted knows little then: rows it did not repeat are held
for `hold_seconds`, long enough for their owners to come back to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .changes import Change, Gone, Mark, Put
from .instance import Address, Instance

Place = tuple[str, Address]  # a service, and where


class Replica:
    """Every method returns what it changed, for those who keep copies of this copy."""

    def __init__(self, hold_seconds: float = 10.0) -> None:
        self.hold_seconds = hold_seconds
        self.synced = False  # the dump that begins a connection is complete
        self._rows: dict[str, Put] = {}
        self._marks: dict[str, Mark] = {}
        self._unconfirmed: dict[str, Place] = {}
        self._held: dict[Place, set[str]] = {}  # the same, by place
        self._drop_at: float | None = None

    def disconnected(self) -> None:
        """Everything known stays, and waits to be said again."""
        self.synced = False
        self._drop_at = None
        self._unconfirmed = {id: (row.instance.service, row.instance.address) for id, row in self._rows.items()}
        self._held = {}
        for id, place in self._unconfirmed.items():
            self._held.setdefault(place, set()).add(id)

    def receive(self, change: Change) -> list[Change]:
        """What an engine said of one row, or one instance's mark."""
        match change:
            case Put():
                return self._put(change)
            case Gone(instance):
                return self._forget(instance.id)
            case Mark(id, enabled, _):
                if self._marks.get(id, Mark(id, True)) == change:
                    return []
                if enabled:
                    self._marks.pop(id, None)
                else:
                    self._marks[id] = change
                return [change]

    def confirmed(self, now: float, hold: bool = True) -> list[Change]:
        """The dump is complete. What it did not repeat is dropped, at once or, with `hold`, after `hold_seconds`."""
        self.synced = True
        if self._unconfirmed and self._drop_at is None:
            self._drop_at = now + self.hold_seconds if hold else now
        return self.expire(now)

    def replace(self, rows: Iterable[Put], marks: Iterable[Mark], now: float, hold: bool) -> list[Change]:
        """The whole truth at once, as an engine's listing tells it; `hold` as in `confirmed`."""
        self.disconnected()
        rows = list(rows)
        for row in rows:  # two may be at one address: neither is the other come back
            self._confirm(row.instance.id)
        changes = [change for row in rows for change in self.receive(row)]
        told = {mark.id: mark for mark in marks}
        lifted = [Mark(id, True) for id in self._marks.keys() - told.keys()]
        changes += [change for mark in (*lifted, *told.values()) for change in self.receive(mark)]
        return changes + self.confirmed(now, hold)

    def expire(self, now: float) -> list[Change]:
        """Drops what nobody claimed in time."""
        if self._drop_at is None or now < self._drop_at:
            return []
        self._drop_at = None
        return [change for id in sorted(self._unconfirmed) for change in self._forget(id)]

    def next_deadline(self) -> float | None:
        return self._drop_at

    def get(self, id: str) -> Put | None:
        return self._rows.get(id)

    def instances(self) -> list[Instance]:
        """With the marks applied."""
        if not self._marks:
            return [row.instance for row in self._rows.values()]
        return [
            replace(row.instance, enabled=False) if row.instance.id in self._marks else row.instance
            for row in self._rows.values()
        ]

    def _put(self, put: Put) -> list[Change]:
        id = put.instance.id
        self._confirm(id)
        # A worker that came back under a new id still has its address. One address may serve several services.
        old = sorted(self._held.get((put.instance.service, put.instance.address), ()))
        changes = [change for i in old for change in self._forget(i)]
        if self._rows.get(id) != put:
            self._rows[id] = put
            changes.append(put)
        return changes

    def _confirm(self, id: str) -> None:
        place = self._unconfirmed.pop(id, None)
        if place is not None:
            self._held[place].discard(id)

    def _forget(self, id: str) -> list[Change]:
        self._confirm(id)
        row = self._rows.pop(id, None)
        return [Gone(row.instance, row.principal)] if row else []

    def __repr__(self) -> str:
        state = "synced" if self.synced else "stale"
        return f"<Replica [{len(self._rows)} instances, {len(self._unconfirmed)} unconfirmed | {state}]>"
