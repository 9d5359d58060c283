"""What lies under a path in ZooKeeper, listed at each connection and then followed, for ever.

A watch of ZooKeeper's speaks once, and says where something changed, not what: each time we read, and ask for the next.
(3.6 has watches that stay; kazoo cannot ask for them.) Nothing is missed: what changes between the word and the reading is
read, and what changes after it speaks again. What came and went between two readings is never seen.

A list of children has no limit in ZooKeeper but that of one message to a Java client (jute.maxbuffer, 1 MiB: some 30,000
names); kazoo takes longer ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import StoreRefused, StoreUnavailable
from ..store import BEAT_SECONDS
from .zookeeper_layout import Layout, Node, parent

if TYPE_CHECKING:  # it imports kazoo, which may be missing
    from .zookeeper_session import Session

log = logging.getLogger("fairway.registry.zookeeper")

RETRY_SECONDS = 1.0
NAMES_PER_SECOND = 50_000  # how fast a list that keeps changing is read again: one of 10,000 names, five times a second


class Reader(Protocol):
    """Whoever wants to know. The calls come in ZooKeeper's order."""

    def listed(self, nodes: Mapping[str, Node], root: Node) -> None:
        """All there is."""

    def found(self, path: str, node: Node) -> None:
        """It is new, or changed."""

    def ended(self, path: str) -> None:
        """There is no such node any more."""

    def turned(self, up: bool) -> None:
        """Whether the tree is followed."""

    def refused(self, reason: str) -> None:
        """ZooKeeper will not let us read."""

    def doubtful(self) -> Iterable[str]:
        """While the tree is followed, every BEAT_SECONDS: the nodes to look at, whatever the watches say."""


class Tree:
    """`run()` it in a task. While listing, it holds `writing`: what is acknowledged before is in the list."""

    def __init__(self, session: Session, layout: Layout, reader: Reader, writing: asyncio.Lock) -> None:
        self._session, self._layout, self._reader, self._writing = session, layout, reader, writing
        self._children: dict[str, set[str]] = {}
        self._turn = 0  # of the session: what was asked in another one is no longer awaited
        self._following = False
        self._late: dict[str, None] = {}  # what spoke while all was being listed
        self._paced: set[str] = set()
        self._listed_at: dict[str, float] = {}
        self._uprooted = False  # somebody removed the nodes under which everything lies

    def heard(self, path: str) -> None:
        """A watch spoke."""
        if not self._following:
            self._late[path] = None
        elif path in (self._layout.rows, self._layout.marks) or parent(path) == self._layout.rows:
            self._relist(path)
        else:
            self._reread(path)

    def expect(self, path: str) -> None:
        """We wrote it: whether it is still there is asked at once, lest it be gone before it was ever listed."""
        if self._following and path.rpartition("/")[2] not in self._children.get(parent(path), ()):
            self._reread(path)

    async def run(self) -> None:
        said = False
        while True:
            await self._session.up.wait()
            self._turn = self._session.turn
            self._late, self._paced, self._listed_at, self._uprooted = {}, set(), {}, False
            reason = ""
            try:
                async with self._writing:
                    nodes, root = await self._list()
                    self._reader.listed(nodes, root)
            except StoreRefused as error:
                reason = str(error)
                self._reader.refused(reason)
            except StoreUnavailable as error:
                reason = str(error)
            except Exception as error:  # neither a bug nor a server that answers strangely is to end it
                log.exception("ZooKeeper says what we do not understand")
                reason = repr(error)
            if reason:
                if not said:
                    log.warning("cannot list what is in ZooKeeper (%s): trying on", reason)
                said = True
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))
                continue
            said = False
            if self._stands():
                await self._follow()

    async def _follow(self) -> None:
        log.info("following ZooKeeper")
        self._following = True
        self._reader.turned(True)
        try:
            for path in self._late:
                self.heard(path)
            while self._stands():
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await self._session.down.wait()
                except TimeoutError:
                    self._look_again()
        finally:
            self._following = False
            self._reader.turned(False)
        log.warning("lost ZooKeeper; going on with what is known")

    def _stands(self) -> bool:
        return self._turn == self._session.turn and self._session.up.is_set() and not self._uprooted

    # -- all of it -------------------------------------------------------------------------------------------------

    async def _list(self) -> tuple[dict[str, Node], Node]:
        session, rows, marks = self._session, self._layout.rows, self._layout.marks
        await session.sync(rows)
        while (root := await session.get(rows)) is None or await session.exists(marks) is None:
            await self._make_roots()
        folders = [rows, *(f"{rows}/{name}" for name in await session.children(rows) or ()), marks]
        listed = await asyncio.gather(*map(session.children, folders), return_exceptions=True)
        self._children = {path: set(_answer(names, path) or ()) for path, names in zip(folders, listed, strict=True)}
        paths = [f"{path}/{name}" for path in folders[1:] for name in self._children[path]]
        found = await asyncio.gather(*map(session.get, paths), return_exceptions=True)
        nodes = {path: _answer(node, path) for path, node in zip(paths, found, strict=True)}
        for path in [path for path, node in nodes.items() if node is None]:
            del nodes[path]
            self._children[parent(path)].discard(path.rpartition("/")[2])
        return nodes, root

    async def _make_roots(self) -> None:
        """Makes the nodes under which everything lies, and those above them."""
        for path in (self._layout.rows, self._layout.marks):
            missing = []
            while path and await self._session.exists(path) is None:
                missing.append(path)
                path = parent(path)
            for path in reversed(missing):
                await self._session.make(path)

    # -- what changes of it ----------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        for path in [*self._children]:
            self._relist(path)
        for path in self._reader.doubtful():
            self._reread(path)

    def _relist(self, path: str) -> None:
        if path in self._paced:
            return
        self._paced.add(path)
        loop = asyncio.get_running_loop()
        soonest = self._listed_at.get(path, 0.0) + len(self._children.get(path, ())) / NAMES_PER_SECOND
        loop.call_at(max(soonest, loop.time()), self._relist_now, path, self._turn)

    def _relist_now(self, path: str, turn: int) -> None:
        if turn == self._turn and self._stands():
            self._paced.discard(path)
            self._listed_at[path] = asyncio.get_running_loop().time()
            self._session.children(path).add_done_callback(partial(self._relisted, path, turn))

    def _relisted(self, path: str, turn: int, answer: asyncio.Future[list[str] | None]) -> None:
        if not self._answered(path, turn, answer):
            return
        names, before = answer.result(), self._children.get(path, set())
        if names is None and path in (self._layout.rows, self._layout.marks):
            self._uprooted = True
            return
        now = set(names or ())
        if names is None:
            self._children.pop(path, None)
        else:
            self._children[path] = now
        for name in sorted(now - before):
            if path == self._layout.rows:
                self._relist(f"{path}/{name}")
            else:
                self._reread(f"{path}/{name}")
        for name in sorted(before - now):
            if path == self._layout.rows:
                for child in self._children.pop(f"{path}/{name}", ()):
                    self._reader.ended(f"{path}/{name}/{child}")
            else:
                self._reader.ended(f"{path}/{name}")

    def _reread(self, path: str) -> None:
        self._session.get(path).add_done_callback(partial(self._read, path, self._turn))

    def _read(self, path: str, turn: int, answer: asyncio.Future[Node | None]) -> None:
        if not self._answered(path, turn, answer):
            return
        node, siblings = answer.result(), self._children.setdefault(parent(path), set())
        if node is None:
            siblings.discard(path.rpartition("/")[2])
            self._reader.ended(path)
        else:
            siblings.add(path.rpartition("/")[2])
            self._reader.found(path, node)

    def _answered(self, path: str, turn: int, answer: asyncio.Future[Any]) -> bool:
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, StoreRefused):
            log.warning("cannot read %s: %s", path, error)
        return not answer.cancelled() and error is None and turn == self._turn and self._following


def _answer(answer: Any, path: str) -> Any:
    """Of a question that may have failed; what we may not read is as good as not there. Raises StoreUnavailable."""
    if isinstance(answer, StoreRefused):
        log.warning("cannot read %s: %s", path, answer)
        return None
    if isinstance(answer, BaseException):
        raise answer
    return answer
