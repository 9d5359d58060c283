"""A reader's copy of the catalog. It never empties itself because the hub did.

After a reconnect the hub dumps what it knows and says `synced`. A hub that was restarted knows little then: rows it did
not repeat are held for `hold_seconds`, long enough for their owners to come back to it.
"""

from __future__ import annotations

from .errors import InvalidInstance
from .instance import Instance
from .wire import Free, Message, Register, Synced


class Replica:
    def __init__(self, hold_seconds: float = 10.0) -> None:
        self.hold_seconds = hold_seconds
        self._rows: dict[str, Instance] = {}
        self._unconfirmed: set[str] = set()
        self._drop_at: float | None = None
        self.synced = False  # this connection's dump is complete

    def disconnected(self) -> None:
        """Everything known stays, and waits to be said again."""
        self.synced = False
        self._drop_at = None
        self._unconfirmed = set(self._rows)

    def receive(self, message: Message, hub_host: str, now: float) -> bool:
        """True if the copy changed."""
        match message:
            case Register(id, meta):
                try:
                    instance = Instance.from_meta(id, meta, hub_host)
                except InvalidInstance:
                    return False
                self._unconfirmed.discard(id)
                # A worker that came back under a new id still has its address.
                for old in [i for i in self._unconfirmed if self._rows[i].address == instance.address]:
                    self._forget(old)
                changed = self._rows.get(id) != instance
                self._rows[id] = instance
                return changed
            case Free(id):
                return self._forget(id)
            case Synced():
                self.synced = True
                if self._unconfirmed and self._drop_at is None:
                    self._drop_at = now + self.hold_seconds
        return False

    def expire(self, now: float) -> bool:
        """Drops what nobody claimed in time; True if the copy changed."""
        if self._drop_at is None or now < self._drop_at:
            return False
        self._drop_at = None
        late = list(self._unconfirmed)
        for id in late:
            self._forget(id)
        return bool(late)

    def next_deadline(self) -> float | None:
        return self._drop_at

    def instances(self) -> list[Instance]:
        return list(self._rows.values())

    def _forget(self, id: str) -> bool:
        self._unconfirmed.discard(id)
        return self._rows.pop(id, None) is not None

    def __repr__(self) -> str:
        state = "synced" if self.synced else "stale"
        return f"<Replica [{len(self._rows)} instances, {len(self._unconfirmed)} unconfirmed | {state}]>"
