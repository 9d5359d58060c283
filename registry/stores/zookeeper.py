"""ZooKeeper as the engine: kazoo in threads of its own, heard from the event loop.

Ephemeral rows are ephemeral nodes of one session, which kazoo keeps alive; the rest are persistent nodes. What surprises:

- An ephemeral node belongs to the session that made it, for ever: who takes a row over removes it and makes it anew, in
  one transaction. So does who comes back with a new session before the old one has ended (`NodeExists` otherwise).
- Nobody makes a lost node again but we: after each connection everything is listed, and what is ours and not there, or
  there with another session, is written again. Some of our rows are looked at every few seconds even so, since a server
  may lose a session without a word.
- A node of a service stays when its last row has gone: a service is a name, and has few.
- A write that is larger than the server's `jute.maxbuffer` is answered by a broken connection: what breaks it three times
  in a row, alone, is refused.
- With a user in the URL nodes are made for that user alone: whoever reads needs the same one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import ConfigurationError, InvalidInstance, StoreRefused, StoreUnavailable
from ..store import NOBODY, WRITE_SECONDS, OnChange, Store, parse_hosts
from .etcd_layout import Row, document, mark_document
from .outbox import Entry, Outbox, Receipt
from .zookeeper_layout import Delete, Layout, Node, Transaction, parent
from .zookeeper_tree import Tree

log = logging.getLogger("fairway.registry.zookeeper")

PORT, PATH = 2181, "fairway"
BATCH = 60  # changes in one transaction: of documents of 8 KiB, half of what one message may hold
RETRY_SECONDS = 0.2
STRIKES = 3
LOOK_AT = 100  # of our rows, every few seconds
GOOD_BYE_SECONDS = 1.0


class ZooKeeperStore(Store):
    """`rest`: `[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PATH]`; a USER without PASSWORD shows `credentials.token`."""

    def __init__(
        self,
        rest: str,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        super().__init__(on_change)
        try:
            from .zookeeper_session import Conflict, Session
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "kazoo":
                raise
            raise ConfigurationError("zookeeper:// needs kazoo: pip install 'fairway[zookeeper]'") from error
        user, password, hosts, path = parse_hosts(rest, PORT)
        self._layout = Layout(path or PATH)
        self._writing = asyncio.Lock()
        self._conflict = Conflict
        login = f"{user}:{password or credentials.token}" if user else ""
        self._session = Session(hosts, login, credentials.tls(always=tls), lambda path: self._tree.heard(path))
        self._tree = Tree(self._session, self._layout, self, self._writing)
        self._tasks: list[asyncio.Task[None]] = []
        self._where: dict[str, str] = {}  # id -> where its row is, whoever's
        self._marked: set[str] = set()  # ids with a mark
        self._odd: set[str] = set()  # nodes that cannot be read, and of which that was said
        self._born = 0, 0  # when the root was made: at another time, it is another ZooKeeper, or one that was emptied
        self._heard = asyncio.Event()
        # What is ours:
        self._outbox = Outbox()
        self._sending: list[Entry] = []
        self._filled, self._up = asyncio.Event(), asyncio.Event()
        self._written: set[str] = set()  # ids that ZooKeeper has of us, or may have
        self._most = BATCH  # how many changes the next transaction may hold
        self._struck: tuple[Entry | None, int] = None, 0  # what broke the connection last, and how often in a row
        self._turn = 0  # whose turn it is to be looked at

    async def start(self) -> None:
        self._session.open()
        runs = (self._tree.run(), self._keep_writing(), self._keep_telling())
        self._tasks = [asyncio.create_task(run) for run in runs]

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
            raise StoreUnavailable(f"ZooKeeper did not take it in {WRITE_SECONDS:g} s; trying on") from error

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            self._tasks = []
            await self._lift_marks()
            await self._session.close()
        self._outbox.close(StoreUnavailable("closed before ZooKeeper took it"))
        self.connected = self.replica.synced = False

    async def _lift_marks(self) -> None:
        """Our rows end with the session; what was said of them by an operator ends with them."""
        ended = [id for id, row in self._own.items() if not row.principal and not self.replica.get(id)]
        marks = [Delete(self._layout.mark(id), -1) for id in ended if id in self._marked]
        if marks and self._session.up.is_set():
            try:
                async with asyncio.timeout(GOOD_BYE_SECONDS):
                    await self._session.commit(marks)
            except (StoreUnavailable, StoreRefused, self._conflict, TimeoutError) as error:
                log.warning("could not remove the marks of our rows from ZooKeeper: %s", error or "no answer")

    # -- writing ---------------------------------------------------------------------------------------------------

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
        while True:
            await self._filled.wait()
            await self._up.wait()
            wait = 0.0
            async with self._writing:
                self._sending = self._outbox.take(self._most, lambda entry: self._layout.touched(entry, self._where))
                for entry in self._sending:
                    if isinstance(entry.change, Put):
                        self._written.add(entry.change.instance.id)
                try:
                    wait = await self._send(self._sending)
                except StoreUnavailable as error:
                    log.debug("ZooKeeper does not take what is written (%s): trying on", error)
                    wait = RETRY_SECONDS
                except Exception:
                    log.exception("could not write to ZooKeeper: trying on")
                    wait = RETRY_SECONDS
                finally:
                    self._outbox.put_back(self._sending)
                    self._sending = []
                if not self._outbox:
                    self._filled.clear()
            if wait:
                await asyncio.sleep(wait)

    async def _send(self, entries: Sequence[Entry]) -> float:
        """Settles those that ZooKeeper took or refused; the others are to be tried again, after so many seconds."""
        touched = {path for entry in entries for path in self._layout.touched(entry, self._where)}
        folders = {parent(path) for path in touched if self._layout.is_row(path)}
        paths = [*sorted(folders), *sorted(touched)]  # in this order: see Transaction
        nodes = await asyncio.gather(*(self._session.get(path, watch=False) for path in paths))
        transaction = Transaction(
            self._layout, dict(zip(paths, nodes, strict=True)), self._where, self.uid, self._session.id
        )
        done = [transaction.add(entry) for entry in entries]
        try:
            if operations := transaction.operations:
                await self._session.commit(operations)
        except self._conflict:  # somebody was faster: what is there now?
            wait = 0.0 if self._most > 1 else RETRY_SECONDS
            self._most = max(1, len(entries) // 4)
            return wait
        except StoreRefused as error:
            if len(entries) == 1:
                self._refused(entries[0], error)
            self._most = 1  # whose fault was it?
            return 0.0
        except StoreUnavailable:
            self._most = max(1, len(entries) // 4)
            if len(entries) == 1 and not self._session.up.is_set():
                self._strike(entries[0])
            raise
        self._most, self._struck = min(self._most * 2, BATCH), (None, 0)
        for entry, is_done in zip(entries, done, strict=True):
            self._acknowledged(entry, is_done)
            entry.settle()
        return 0.0

    def _acknowledged(self, entry: Entry, done: bool) -> None:
        match entry.change:
            case Put(instance) if done:
                self._where[instance.id] = self._layout.row(instance)
                self._tree.expect(self._where[instance.id])
                # If it replaced somebody's row, that one is gone: the copy holds what others wrote.
                self._learnt(self.replica.receive(Gone(instance)))
            case Gone(instance):
                self._written.discard(instance.id)
                if done:
                    self._where.pop(instance.id, None)
                    self._learnt(self.replica.receive(entry.change))
            case Mark() as mark if entry.name not in self._outbox:
                self._learnt(self.replica.receive(mark))

    def _strike(self, entry: Entry) -> None:
        """The connection broke while ZooKeeper was given this, after it had answered all else."""
        last, times = self._struck
        times = times + 1 if last is entry else 1
        self._struck = entry, times
        if times == STRIKES:
            size = len(entry.value)
            self._refused(
                entry, StoreRefused(f"ZooKeeper breaks the connection over its {size} bytes: jute.maxbuffer?")
            )

    def _refused(self, entry: Entry, error: StoreRefused) -> None:
        log.warning("%s: %s", entry.name[1], error)
        if isinstance(entry.change, Put) and self._own.get(entry.change.instance.id) is entry.change:
            del self._own[entry.change.instance.id]
        entry.settle(error)

    # -- reading: what the tree says ---------------------------------------------------------------------------------

    def _learnt(self, changes: Sequence[Change]) -> None:
        """What follows the copy is told in the same breath, and who waits for it soon after."""
        if changes:
            try:
                self._on_change(changes)
            except Exception:
                log.exception("a listener of %r failed; the connection lives on", self)
        self._heard.set()

    async def _keep_telling(self) -> None:
        while True:
            try:
                async with asyncio.timeout_at(self.replica.next_deadline()):
                    await self._heard.wait()
            except TimeoutError:
                self._learnt(self.replica.expire(asyncio.get_running_loop().time()))
            self._heard.clear()
            await self._tell([])

    def turned(self, up: bool) -> None:
        self.connected = self.replica.synced = up
        if up:
            self._up.set()
        else:
            self._up.clear()
        self._learnt([])

    def refused(self, reason: str) -> None:
        """Those who wait are told; what they wrote is kept, since it is we who are refused, and not that."""
        self._outbox.tell(StoreRefused(reason))

    def doubtful(self) -> list[str]:
        """Some of ours, in turns."""
        ids = sorted(self._own.keys() & self._written)
        if self._turn >= len(ids):
            self._turn = 0
        some = ids[self._turn : self._turn + LOOK_AT]
        self._turn += LOOK_AT
        return [self._layout.row(self._own[id].instance) for id in some]

    def listed(self, nodes: Mapping[str, Node], root: Node) -> None:
        """What is missing is gone; unless this is not what we knew: then its owners may not have come back yet."""
        same = root.born == self._born
        hold = not same or self.replica.next_deadline() is not None
        self._born, self._where, self._marked = root.born, {}, set()
        self._odd &= nodes.keys()
        rows: list[Put] = []
        marks: list[Mark] = []
        ours: set[str] = set()
        for path, node in nodes.items():
            match self._read(path, node):
                case Mark() as mark:
                    self._marked.add(mark.id)
                    marks.append(mark)
                case Row(writer, row):
                    self._where[row.instance.id] = path
                    if writer == self.uid:
                        ours.add(row.instance.id)
                        self._compare(row, node)
                    else:
                        rows.append(row)
        for id, own in list(self._own.items()):
            if id in ours or self._pending(id):
                continue
            if own.principal and (same or id in self._where):
                del self._own[id]  # somebody removed it, or changed it, as is their right
                self._learnt([] if id in self._where else [Gone(own.instance, own.principal)])
            elif id not in self._where:
                self._again(id)
        self._learnt(self.replica.replace(rows, marks, asyncio.get_running_loop().time(), hold))

    def found(self, path: str, node: Node) -> None:
        match self._read(path, node):
            case Mark() as mark:
                self._marked.add(mark.id)
                if ("mark", mark.id) not in self._outbox:  # else ours is to take its place
                    self._learnt(self.replica.receive(mark))
            case Row(writer, row):
                id = row.instance.id
                self._where[id] = path
                if writer == self.uid:
                    self._compare(row, node)
                    self._learnt(self.replica.receive(Gone(row.instance)))
                    return
                if (own := self._own.get(id)) and own.principal and not self._pending(id):
                    del self._own[id]  # what outlives its writer belongs to whoever wrote it last
                self._learnt(self.replica.receive(row))

    def ended(self, path: str) -> None:
        self._odd.discard(path)
        if (marked := self._layout.marked_by(path)) is not None:
            self._marked.discard(marked)
            if ("mark", marked) not in self._outbox:
                self._learnt(self.replica.receive(Mark(marked, True)))
            return
        id = self._layout.id_of(path)
        if id is None or self._where.get(id, path) != path:
            return
        self._where.pop(id, None)
        own = self._own.get(id)
        if own and self._layout.row(own.instance) == path and not self._pending(id):
            if own.principal:
                del self._own[id]
                self._learnt([Gone(own.instance, own.principal)])
            else:
                self._again(id)
        if row := self.replica.get(id):
            self._learnt(self.replica.receive(Gone(row.instance, row.principal)))

    def _compare(self, row: Put, node: Node) -> None:
        """What is ours is to be as we said last, and to end with the session that we have."""
        id = row.instance.id
        if self._pending(id):
            return
        own = self._own.get(id)
        if own is None:
            self._written.add(id)
            self._add(Entry(Gone(row.instance, row.principal)))
        elif (wanted := self._value(own)) != node.value or node.owner != (0 if own.principal else self._session.id):
            self._add(Entry(own, wanted))

    def _read(self, path: str, node: Node) -> Row | Mark | None:
        try:
            return self._layout.read(path, node.value)
        except InvalidInstance as error:
            if path not in self._odd:
                self._odd.add(path)
                log.warning("skipped %r: %s", path, error)
            return None


def _conclude(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # nobody waits any more
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
