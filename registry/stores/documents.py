"""An engine that holds documents under paths: what is ours there, what others wrote, and what is still to be written.

Laws, whatever the engine:

- What it lists is the truth, and so is each change that it tells later. What is ours and not there, or not there as we
  said it last, is written again; but of what outlives its writer the last word counts, whoever's it is.
- What is under way is left alone: while something of ours about a row or a mark waits to be written, what is found there
  is no reason to write, and no news.
- What is missing from a list is gone; unless the engine is not the one we knew, or was emptied: then it is held, since its
  owners may not have come back yet.
- A document that cannot be read is nobody's, and is said once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..changes import Change, Gone, Mark, Put
from ..errors import InvalidInstance, StoreRefused, StoreUnavailable
from ..store import WRITE_SECONDS, OnChange, Store
from .document import Layout, Row, document, mark_document
from .outbox import Entry, Outbox, Receipt


class Document(Protocol):
    """As an engine found it; None: there is nothing any more."""

    @property
    def value(self) -> bytes | None: ...


Found = TypeVar("Found", bound=Document)


class DocumentStore(Store, Generic[Found]):
    """The bookkeeping; an engine says how it is written, what it means that something is found, and follows what changes.

    An engine calls `_listed` with all there is, then `_found` and `_ended` with what changes, in the engine's order, and
    tells what they return; it holds `_writing` while it lists, so that what is acknowledged before is in the list.
    """

    engine: ClassVar[str]  # its name, for people
    retry_seconds: ClassVar[tuple[float, float]]  # between attempts to write: the first wait, doubling up to the last

    def __init__(self, on_change: OnChange, layout: Layout, most: int) -> None:
        """`most` keys are written at once, or fewer."""
        super().__init__(on_change)
        self._log = logging.getLogger(f"fairway.registry.{self.engine.lower()}")
        self._layout = layout
        self._tasks: list[asyncio.Task[None]] = []
        self._where: dict[str, str] = {}  # id -> where its row is, whoever's
        self._marked: set[str] = set()  # ids with a mark
        self._odd: set[str] = set()  # paths of what cannot be read, and of which that was said
        # What is ours:
        self._most = most
        self._writing = asyncio.Lock()
        self._outbox = Outbox()
        self._sending: list[Entry] = []
        self._filled, self._up = asyncio.Event(), asyncio.Event()
        # id -> at which revision of the engine's we wrote it last (1 if it counts none); 0: sent, no more is known
        self._written: dict[str, int] = {}

    # -- what is an engine's own -----------------------------------------------------------------------------------

    @abstractmethod
    async def _send(self, entries: Sequence[Entry]) -> bool:
        """Settles those that the engine took or refused. The others are to be tried again: at once, or, False, later.

        May raise StoreUnavailable: later.
        """

    @abstractmethod
    async def _remove(self, paths: Sequence[str]) -> None:
        """If the engine is there, and without much ado. Raises StoreUnavailable, StoreRefused or TimeoutError."""

    @abstractmethod
    async def _let_go(self) -> None:
        """Ends what our ephemeral rows live by, and the connections."""

    @property
    def _trouble(self) -> str:
        """Why it does not answer, as far as is known."""
        return "no answer" if self.connected else "not connected"

    def _revision(self, found: Found) -> int:
        """Since when it is as it is; 0: the engine counts no revisions."""
        return 0

    def _lives_as(self, own: Put, found: Found) -> bool:
        """Whether what was found ends, or stays, as `own` is to."""
        return True

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, changes: Sequence[Change]) -> None:
        """All of them, or, if one can never be written, none. What waits meanwhile is only the last word on each row."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        receipt = Receipt(len(changes), lambda error: _conclude(done, error))
        entries = [Entry(change, self._value(change), [receipt]) for change in changes]  # may raise StoreRefused
        for entry in entries:
            self._add(entry)
        self._remember(changes)
        if not changes:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await done
        except TimeoutError as error:
            said = f"{self.engine} did not take it in {WRITE_SECONDS:g} s ({self._trouble}); trying on"
            raise StoreUnavailable(said) from error

    async def close(self) -> None:
        """Removes our ephemeral rows, if the engine is there, and lets go."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            await self._lift_marks()
            await self._let_go()
        self._outbox.close(StoreUnavailable(f"closed before {self.engine} took it"))
        self.connected = self.replica.synced = False

    def _run(self, *runs: Coroutine[Any, Any, None]) -> None:
        """What is done until it is closed: to write, and what else there is."""
        self._tasks = [asyncio.create_task(run) for run in (*runs, self._keep_writing())]

    async def _lift_marks(self) -> None:
        """Our ephemeral rows end with us; what was said of them by an operator ends with them."""
        ended = [id for id, row in self._own.items() if not row.principal and not self.replica.get(id)]
        if marks := [self._layout.mark(id) for id in ended if id in self._marked]:
            try:
                await self._remove(marks)
            except (StoreUnavailable, StoreRefused, TimeoutError) as error:
                why = error or "no answer"
                self._log.warning("could not remove the marks of our rows from %s: %s", self.engine, why)

    def _add(self, entry: Entry) -> None:
        match entry.change:
            case Gone(instance, "") if instance.id not in self._written:
                # Not ours, or not there yet: nothing is left to write. Else churn would fill the outbox while it is away.
                if waiting := self._outbox.discard(entry.name):
                    waiting.settle()
                entry.settle()
                return
        self._outbox.add(entry)
        self._filled.set()

    def _again(self, id: str) -> None:
        """It was lost, and is written again unless somebody else was faster."""
        self._add(Entry(self._own[id], self._value(self._own[id]), again=True))

    def _value(self, change: Change) -> bytes:
        match change:
            case Put():
                return document(change, self.uid)
            case Mark(enabled=False):
                return mark_document(change, self.uid)
        return b""

    def _pending(self, id: str) -> bool:
        """Whether something of ours about its row is on its way."""
        name = ("row", id)
        return name in self._outbox or any(entry.name == name for entry in self._sending)

    def _touched(self, entry: Entry) -> set[str]:
        return self._layout.touched(entry, self._where)

    async def _keep_writing(self) -> None:
        first, last = self.retry_seconds
        delay, said = first, False
        while True:
            await self._filled.wait()
            await self._up.wait()
            at_once = False
            async with self._writing:
                self._sending = self._outbox.take(self._most, self._touched)
                for entry in self._sending:
                    if isinstance(entry.change, Put):
                        self._written.setdefault(entry.change.instance.id, 0)
                try:
                    if at_once := await self._send(self._sending):
                        delay, said = first, False
                except StoreUnavailable as error:
                    level = logging.DEBUG if said else logging.WARNING
                    self._log.log(level, "%s does not take what is written (%s): trying on", self.engine, error)
                    said = True
                except Exception:  # neither a bug nor an engine that answers strangely is to end it
                    self._log.exception("could not write to %s: trying on", self.engine)
                finally:
                    self._outbox.put_back(self._sending)
                    self._sending = []
                if not self._outbox:
                    self._filled.clear()
            if not at_once:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, last)

    def _refused(self, entry: Entry, error: StoreRefused) -> None:
        """The engine will never take it."""
        self._log.warning("%s: %s", entry.name[1], error)
        if isinstance(entry.change, Put) and self._own.get(entry.change.instance.id) is entry.change:
            del self._own[entry.change.instance.id]
            if not self._written.get(entry.change.instance.id):
                self._written.pop(entry.change.instance.id, None)
        entry.settle(error)

    # -- reading: what the engine says; each returns what changed in the copy -----------------------------------------

    def _followed(self, up: bool) -> None:
        """Whether the engine tells what changes."""
        self.connected = self.replica.synced = up
        if up:
            self._up.set()
        else:
            self._up.clear()

    def _turned_away(self, reason: str) -> None:
        """Those who wait are told; what they wrote is kept, since it is we who are refused, and not that."""
        self._outbox.tell(StoreRefused(reason))

    def _listed(self, documents: Mapping[str, Found], same: bool) -> list[Change]:
        """All there is, by path. `same`: the engine is the one that we knew, and has lost nothing of what it knew."""
        hold = not same or self.replica.next_deadline() is not None
        self._where, self._marked = {}, set()
        self._odd &= documents.keys()
        rows: list[Put] = []
        marks: list[Mark] = []
        ours: set[str] = set()
        for path, found in documents.items():
            match self._read(path, found):
                case Mark() as mark:
                    marks.append(mark)
                case Row(writer, row):
                    if writer == self.uid:
                        ours.add(row.instance.id)
                        self._compare(row, found)
                    else:
                        rows.append(row)
        removed: list[Change] = []
        for id, own in list(self._own.items()):
            if id in ours or self._pending(id):
                continue
            if own.principal and (same or id in self._where):
                del self._own[id]  # somebody removed it, or changed it, as is their right
                removed += [] if id in self._where else [Gone(own.instance, own.principal)]
            elif id not in self._where:
                self._again(id)
        return removed + self.replica.replace(rows, marks, asyncio.get_running_loop().time(), hold)

    def _found(self, path: str, found: Found) -> list[Change]:
        """It is new, or changed."""
        match self._read(path, found):
            case Mark() as mark if ("mark", mark.id) not in self._outbox:  # else ours is to take its place
                return self.replica.receive(mark)
            case Row(writer, row) if writer == self.uid:
                self._compare(row, found)
                return self.replica.receive(Gone(row.instance))
            case Row(_, row):
                id = row.instance.id
                if (own := self._own.get(id)) and own.principal and not self._pending(id):
                    del self._own[id]  # what outlives its writer belongs to whoever wrote it last
                return self.replica.receive(row)
        return []

    def _ended(self, path: str) -> list[Change]:
        """There is nothing at `path` any more."""
        self._odd.discard(path)
        if (marked := self._layout.marked_by(path)) is not None:
            self._marked.discard(marked)
            return [] if ("mark", marked) in self._outbox else self.replica.receive(Mark(marked, True))
        id = self._layout.id_of(path)
        if id is None or self._where.get(id, path) != path:
            return []
        self._where.pop(id, None)
        own = self._own.get(id)
        if own and self._layout.row(own.instance) == path and not self._pending(id):
            if own.principal:
                del self._own[id]
                return [Gone(own.instance, own.principal)]
            self._again(id)
        row = self.replica.get(id)
        return self.replica.receive(Gone(row.instance, row.principal)) if row else []

    def _compare(self, row: Put, found: Found) -> None:
        """What is ours is to be as we said last: what we asked for first may be done last, by a server that was stopped."""
        id, revision = row.instance.id, self._revision(found)
        if 0 < revision <= self._written.get(id, 0) or self._pending(id):
            return
        own = self._own.get(id)
        if own is None:
            self._written[id] = max(revision, 1)
            self._add(Entry(Gone(row.instance, row.principal)))
        elif not self._lives_as(
            own, found
        ):  # what we know may be as old as that which it lived by, and an heir is there
            self._again(id)
        elif (wanted := self._value(own)) != found.value:
            self._add(Entry(own, wanted))

    def _read(self, path: str, found: Found) -> Row | Mark | None:
        if (marked := self._layout.marked_by(path)) is not None:
            self._marked.add(marked)
        try:
            said = self._layout.read(path, found.value or b"")
        except InvalidInstance as error:
            if path not in self._odd:
                self._odd.add(path)
                self._log.warning("skipped %r: %s", path, error)
            return None
        if isinstance(said, Row):
            self._where[said.put.instance.id] = path
        return said


def _conclude(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # nobody waits any more
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
