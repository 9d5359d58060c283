"""Our session with ZooKeeper: kazoo in its own threads, asked and heard from an event loop that never waits for it.

What is known of kazoo (2.11), and how it is met here:
- Its calls wake its thread by a byte through a pair of sockets, which blocks once some 280 bytes wait there: ours does not.
- It waits for its turn to connect as long as a session lives, once per host: ours gives a silent host two seconds.
- It would trust the system's authorities beside those it is given, and not look at names: TLS is made by us.
- It keeps the last transaction it saw, and a server that was set up anew refuses whoever has seen more than it has: after
  a session's time away there is nothing to be resumed, and we begin anew.
- Its listeners and watches are called in its threads, where a call to it may never return: they only pass on what they
  heard.
- It forgets all watches when the connection breaks: whoever follows the session has to list everything again.

Answers come in the order of the questions, as ZooKeeper gives them: what is read after a write was acknowledged holds that
write.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kazoo import exceptions
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import EventType, KazooState, KeeperState
from kazoo.security import CREATOR_ALL_ACL

from ..errors import StoreRefused, StoreUnavailable
from ..instance import Address
from ..store import TTL_SECONDS
from .zookeeper_layout import Check, Create, Delete, Node, Operation, Set

log = logging.getLogger("fairway.registry.zookeeper")
kazoo_log = logging.getLogger("fairway.registry.zookeeper.kazoo")
kazoo_log.setLevel(logging.ERROR)  # each attempt to connect is a warning of its; we say it once

WINDOW = 200  # questions on their way at once; a server takes a thousand, of all its clients
CONNECT_SECONDS = 2.0
CALL_SECONDS = 15.0  # longer than kazoo needs to notice that a server is silent
CLOSE_SECONDS = 3.0
FIRST_RETRY, LAST_RETRY = 0.1, 2.0  # seconds between attempts to connect, doubling, with jitter
TICK_SECONDS = 0.5
PATIENCE_SECONDS = 2.0  # before it is said that nobody answers

Conflicts = (exceptions.NoNodeError, exceptions.NodeExistsError, exceptions.BadVersionError, exceptions.NotEmptyError)
Refusals = (
    exceptions.NoAuthError,
    exceptions.AuthFailedError,
    exceptions.InvalidACLError,
    exceptions.BadArgumentsError,
    exceptions.NoChildrenForEphemeralsError,
    exceptions.QuotaExceededError,
    exceptions.SessionClosedRequireSaslError,
)
Undone = (exceptions.RolledBackError, exceptions.RuntimeInconsistency)  # for another's fault in the same transaction

Ask = Callable[[Any], Any]  # a client of kazoo -> its promise


class Conflict(Exception):
    """A transaction was not made: something is not as it was read."""


class Session:
    """`open()`, then wait for `up`. `heard(path)`: a watched node changed; `turn` counts the connections."""

    def __init__(
        self, hosts: Sequence[Address], login: str, tls: ssl.SSLContext | None, heard: Callable[[str], None]
    ) -> None:
        self._hosts, self._login, self._tls, self._heard = hosts, login, tls, heard
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.turn = 0
        self.id = 0  # of the session, while it is up
        self._client: Any = None
        self._made_at = self._away_since = 0.0
        self._served = False  # whether this client was ever connected
        self._said = False  # that nobody answers
        self._waiting: deque[tuple[Ask, bool, asyncio.Future[Any]]] = deque()
        self._flying: dict[int, tuple[float, bool, asyncio.Future[Any]]] = {}
        self._tickets = itertools.count()
        self._ending: set[asyncio.Future[None]] = set()
        self._looking_after: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._away_since = self._loop.time()
        self._make()
        self._looking_after = asyncio.create_task(self._look_after())

    async def close(self) -> None:
        """Ends the session, and with it its nodes, if ZooKeeper is there; waits CLOSE_SECONDS at most."""
        if self._looking_after:
            self._looking_after.cancel()
            await asyncio.gather(self._looking_after, return_exceptions=True)
            self._looking_after = None
        if self._client is not None:
            self._discard()
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
        if self._ending:
            log.warning("ZooKeeper does not answer our good-bye; it drops our rows by itself")

    # -- questions -------------------------------------------------------------------------------------------------

    def get(self, path: str, watch: bool = True) -> asyncio.Future[Node | None]:
        """None: there is no such node. Raises StoreUnavailable or StoreRefused, as all of them do."""
        told = self._told if watch else None
        return self._ask(lambda client: client.get_async(path, watch=told))

    def children(self, path: str) -> asyncio.Future[list[str] | None]:
        """Their names; watched. None: there is no such node."""
        return self._ask(lambda client: client.get_children_async(path, watch=self._told))

    def exists(self, path: str) -> asyncio.Future[Any]:
        return self._ask(lambda client: client.exists_async(path))

    def sync(self, path: str) -> asyncio.Future[Any]:
        """What was written anywhere before is seen by whatever is asked after."""
        return self._ask(lambda client: client.sync_async(path))

    async def make(self, path: str) -> None:
        """An empty node that stays, unless it is there."""
        try:
            await self._ask(lambda client: client.create_async(path), missing=False)
        except Conflict as error:
            log.debug("%s is there: %s", path, error)

    async def commit(self, operations: Sequence[Operation]) -> None:
        """All of them, or none. Raises Conflict as well."""
        results = await self._ask(lambda client: _transaction(client, operations).commit_async(), missing=False)
        errors = [result for result in results if isinstance(result, Exception)]
        if errors:
            raise _translated(next((error for error in errors if not isinstance(error, Undone)), errors[0]))

    def _ask(self, ask: Ask, missing: bool = True) -> asyncio.Future[Any]:
        """`missing`: that there is no such node is an answer, None."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.up.is_set():
            self._waiting.append((ask, missing, answer))
            self._pump()
        else:
            answer.set_exception(StoreUnavailable("ZooKeeper is away"))
        return answer

    def _pump(self) -> None:
        while self._waiting and len(self._flying) < WINDOW:
            ask, missing, answer = self._waiting.popleft()
            if answer.done():  # nobody waits any more
                continue
            ticket = next(self._tickets)
            self._flying[ticket] = self._loop.time(), missing, answer
            ask(self._client).rawlink(partial(self._answered, ticket))

    def _answered(self, ticket: int, promise: Any) -> None:
        """In a thread of kazoo's."""
        self._pass_on(self._settle, ticket, promise.exception, promise.value)

    def _settle(self, ticket: int, error: Exception | None, value: Any) -> None:
        _, missing, answer = self._flying.pop(ticket, (0.0, True, None))
        if answer is None or answer.done():
            pass
        elif missing and isinstance(error, exceptions.NoNodeError):
            answer.set_result(None)
        elif error is not None:
            answer.set_exception(_translated(error))
        elif type(value) is tuple:  # of get: data and stat, which is a tuple with names
            data, stat = value
            answer.set_result(Node(data or b"", stat.version, stat.ephemeralOwner, (stat.czxid, stat.ctime)))
        else:
            answer.set_result(value)
        self._pump()

    # -- kazoo -----------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        client = KazooClient(
            hosts=",".join(map(str, self._hosts)),
            timeout=TTL_SECONDS,
            handler=_Handler(self._tls),
            use_ssl=self._tls is not None,
            auth_data=[("digest", self._login)] if self._login else None,
            default_acl=CREATOR_ALL_ACL if self._login else None,
            connection_retry={"max_tries": -1, "delay": FIRST_RETRY, "backoff": 2, "max_delay": LAST_RETRY},
            logger=kazoo_log,
        )
        self._client, self._served, self._made_at = client, False, self._loop.time()
        client.add_listener(partial(self._listener, client))
        client.start_async()

    def _discard(self) -> None:
        client, self._client = self._client, None
        self._turned_down("it is closed")
        ended: asyncio.Future[None] = self._loop.create_future()
        self._ending.add(ended)
        ended.add_done_callback(self._ending.discard)
        # A daemon: it waits for a server that may be silent, and nobody waits for it for ever.
        threading.Thread(target=self._end, args=(client, ended), name="fairway-zookeeper-end", daemon=True).start()

    def _end(self, client: Any, ended: asyncio.Future[None]) -> None:
        try:
            client.stop()
        except Exception as error:
            log.debug("kazoo did not stop as it should: %r", error)
        try:
            client.close()
        except Exception as error:
            log.debug("kazoo did not close as it should: %r", error)
        self._pass_on(_settle, ended)

    def _listener(self, client: Any, state: str) -> None:
        """In a thread of kazoo's."""
        id = client.client_id if state == KazooState.CONNECTED else None
        self._pass_on(self._turned, client, id[0] if id else 0)

    def _told(self, event: Any) -> None:
        """In a thread of kazoo's."""
        if event.type != EventType.NONE:  # that only says that the watch was forgotten
            self._pass_on(self._heard, event.path)

    def _pass_on(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed
            pass

    def _turned(self, client: Any, id: int) -> None:
        if client is not self._client:
            return
        self._turned_down("the connection broke")
        if id:
            self.turn, self.id, self._served, self._said = self.turn + 1, id, True, False
            self.down.clear()
            self.up.set()

    def _turned_down(self, why: str) -> None:
        if self.up.is_set():
            self._away_since = self._loop.time()
        self.id = 0
        self.up.clear()
        self.down.set()
        answers = [answer for _, _, answer in (*self._flying.values(), *self._waiting)]
        self._flying.clear()
        self._waiting.clear()
        for answer in answers:
            if not answer.done():
                answer.set_exception(StoreUnavailable(f"ZooKeeper is away: {why}"))

    async def _look_after(self) -> None:
        """Makes a new client where the old one has ended, hangs, or can only be refused."""
        while True:
            await asyncio.sleep(TICK_SECONDS * random.uniform(0.8, 1.2))
            now = self._loop.time()
            oldest = next(iter(self._flying.values()), (now, True, None))[0]
            ended = self._client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)
            away = self._served and not self.up.is_set() and now > self._away_since + TTL_SECONDS
            if not self._said and not self.up.is_set() and now > self._away_since + PATIENCE_SECONDS:
                log.warning("no ZooKeeper at %s: trying on", ", ".join(map(str, self._hosts)))
                self._said = True
            if away or now > oldest + CALL_SECONDS or (ended and now > self._made_at + LAST_RETRY):
                log.debug("making a new session: %s", "ended" if ended else "away" if away else "it hangs")
                self._discard()
                self._make()


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._tls = tls

    def create_socket_pair(self) -> Any:
        reading, writing = super().create_socket_pair()
        writing.setblocking(False)
        return reading, writing

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, timeout: float = CONNECT_SECONDS, **_: Any
    ) -> socket.socket:
        connection = socket.create_connection(address, min(timeout, CONNECT_SECONDS))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(connection, server_hostname=hostname) if self._tls else connection
        except BaseException:
            connection.close()
            raise

    def select(self, readable: Any, writable: Any, exceptional: Any, timeout: float | None = None) -> Any:
        # What TLS has decrypted already waits in the socket, and no longer in the system.
        if ready := [one for one in readable if isinstance(one, ssl.SSLSocket) and one.pending()]:
            return ready, [], []
        return super().select(readable, writable, exceptional, timeout)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _transaction(client: Any, operations: Sequence[Operation]) -> Any:
    transaction = client.transaction()
    for operation in operations:
        match operation:
            case Create(path, value, ephemeral):
                transaction.create(path, value, ephemeral=ephemeral)
            case Set(path, value, version):
                transaction.set_data(path, value, version)
            case Delete(path, version):
                transaction.delete(path, version)
            case Check(path, version):
                transaction.check(path, version)
    return transaction


def _translated(error: Exception) -> Exception:
    kind = type(error).__name__
    if isinstance(error, Conflicts):
        return Conflict(kind)
    if isinstance(error, Refusals):
        return StoreRefused(f"ZooKeeper refuses it: {kind}")
    return StoreUnavailable(f"ZooKeeper did not do it: {kind}")
