"""etcd as the engine, over its JSON gateway: no Python client resumes a watch, or notices a silent one, within asyncio.

One lease a store, however many rows; one watch for everything under the prefix. The watch is the truth: what it says of a
key counts by its revision, and our own writes count from the moment they are acknowledged until the watch has shown them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import InvalidInstance, StoreRefused, StoreUnavailable
from ..store import NOBODY, WRITE_SECONDS, OnChange, Store, parse_hosts
from .etcd_layout import (
    MAX_OPERATIONS,
    Layout,
    Operation,
    Row,
    delete,
    document,
    if_absent,
    if_ours,
    mark_document,
    outcome,
    put,
)
from .etcd_lease import Lease
from .etcd_watch import Found, Watch
from .gateway import CALL_SECONDS, EtcdError, Gateway
from .outbox import Entry, Outbox, Receipt

log = logging.getLogger("fairway.registry.etcd")

PORT, PREFIX = 2379, "fairway"
FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds between attempts, doubling, with jitter


class EtcdStore(Store):
    """`rest`: `[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PREFIX]`; a USER without PASSWORD shows `credentials.token`."""

    def __init__(
        self,
        rest: str,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        super().__init__(on_change)
        user, password, endpoints, path = parse_hosts(rest, PORT)
        self._gateway = Gateway(endpoints, user, password or credentials.token, credentials.tls(always=tls))
        self._layout = Layout(path or PREFIX)
        self._writing = asyncio.Lock()
        self.watch = Watch(self._gateway, self._layout.everything, self, self._writing)
        self._lease = Lease(self._gateway, self._lost_lease)
        self._tasks: list[asyncio.Task[None]] = []
        self._where: dict[str, str] = {}  # id -> the key of its row, whoever's
        self._odd: set[str] = set()  # keys that cannot be read, and of which that was said
        # What is ours:
        self._outbox = Outbox()
        self._sending: list[Entry] = []
        self._filled, self._up = asyncio.Event(), asyncio.Event()
        self._written: dict[str, int] = {}  # id -> the revision at which we wrote it last; 0: sent, no more is known
        self._ahead: dict[str, int] = {}  # key -> the revision of a write of ours that the watch has not shown yet

    async def start(self) -> None:
        self._gateway.open()
        self._tasks = [asyncio.create_task(self.watch.run()), asyncio.create_task(self._keep_writing())]

    async def write(self, changes: Sequence[Change]) -> None:
        """All of them, or, if one can never be written, none. What waits for etcd is only the last word on each row."""
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
            why = "no answer" if self.connected else self.watch.trouble
            raise StoreUnavailable(f"etcd did not take it in {WRITE_SECONDS:g} s ({why}); trying on") from error

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        # Our rows end with the lease; what was said of them by an operator ends with them.
        ended = [id for id, row in self._own.items() if not row.principal and not self.replica.get(id)]
        marks = [mark for id in ended if (mark := self._layout.mark(id)) in self.watch.keys]
        if marks and self._lease.id:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._gateway.call("kv/txn", {"success": [delete(mark) for mark in marks[:MAX_OPERATIONS]]})
            except (StoreUnavailable, EtcdError, TimeoutError) as error:
                log.warning("could not remove the marks of our rows from etcd: %s", error or "no answer")
        await self._lease.close()
        self._outbox.close(StoreUnavailable("closed before etcd took it"))
        await self._gateway.close()
        self.connected = self.replica.synced = False

    # -- writing ---------------------------------------------------------------------------------------------------

    def _add(self, entry: Entry) -> None:
        match entry.change:
            case Gone(instance, "") if instance.id not in self._written:
                # Not ours, or not there yet: nothing is left to write. Else churn would fill the outbox of an absent etcd.
                if waiting := self._outbox.discard(entry.name):
                    waiting.settle()
                entry.settle()
                return
        self._outbox.add(entry)
        self._filled.set()

    def _again(self, ids: Iterable[str]) -> None:
        for id in ids:
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

    async def _keep_writing(self) -> None:
        delay = FIRST_RETRY
        while True:
            await self._filled.wait()
            await self._up.wait()
            failed = True
            async with self._writing:
                self._sending = self._outbox.take(MAX_OPERATIONS, self._touched)
                for entry in self._sending:
                    if isinstance(entry.change, Put):
                        self._written.setdefault(entry.change.instance.id, 0)
                try:
                    await self._send(self._sending)
                    delay, failed = FIRST_RETRY, False
                except StoreUnavailable as error:
                    if delay == FIRST_RETRY:
                        log.warning("etcd does not take what is written (%s): trying on", error)
                except Exception:
                    log.exception("could not write to etcd: trying on")
                finally:
                    self._outbox.put_back(self._sending)
                    self._sending = []
                if not self._outbox:
                    self._filled.clear()
            if failed:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LAST_RETRY)

    async def _send(self, entries: Sequence[Entry]) -> None:
        """Settles those that etcd took or refused; the others are to be tried again."""
        lease = self._lease.id
        try:
            if any(isinstance(entry.change, Put) and not entry.change.principal for entry in entries):
                lease = await self._lease.hold()
            operations = [self._operations(entry, lease) for entry in entries]
            answer = await self._gateway.call("kv/txn", {"success": [one for ones in operations for one in ones]})
        except EtcdError as error:
            if error.lease_gone:
                self._lease.lost(lease)
            elif len(entries) > 1:  # whose fault was it?
                for entry in entries:
                    await self._send([entry])
            else:
                self._refused(entries[0], StoreRefused(f"etcd refuses it: {error}"))
            return
        revision = int(answer["header"]["revision"])
        changes: list[Change] = []
        answers = iter(answer["responses"])
        for entry, ones in zip(entries, operations, strict=True):
            changes += self._acknowledged(entry, outcome([next(answers) for _ in ones]), revision)
            entry.settle()
        if changes:
            await self._tell(changes)

    def _operations(self, entry: Entry, lease: str) -> list[Operation]:
        match entry.change:
            case Put(instance, principal):
                key, before = self._layout.row(instance), self._where.get(instance.id)
                write = put(key, entry.value, "" if principal else lease)
                if entry.again:
                    return [if_absent(key, write)]
                return [write, delete(before)] if before and before != key else [write]
            case Gone(instance, principal):
                key, mark = self._layout.row(instance), self._layout.mark(instance.id)
                if principal:
                    return [delete(key), *map(delete, self._touched(entry) - {key})]
                return [if_ours(key, lease, self._written.get(instance.id, 0), delete(key), delete(mark))]
            case Mark(id, enabled):
                mark = self._layout.mark(id)
                return [delete(mark) if enabled else put(mark, entry.value)]

    def _touched(self, entry: Entry) -> set[str]:
        if isinstance(entry.change, Mark):
            return {self._layout.mark(entry.change.id)}
        instance = entry.change.instance
        keys = {self._layout.row(instance), self._where.get(instance.id, self._layout.row(instance))}
        return keys if isinstance(entry.change, Put) else keys | {self._layout.mark(instance.id)}

    def _acknowledged(self, entry: Entry, done: list[Operation] | None, revision: int) -> list[Change]:
        match entry.change:
            case Put(instance):
                if done is None:  # it was to be written again, and somebody else has: the watch says who
                    return []
                self._written[instance.id] = revision
                self._where[instance.id] = self._layout.row(instance)
                # If it replaced somebody's row, that one is gone: the copy holds what others wrote.
                return self._counts(self._layout.row(instance), revision, Gone(instance))
            case Gone(instance):
                self._written.pop(instance.id, None)
                if done and _deleted(done[0]):
                    return self._counts(self._layout.row(instance), revision, entry.change)
            case Mark(id, enabled) as mark:
                if entry.name not in self._outbox and done and (not enabled or _deleted(done[0])):
                    return self._counts(self._layout.mark(id), revision, mark)
        return []

    def _counts(self, key: str, revision: int, change: Change) -> list[Change]:
        """What we wrote is true from now on, unless the watch has been there and further."""
        if revision <= self.watch.revision:
            return []
        self._ahead[key] = revision
        return self.replica.receive(change)

    def _refused(self, entry: Entry, error: StoreRefused) -> None:
        log.warning("%s", error)
        if isinstance(entry.change, Put) and self._own.get(entry.change.instance.id) is entry.change:
            del self._own[entry.change.instance.id]
            if not self._written.get(entry.change.instance.id):
                self._written.pop(entry.change.instance.id, None)
        entry.settle(error)

    def _lost_lease(self) -> None:
        log.warning("etcd has dropped our lease; announcing %d rows again", len(self._own))
        self._again([id for id, row in self._own.items() if not row.principal])

    # -- reading: what the watch says ------------------------------------------------------------------------------

    @property
    def unseen(self) -> bool:
        return bool(self._ahead)

    async def turned(self, up: bool) -> None:
        self.connected = self.replica.synced = up
        if up:
            self._up.set()
        else:
            self._up.clear()
            if self.replica.next_deadline() is not None:  # what is held is held until its owners could come back
                self.watch.list_anew()
        await self._tell([])

    async def refused(self, reason: str) -> None:
        """Those who wait are told; what they wrote is kept, since it is we who are refused, and not that."""
        self._outbox.tell(StoreRefused(f"etcd refuses us: {reason}"))

    async def tick(self, now: float) -> None:
        if changes := self.replica.expire(now):
            await self._tell(changes)

    async def listed(self, found: Sequence[Found], same: bool) -> None:
        """What is missing is gone; unless this is not the etcd we knew: then its owners may not have come back yet."""
        hold = not same or self.replica.next_deadline() is not None
        self._where, self._odd = {}, self._odd & self.watch.keys
        self._ahead.clear()
        rows: list[Put] = []
        marks: list[Mark] = []
        ours: set[str] = set()
        for one in found:
            match self._read(one):
                case Mark() as mark:
                    marks.append(mark)
                case Row(writer, row):
                    self._where[row.instance.id] = one.key
                    if writer == self.uid:
                        ours.add(row.instance.id)
                        self._compare(row, one)
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
                self._again([id])
        copied = self.replica.replace(rows, marks, asyncio.get_running_loop().time(), hold)
        await self._tell([*removed, *copied])

    async def heard(self, found: Sequence[Found]) -> None:
        changes = [change for one in found if self._is_news(one) for change in self._learn(one)]
        if changes:
            await self._tell(changes)

    def _is_news(self, found: Found) -> bool:
        """Not older than what we wrote there ourselves, and not a mark that is to be overwritten by ours."""
        if found.revision < self._ahead.get(found.key, 0):
            return False
        self._ahead.pop(found.key, None)
        return ("mark", self._layout.marked_by(found.key)) not in self._outbox

    def _learn(self, found: Found) -> list[Change]:
        if found.value is None:
            return self._ended(found.key)
        match self._read(found):
            case Mark() as mark:
                return self.replica.receive(mark)
            case Row(writer, row):
                id = row.instance.id
                self._where[id] = found.key
                if writer == self.uid:
                    self._compare(row, found)
                    return self.replica.receive(Gone(row.instance))
                if (own := self._own.get(id)) and own.principal and not self._pending(id):
                    del self._own[id]  # what outlives its writer belongs to whoever wrote it last
                return self.replica.receive(row)
        return []

    def _ended(self, key: str) -> list[Change]:
        self._odd.discard(key)
        if (marked := self._layout.marked_by(key)) is not None:
            return self.replica.receive(Mark(marked, True))
        id = self._layout.id_of(key)
        if id is None or self._where.get(id) != key:
            return []
        del self._where[id]
        own = self._own.get(id)
        if own and self._layout.row(own.instance) == key and not self._pending(id):
            if own.principal:
                del self._own[id]
                return [Gone(own.instance, own.principal)]
            self._again([id])
        row = self.replica.get(id)
        return self.replica.receive(Gone(row.instance, row.principal)) if row else []

    def _compare(self, row: Put, found: Found) -> None:
        """A member that was stopped may do late what we asked of it and then of another: our last word is said again."""
        id = row.instance.id
        if found.revision <= self._written.get(id, 0) or self._pending(id):
            return
        own = self._own.get(id)
        if own is None:
            self._written[id] = found.revision
            self._add(Entry(Gone(row.instance, row.principal)))
        elif (wanted := self._value(own)) != found.value:
            self._add(Entry(own, wanted))

    def _read(self, found: Found) -> Row | Mark | None:
        try:
            return self._layout.read(found.key, found.value or b"")
        except InvalidInstance as error:
            if found.key not in self._odd:
                self._odd.add(found.key)
                log.warning("skipped %r: %s", found.key, error)
            return None


def _deleted(answer: Operation) -> bool:
    return "deleted" in answer.get("response_delete_range", {})


def _conclude(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # nobody waits any more
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
