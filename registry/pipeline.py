"""From the catalog to the engine, and then to the readers, in order.

What changes is written first, then told: whoever was told that a worker is registered can rely on it after a crash.
Changes that come while a write is under way share the next one. While the engine is away nobody is kept waiting: changes
are told at once, and written when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .catalog import Catalog, Event
from .changes import Change, Gone, Mark, Put, Released
from .errors import StoreRefused, StoreUnavailable
from .store import Store

log = logging.getLogger("fairway.registry")


@dataclass(frozen=True)
class Nothing:
    """Nothing changed, but somebody asked about this id, and is to be answered in turn."""

    id: str


Events = Sequence[Event | Nothing]
OnTold = Callable[[Events, str, Exception | None], None]


class Pipeline:
    """`tell(events, origin, error)` is called for each submission, in order; `error`: the engine does not have them."""

    def __init__(self, tell: OnTold) -> None:
        self._tell = tell
        self._queue: list[tuple[Events, str, bool, asyncio.Future[None]]] = []
        self._queued = asyncio.Event()
        self._away = False  # the store was, when it was last written to
        self._written: dict[str, Put] = {}  # what the engine holds of ours, as far as we know

    def open(self, store: Store, catalog: Catalog) -> None:
        """Before `run`. What was submitted earlier is in the queue."""
        self._store, self._catalog = store, catalog

    def submit(self, events: Events, origin: str = "", foreign: bool = False) -> asyncio.Future[None]:
        """Done once told; StoreUnavailable (told all the same, and written later) or StoreRefused if not written.

        `foreign`: the engine has them from others. They wait their turn too, or an older word of ours would be told last.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        if events:
            self._queue.append((events, origin, foreign, done))
            self._queued.set()
        else:
            done.set_result(None)
        return done

    def overwritten(self, changes: Sequence[Change]) -> None:
        """By others, or not at all: the engine does not hold our version."""
        for change in changes:
            if not isinstance(change, Mark):
                self._written.pop(change.instance.id, None)

    async def run(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            batch, self._queue = self._queue, []
            writes = [
                [write for event in events if not foreign and (write := self._to_write(event))]
                for events, _, foreign, _ in batch
            ]
            for (events, origin, _, done), error in zip(batch, await self._attempt(writes), strict=True):
                try:
                    self._tell(events, origin, error)
                except Exception:  # whatever it was: who comes after it is to be heard
                    log.exception("readers could not be told of %d events", len(events))
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

    async def _attempt(self, writes: Sequence[Sequence[Change]]) -> list[StoreUnavailable | StoreRefused | None]:
        """What came of each. Of one that the engine refuses its neighbours know nothing."""
        together = [change for changes in writes for change in changes]
        try:
            if together:
                await self._write(together)
        except StoreUnavailable as error:
            if not self._away:  # once, not for each of the changes until it is back
                log.warning("%s", error)
            self._away = True
            return [error] * len(writes)
        except StoreRefused as error:
            if len(writes) > 1:
                half = len(writes) // 2
                return await self._attempt(writes[:half]) + await self._attempt(writes[half:])
            log.warning("%s", error)
            self.overwritten(together)
            return [error]
        except Exception as error:  # a fault of ours: the hub goes on as if the engine were away
            log.exception("%r failed", self._store)
            return [StoreUnavailable(f"the engine failed: {error!r:.200}")] * len(writes)
        if together and self._away:
            log.info("what is registered is written again")
            self._away = False
        return [None] * len(writes)

    async def _write(self, writes: Sequence[Change]) -> None:
        if self._store.connected:
            await self._store.write(writes)
            return
        late = asyncio.create_task(self._store.write(writes))
        late.add_done_callback(_seen)
        raise StoreUnavailable("it stands, but is not written yet: the store is away, and told when it is back")

    def _to_write(self, event: Event | Nothing) -> Change | None:
        match event:
            case Put(instance):
                document = self._catalog.document(instance.id)
                if document is None or document == self._written.get(instance.id):
                    return None
                self._written[instance.id] = document
                return document
            case Gone(instance):
                self._written.pop(instance.id, None)
                return event
            case Released(instance):
                self._written.pop(instance.id, None)
                return Gone(instance)
            case Mark():
                return event
        return None


def _seen(future: asyncio.Future[None]) -> None:
    """An error that nobody waits for was logged."""
    if not future.cancelled():
        future.exception()
