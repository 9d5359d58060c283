"""etcd as the engine, over its JSON gateway: no Python client resumes a watch, or notices a silent one, within asyncio.

One lease a store, however many rows; one watch for everything under the prefix. The watch is the truth: what it says of a
key counts by its revision, and our own writes count from the moment they are acknowledged until the watch has shown them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import StoreRefused
from ..store import NOBODY, OnChange, parse_hosts
from .documents import DocumentStore
from .etcd_layout import MAX_OPERATIONS, Layout, Operation, delete, if_absent, if_ours, outcome, put
from .etcd_lease import Lease
from .etcd_watch import Found, Watch
from .gateway import CALL_SECONDS, EtcdError, Gateway
from .outbox import Entry

PORT, PREFIX = 2379, "fairway"


class EtcdStore(DocumentStore[Found]):
    """`rest`: `[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PREFIX]`; a USER without PASSWORD shows `credentials.token`."""

    engine = "etcd"
    retry_seconds = 0.2, 2.0

    def __init__(
        self,
        rest: str,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        user, password, endpoints, path = parse_hosts(rest, PORT)
        layout = Layout(path or PREFIX)
        super().__init__(on_change, layout, MAX_OPERATIONS)
        self._gateway = Gateway(endpoints, user, password or credentials.token, credentials.tls(always=tls))
        self.watch = Watch(self._gateway, layout.everything, self, self._writing)
        self._lease = Lease(self._gateway, self._lost_lease)
        self._ahead: dict[str, int] = {}  # key -> the revision of a write of ours that the watch has not shown yet

    async def start(self) -> None:
        self._gateway.open()
        self._run(self.watch.run())

    async def _let_go(self) -> None:
        await self._lease.close()
        await self._gateway.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    @property
    def _trouble(self) -> str:
        return "no answer" if self.connected else self.watch.trouble

    async def _remove(self, paths: Sequence[str]) -> None:
        if not self._lease.id:  # nothing of ours is there
            return
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._gateway.call("kv/txn", {"success": [*map(delete, paths[:MAX_OPERATIONS])]})
        except EtcdError as error:
            raise StoreRefused(f"etcd refuses it: {error}") from error

    async def _send(self, entries: Sequence[Entry]) -> bool:
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
            return True
        revision = int(answer["header"]["revision"])
        changes: list[Change] = []
        answers = iter(answer["responses"])
        for entry, ones in zip(entries, operations, strict=True):
            changes += self._acknowledged(entry, outcome([next(answers) for _ in ones]), revision)
            entry.settle()
        if changes:
            await self._tell(changes)
        return True

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

    def _lost_lease(self) -> None:
        self._log.warning("etcd has dropped our lease; announcing %d rows again", len(self._own))
        for id in [id for id, row in self._own.items() if not row.principal]:
            self._again(id)

    # -- reading: what the watch says ------------------------------------------------------------------------------

    @property
    def unseen(self) -> bool:
        return bool(self._ahead)

    async def turned(self, up: bool) -> None:
        self._followed(up)
        if not up and self.replica.next_deadline() is not None:  # what is held is held until its owners could come back
            self.watch.list_anew()
        await self._tell([])

    async def refused(self, reason: str) -> None:
        self._turned_away(f"etcd refuses us: {reason}")

    async def tick(self, now: float) -> None:
        if changes := self.replica.expire(now):
            await self._tell(changes)

    async def listed(self, found: Sequence[Found], same: bool) -> None:
        self._ahead.clear()
        await self._tell(self._listed({one.key: one for one in found}, same))

    async def heard(self, found: Sequence[Found]) -> None:
        changes = [change for one in found if self._is_news(one) for change in self._learn(one)]
        if changes:
            await self._tell(changes)

    def _is_news(self, found: Found) -> bool:
        """Not older than what we wrote there ourselves."""
        if found.revision < self._ahead.get(found.key, 0):
            return False
        self._ahead.pop(found.key, None)
        return True

    def _learn(self, found: Found) -> list[Change]:
        return self._ended(found.key) if found.value is None else self._found(found.key, found)

    def _revision(self, found: Found) -> int:
        return found.revision


def _deleted(answer: Operation) -> bool:
    return "deleted" in answer.get("response_delete_range", {})
