"""A peer's end of the connection to the hub: announces what is ours, keeps a copy of everything, comes back by itself.

Losing the registry is not losing the cluster: the copy stays, and what is ours is announced again, in full.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from dataclasses import replace

from .errors import RegistryUnreachable, WireError
from .instance import EVERYTHING, Address, Instance, Query
from .ports import free_port
from .replica import Replica
from .wire import Free, Heartbeat, Register, RowReader, Synced, encode

log = logging.getLogger("fairway.registry.link")

TTL_SECONDS = 10.0  # what we promise: the hub forgets us after this long a silence
BEAT_SECONDS = TTL_SECONDS / 3
FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds between attempts, doubling, with jitter


def new_id() -> str:
    return secrets.token_hex(8).upper()


class Link:
    """`await start()`; `announce(instance)`, read `replica`, the others' rows; `on_change()` follows each change."""

    def __init__(self, hub: Address, on_change: Callable[[], None] = lambda: None) -> None:
        self.hub = hub
        self.replica = Replica(hold_seconds=TTL_SECONDS)
        self.connected = False
        self._on_change = on_change
        self._own: dict[str, Instance] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    async def start(self, wait_seconds: float = 0.0) -> None:
        """Begins to connect, for ever. With `wait_seconds`, raises RegistryUnreachable if no full copy came by then."""
        self._task = asyncio.create_task(self._keep_connected())
        if wait_seconds:
            try:
                await self.wait_for(lambda: self.replica.synced, wait_seconds)
            except TimeoutError as error:
                await self.close()
                raise RegistryUnreachable(
                    f"no registry answers at {self.hub}; start one with `fairway registry`"
                ) from error

    async def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Until `condition()` holds after some change of the copy. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def announce(self, instance: Instance) -> None:
        """New or changed; said again after every reconnect until withdrawn."""
        instance = replace(instance, meta={**instance.meta, "ttl_seconds": TTL_SECONDS})
        row = encode(Register(instance.id, instance.as_meta()))
        self._own[instance.id] = instance
        self._write(row)

    def register(self, role: str, port: int = 0, host: str = "127.0.0.1") -> Instance:
        """seaport's one-liner: `role` is `name` or `name@version`; without a port, a free one is found for you."""
        service, _, version = role.partition("@")
        instance = Instance(new_id(), service, Address(host, port or free_port(host)), version)
        self.announce(instance)
        return instance

    async def withdraw(self, id: str) -> None:
        self._own.pop(id, None)
        self._write(encode(Free(id)))
        if self._writer is not None:
            try:
                await self._writer.drain()
            except OSError:
                pass  # the hub is away, and forgets us anyway

    def query(self, query: Query = EVERYTHING) -> list[Instance]:
        return [instance for instance in self.replica.instances() if query.matches(instance)]

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        delay, said = FIRST_RETRY, False
        while True:
            try:
                async with asyncio.timeout(LAST_RETRY):
                    reader, writer = await asyncio.open_connection(self.hub.host, self.hub.port, limit=64 * 1024)
            except (OSError, UnicodeError) as error:  # TimeoutError is one; the other is a name DNS cannot spell
                if not said:
                    log.warning("no registry at %s yet (%s): trying on", self.hub, error or "no answer")
                    said = True
            else:
                log.info("connected to the registry at %s", self.hub)
                try:
                    await self._converse(reader, writer)
                except (OSError, WireError) as error:
                    log.warning("lost the registry at %s: %s; going on with what is known", self.hub, error)
                finally:
                    self._writer, self.connected = None, False
                    self.replica.disconnected()
                    writer.transport.abort()
                await self._tell()
                delay, said = FIRST_RETRY, True
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LAST_RETRY)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, self.connected = writer, True
        rows = RowReader()
        for instance in self._own.values():
            writer.write(encode(Register(instance.id, instance.as_meta())))
        writer.write(encode(Synced()))
        loop = asyncio.get_running_loop()
        beat_at = heard = loop.time()
        while True:
            now = loop.time()
            if now >= beat_at:
                writer.write(encode(Heartbeat()))
                beat_at = now + BEAT_SECONDS * random.uniform(0.9, 1.0)
            if self.replica.expire(now):
                await self._tell()
            if now - heard > 3 * TTL_SECONDS:
                raise TimeoutError("nothing heard from it for too long")
            try:
                async with asyncio.timeout_at(min(beat_at, self.replica.next_deadline() or beat_at)):
                    data = await reader.read(64 * 1024)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("it closed the connection")
            heard = now = loop.time()
            before = self.replica.synced
            changes = [
                self.replica.receive(message, self.hub.host, now)
                for message in rows.feed(data)
                # Ours comes back to us when the hub still holds our last connection; nobody would tell us of its end.
                if not (isinstance(message, Register) and message.id in self._own)
            ]
            if any(changes) or self.replica.synced != before:
                await self._tell()

    async def _tell(self) -> None:
        try:
            self._on_change()
        except Exception:
            log.exception("a listener of %r failed; the connection lives on", self)
        async with self._changed:
            self._changed.notify_all()

    def _write(self, row: bytes) -> None:
        if self._writer is not None:
            self._writer.write(row)

    def __repr__(self) -> str:
        return f"<Link {self.hub} [{'up' if self.connected else 'down'} | {len(self._own)} own | {self.replica!r}]>"
