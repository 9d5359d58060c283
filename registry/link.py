"""A peer's end of the connection to a hub: announces what is ours, keeps a copy of everything, comes back by itself.

Losing the registry is not losing the cluster: the copy stays, and what is ours is announced again, in full, to the next
hub that answers. Of several hubs each is tried in turn, those that other hubs name (role `seaport`) after the configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .changes import Change, Gone, Mark, Put
from .credentials import Credentials
from .errors import InvalidInstance, RegistryUnreachable, StoreRefused, StoreUnavailable, WireError
from .instance import Address, Instance, Query
from .ports import free_port
from .store import BEAT_SECONDS, NOBODY, TTL_SECONDS, WRITE_SECONDS, OnChange, Store, new_id, parse_hosts
from .wire import (
    Accepted,
    Free,
    Heartbeat,
    Hello,
    Helo,
    Marked,
    Message,
    Register,
    Rejected,
    RowReader,
    Synced,
    encode,
)

if TYPE_CHECKING:
    from .finder import Finder

log = logging.getLogger("fairway.registry.link")

PORT = 12481
FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds between attempts, doubling, with jitter
ANSWER_SECONDS = 5.0  # a hub that accepted us and said nothing for so long is none: a stopped process accepts, too
QUIET_SECONDS = 3 * TTL_SECONDS  # a hub not heard for longer is gone
# Where there is another: two beats of a hub (every 3 s) and a little. Its lease in an engine would end soon after, and with
# it what it registered for us.
QUIET_BESIDE_OTHERS = 6.5
AGAIN_SECONDS = 10.0  # after which what was refused is said again: a token may have been given its right since
AUTO = "auto"


class Link(Store):
    """`hubs`: `HOST:PORT[,HOST:PORT]`, or `auto`: this machine's, else one found on the local network.

    `services`: which are copied; None for all. The rows of a worker that reads nobody cost it and the hub nothing.
    """

    def __init__(
        self,
        hubs: str | Address,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
        services: Sequence[str] | None = None,
    ) -> None:
        super().__init__(on_change)
        self._look = hubs == AUTO  # on the local network, if nobody is here
        self.hubs = [Address("127.0.0.1", PORT)] if self._look else parse_hosts(str(hubs), PORT)[2]
        self._hello = Hello(credentials.token, None if services is None else tuple(services))
        self._tls = credentials.tls(always=tls)
        self._finder: Finder | None = None
        self._at = self.hubs[0]  # the hub we talk to, or tried last
        self._fairway: bool | None = None  # it answers registrations; None: it has not said
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._answers: dict[str, list[asyncio.Future[None]]] = {}
        self._refused: set[str] = set()  # ids of ours that the hub does not take
        self._late: set[str] = set()  # those of which somebody was told that they are not registered yet

    async def start(self, wait_seconds: float = 0.0) -> None:
        """Begins to connect, for ever. With `wait_seconds`, raises RegistryUnreachable if no full copy came by then."""
        self._task = asyncio.create_task(self._keep_connected())
        if wait_seconds:
            try:
                await self.wait_for(lambda: self.synced, wait_seconds)
            except TimeoutError as error:
                await self.close()
                where = " or ".join(map(str, self.hubs))
                raise RegistryUnreachable(
                    f"no registry answers at {where}; start one with `fairway registry`"
                ) from error

    async def write(self, changes: Sequence[Change]) -> None:
        rows = [self._row(change) for change in changes]
        self._remember(changes)
        answers = [
            self._answer_to(change.instance.id if isinstance(change, Put) else change.id)
            for change in changes
            if not isinstance(change, Gone)
        ]
        if self._writer is not None:
            self._writer.writelines(rows)
            if self._fairway is False:
                self._answer_all()
        elif not answers:
            return  # nothing but ends: who is away forgets us anyway
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                if self._writer is not None:
                    with contextlib.suppress(OSError):  # the hub is away: the answers will not come
                        await self._writer.drain()
                await asyncio.gather(*answers)
        except TimeoutError as error:
            self._late |= {change.instance.id for change in changes if isinstance(change, Put)}
            raise StoreUnavailable(f"no registry at {self._at} took it in {WRITE_SECONDS:g} s; trying on") from error

    def register(self, role: str, port: int = 0, host: str = "127.0.0.1") -> Instance:
        """seaport's one-liner: `role` is `name` or `name@version`; without a port, a free one is found for you.

        It is said at once, or as soon as there is a hub; `write` is for those who want to know what became of it.
        """
        service, _, version = role.partition("@")
        instance = Instance(new_id(), service, Address(host, port or free_port(host)), version)
        self._remember([Put(instance)])
        if self._writer is not None:
            self._writer.write(self._row(Put(instance)))
        return instance

    async def free(self, what: str | int) -> None:
        """seaport's `free`: an id, or the port, of something of ours."""
        for put in list(self._own.values()):
            if what in (put.instance.id, put.instance.address.port):
                await self.withdraw(put.instance.id)

    async def get(self, query: Query, seconds: float | None = None) -> list[Instance]:
        """seaport's `get`: waits until somebody who matches may be sent to. Raises TimeoutError."""

        def found() -> list[Instance]:
            return [instance for instance in self.query(query) if instance.serving]

        await self.wait_for(lambda: bool(found()), seconds)
        return found()

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._finder:
            await self._finder.close()

    # -- the connection --------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        delay, said, turn = FIRST_RETRY, False, 0
        while True:
            hubs = self._candidates()
            self._at, turn = hubs[turn % len(hubs)], turn + 1
            try:
                async with asyncio.timeout(LAST_RETRY):
                    reader, writer = await asyncio.open_connection(
                        self._at.host, self._at.port, limit=64 * 1024, ssl=self._tls
                    )
            except (OSError, UnicodeError) as error:  # TimeoutError is one; the other is a name DNS cannot spell
                if not said:
                    where = f"{self._at} (looking on the local network, too)" if self._look else self._at
                    log.warning("no registry at %s yet (%s): trying on", where, error or "no answer")
                    said = True
                if self._look and self._finder is None:
                    self._finder = await self._find()
            else:
                log.info("connected to the registry at %s", self._at)
                said = True
                try:
                    await self._converse(reader, writer)
                except (OSError, WireError) as error:
                    log.warning("lost the registry at %s: %s; going on with what is known", self._at, error)
                    if self.replica.synced and not isinstance(error, TimeoutError):
                        delay, turn = FIRST_RETRY, turn - 1  # the same one first: it may only have been restarted
                except Exception:  # a fault of ours must not leave a worker unlisted for ever
                    log.exception("the connection to %s failed; trying on", self._at)
                finally:
                    self._writer, self.connected = None, False
                    self.replica.disconnected()
                    writer.transport.abort()
                await self._tell([])
            if turn % len(hubs) == 0 or len(hubs) == 1:  # all were tried
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LAST_RETRY)

    def _hint(self) -> str:
        """Why somebody who accepts us may not say a word."""
        if self._tls:
            return " before a word: does it want a certificate of ours (--registry-cert), is it a registry at all?"
        return " before a word: does it speak TLS (--registry-ca), is it a registry at all?"

    async def _find(self) -> Finder:
        from .finder import Finder  # only for those who did not say where the registry is, and have none here

        finder = Finder(tls=self._tls is not None)
        await finder.start()
        return finder

    def _candidates(self) -> list[Address]:
        found = self._finder.addresses() if self._finder else []
        named = [i.address for i in self.replica.instances() if i.service == "seaport"]
        return list(dict.fromkeys([*self.hubs, *found, *named]))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, self.connected, self._fairway, self.refusal = writer, True, None, ""
        rows = RowReader()
        # A hub that others named, or that said so on the local network, is not shown a secret it could read.
        known = self._at in self.hubs or self._tls is not None
        if self._hello.token and not known:
            log.warning("%s was named by others, and is not shown our token: name it yourself, or use TLS", self._at)
        writer.write(encode(self._hello if known else replace(self._hello, token="")))
        writer.writelines(self._row(put) for put in self._own.values())
        writer.write(encode(Synced()))
        loop = asyncio.get_running_loop()
        began = beat_at = heard = loop.time()
        again_at = heard + AGAIN_SECONDS
        patience = ANSWER_SECONDS
        while True:
            now = loop.time()
            if now >= beat_at:
                writer.write(encode(Heartbeat()))
                beat_at = now + BEAT_SECONDS * random.uniform(0.9, 1.0)
            if now >= again_at:
                writer.writelines(self._row(self._own[id]) for id in self._refused & self._own.keys())
                self._refused.clear()
                again_at = now + AGAIN_SECONDS
            if changes := self.replica.expire(now):
                await self._tell(changes)
            if now - heard >= patience:
                raise TimeoutError("nothing heard from it for too long")
            wake = min(beat_at, again_at, heard + patience, self.replica.next_deadline() or beat_at)
            try:
                async with asyncio.timeout_at(wake):
                    data = await reader.read(64 * 1024)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("it closed the connection" + ("" if heard > began else self._hint()))
            heard = loop.time()
            patience = QUIET_BESIDE_OTHERS if self._fairway and len(self.hubs) > 1 else QUIET_SECONDS
            now = heard
            before = self.replica.synced
            changes = [change for message in rows.feed(data) for change in self._heard(message, now)]
            if changes or self.replica.synced != before:
                await self._tell(changes)

    def _heard(self, message: Message, now: float) -> list[Change]:
        match message:
            case Register(id, meta):
                # Ours comes back to us when the hub still holds our last connection; nobody would tell us of its end.
                if id in self._own:
                    return []
                try:
                    return self.replica.receive(Put(Instance.from_meta(id, meta, self._at.host)))
                except InvalidInstance as error:
                    log.debug("skipped a row: %s", error)
            case Free(id):
                if put := self.replica.get(id):
                    return self.replica.receive(Gone(put.instance))
            case Synced():
                return self.replica.confirmed(now)
            case Helo(_, fairway):
                self._fairway = fairway
                if not fairway:
                    self._answer_all()
            case Accepted(id):
                if id in self._late and (put := self._own.get(id)):
                    log.info("registered %s at %s with %s", put.instance.role, put.instance.address, self._at)
                self._late.discard(id)
                self._refused.discard(id)
                self._answer(id, None)
            case Rejected("", reason):
                self.refusal = reason
                log.warning("the registry at %s tells us nothing: %s", self._at, reason)
            case Rejected(id, reason):
                log.warning("the registry at %s refuses %s: %s", self._at, id, reason)
                self._refused.add(id)
                self._late.add(id)
                self._answer(id, StoreRefused(reason))
            case Marked(id, enabled, reason) if id in self._own:
                log.info("an operator %s %s: %s", "enabled" if enabled else "disabled", id, reason or "no reason given")
                return [Mark(id, enabled, reason)]
        return []

    # -- what the hub answers --------------------------------------------------------------------------------------

    def _answer_to(self, id: str) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.setdefault(id, []).append(answer)
        return answer

    def _answer(self, id: str, error: Exception | None) -> None:
        for answer in self._answers.pop(id, ()):
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result(None)

    def _answer_all(self) -> None:
        """seaport's hubs answer nothing: what was sent is all that can be known."""
        for id in list(self._answers):
            self._answer(id, None)

    def _row(self, change: Change) -> bytes:
        """Raises StoreRefused for what a row cannot say."""
        match change:
            case Put(instance, ""):
                instance = replace(instance, meta={**instance.meta, "ttl_seconds": TTL_SECONDS})
                message: Message = Register(instance.id, instance.as_meta())
            case Put(instance, _):
                raise StoreRefused(f"{instance.id}: rows live as long as their connection; register it over HTTP")
            case Gone(instance):
                message = Free(instance.id)
            case Mark(id, enabled, reason):
                message = Marked(id, enabled, reason)
        try:
            return encode(message)
        except WireError as error:
            raise StoreRefused(str(error)) from error
