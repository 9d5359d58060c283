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
from collections.abc import Mapping, Sequence

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import ConfigurationError, StoreRefused, StoreUnavailable
from ..store import NOBODY, OnChange, parse_hosts
from .documents import DocumentStore
from .outbox import Entry
from .zookeeper_layout import Delete, Layout, Node, Transaction, parent
from .zookeeper_tree import Tree

PORT, PATH = 2181, "fairway"
BATCH = 60  # changes in one transaction: of documents of 8 KiB, half of what one message may hold
STRIKES = 3
LOOK_AT = 100  # of our rows, every few seconds
GOOD_BYE_SECONDS = 1.0


class ZooKeeperStore(DocumentStore[Node]):
    """`rest`: `[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PATH]`; a USER without PASSWORD shows `credentials.token`."""

    _layout: Layout
    engine = "ZooKeeper"
    retry_seconds = 0.2, 0.2  # there is no haste to slow down: kazoo waits longer and longer before it connects

    def __init__(
        self,
        rest: str,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        try:
            from .zookeeper_session import Conflict, Session
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "kazoo":
                raise
            raise ConfigurationError("zookeeper:// needs kazoo: pip install 'fairway[zookeeper]'") from error
        user, password, hosts, path = parse_hosts(rest, PORT)
        layout = Layout(path or PATH)
        super().__init__(on_change, layout, BATCH)
        self._conflict = Conflict
        login = f"{user}:{password or credentials.token}" if user else ""
        self._session = Session(hosts, login, credentials.tls(always=tls), lambda path: self._tree.heard(path))
        self._tree = Tree(self._session, layout, self, self._writing)
        self._born = 0, 0  # when the root was made: at another time, it is another ZooKeeper, or one that was emptied
        self._heard = asyncio.Event()
        self._struck: tuple[Entry | None, int] = None, 0  # what broke the connection last, and how often in a row
        self._turn = 0  # whose turn it is to be looked at

    async def start(self) -> None:
        self._session.open()
        self._run(self._tree.run(), self._keep_telling())

    async def _let_go(self) -> None:
        await self._session.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _remove(self, paths: Sequence[str]) -> None:
        if self._session.up.is_set():
            try:
                async with asyncio.timeout(GOOD_BYE_SECONDS):
                    await self._session.commit([Delete(path, -1) for path in paths])
            except self._conflict as error:
                raise StoreUnavailable("somebody else changes them") from error

    async def _send(self, entries: Sequence[Entry]) -> bool:
        touched = {path for entry in entries for path in self._touched(entry)}
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
            at_once = self._most > 1
            self._most = max(1, len(entries) // 4)
            return at_once
        except StoreRefused as error:
            if len(entries) == 1:
                self._refused(entries[0], error)
            self._most = 1  # whose fault was it?
            return True
        except StoreUnavailable:
            self._most = max(1, len(entries) // 4)
            if len(entries) == 1 and not self._session.up.is_set():
                self._strike(entries[0])
            raise
        self._most, self._struck = min(self._most * 2, BATCH), (None, 0)
        for entry, is_done in zip(entries, done, strict=True):
            self._acknowledged(entry, is_done)
            entry.settle()
        return True

    def _acknowledged(self, entry: Entry, done: bool) -> None:
        match entry.change:
            case Put(instance) if done:
                self._written[instance.id] = 1
                self._where[instance.id] = self._layout.row(instance)
                self._tree.expect(self._where[instance.id])
                # If it replaced somebody's row, that one is gone: the copy holds what others wrote.
                self._learnt(self.replica.receive(Gone(instance)))
            case Gone(instance):
                self._written.pop(instance.id, None)
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

    # -- reading: what the tree says ---------------------------------------------------------------------------------

    def _learnt(self, changes: Sequence[Change]) -> None:
        """What follows the copy is told in the same breath, and who waits for it soon after."""
        if changes:
            try:
                self._on_change(changes)
            except Exception:
                self._log.exception("a listener of %r failed; the connection lives on", self)
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
        self._followed(up)
        self._learnt([])

    def refused(self, reason: str) -> None:
        self._turned_away(reason)

    def doubtful(self) -> list[str]:
        """Some of ours, in turns."""
        ids = sorted(self._own.keys() & self._written.keys())
        if self._turn >= len(ids):
            self._turn = 0
        some = ids[self._turn : self._turn + LOOK_AT]
        self._turn += LOOK_AT
        return [self._layout.row(self._own[id].instance) for id in some]

    def listed(self, nodes: Mapping[str, Node], root: Node) -> None:
        same, self._born = root.born == self._born, root.born
        self._learnt(self._listed(nodes, same))

    def found(self, path: str, node: Node) -> None:
        self._learnt(self._found(path, node))

    def ended(self, path: str) -> None:
        self._learnt(self._ended(path))

    def _lives_as(self, own: Put, found: Node) -> bool:
        """An ephemeral row ends with the session that we have."""
        return found.owner == (0 if own.principal else self._session.id)
