"""Where registrations live, past this process: one contract, several engines (`stores/`), one conformance suite.

An engine holds three things: ephemeral rows, which live as long as the store that wrote them (its lease, session or
connection); durable rows, written with a principal, which live until removed; and an operator's marks.

The copy (`instances()`) holds what OTHERS wrote, and is the last known good one while the engine is away. What this store
wrote is written again, in full, whenever the engine has lost it; but a durable row belongs to whoever wrote it last, and if
somebody else removes one of ours, that is told as its `Gone`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from .changes import Change, Gone, Mark, Put
from .credentials import Credentials
from .errors import ConfigurationError
from .instance import EVERYTHING, Address, Instance, Query
from .replica import Replica

log = logging.getLogger("fairway.registry.store")

TTL_SECONDS = 10.0  # what we promise: forgotten after this long a silence
BEAT_SECONDS = TTL_SECONDS / 3
WRITE_SECONDS = 5.0  # how long a write may take before its caller is told that the engine is away

OnChange = Callable[[Sequence[Change]], None]

# Scheme -> where it is. Each imports its library when it is opened, and names the extra to install if that is missing.
ENGINES = {
    "hub": ".link:Link",
    "embedded": ".stores.embedded:EmbeddedStore",
    "etcd": ".stores.etcd:EtcdStore",
    "etcds": ".stores.etcd:EtcdStore",
    "zookeeper": ".stores.zookeeper:ZooKeeperStore",
    "consul": ".stores.consul:ConsulStore",
    "consuls": ".stores.consul:ConsulStore",
    "mdns": ".stores.mdns:MdnsStore",
}


def new_id() -> str:
    return secrets.token_hex(8).upper()


class Store(ABC):
    """`await start()`, then `write`; read `instances()`; `on_change(changes)` follows each change of the copy."""

    def __init__(self, on_change: OnChange = lambda _: None) -> None:
        self.uid = new_id()  # which writer we are; documents in an engine carry it
        self.replica = Replica(hold_seconds=TTL_SECONDS)
        self.refusal = ""  # why we are told nothing, if the engine says so
        self.connected = False  # whether the copy is being kept up to date
        self._on_change = on_change
        self._own: dict[str, Put] = {}  # what we wrote and did not remove
        self._changed = asyncio.Condition()

    @abstractmethod
    async def start(self) -> None:
        """Begins to connect, for ever, and returns at once. Raises ConfigurationError for what no retry can cure."""

    @abstractmethod
    async def write(self, changes: Sequence[Change]) -> None:
        """In this order; returns once the engine has them, durably if it is durable.

        `Put` of an id that somebody else wrote takes it over (the caller has judged that it may). `Gone` without a
        principal removes a row only if this store wrote it last; with one, whoever wrote it.

        Raises StoreUnavailable after WRITE_SECONDS: ours is then written as soon as the engine is back.
        Raises StoreRefused if the engine has them not, and never will: not allowed, too large.
        """

    @abstractmethod
    async def close(self) -> None:
        """Removes our ephemeral rows, if the engine is there, and lets go."""

    def instances(self) -> list[Instance]:
        """What others wrote, with the operator's marks applied; the last known good list while the engine is away."""
        return self.replica.instances()

    def query(self, query: Query = EVERYTHING) -> list[Instance]:
        return [instance for instance in self.instances() if query.matches(instance)]

    @property
    def synced(self) -> bool:
        """Whether the copy is complete since the last connection."""
        return self.replica.synced

    async def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Until `condition()` holds after some change of the copy. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    async def announce(self, instance: Instance) -> None:
        """`write` of one row that lives as long as we do."""
        await self.write([Put(instance)])

    async def withdraw(self, id: str) -> None:
        """`write` of its end, if it is ours."""
        if put := self._own.get(id):
            await self.write([Gone(put.instance, put.principal)])

    def _remember(self, changes: Sequence[Change]) -> None:
        """Keeps `_own` true to what is being written."""
        for change in changes:
            match change:
                case Put(instance):
                    self._own[instance.id] = change
                    self.replica.receive(Gone(instance))  # the copy holds what others wrote; who writes knows
                case Gone(instance):
                    self._own.pop(instance.id, None)
                case Mark():
                    pass

    async def _tell(self, changes: Sequence[Change]) -> None:
        """The copy changed, or the connection did."""
        if changes:
            try:
                self._on_change(changes)
            except Exception:
                log.exception("a listener of %r failed; the connection lives on", self)
        async with self._changed:
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "up" if self.connected else "down"
        return f"<{type(self).__name__} [{state} | {len(self._own)} own | {self.replica!r}]>"


NOBODY = Credentials()


def open_store(
    url: str,
    on_change: OnChange = lambda _: None,
    credentials: Credentials = NOBODY,
    services: Sequence[str] | None = None,
) -> Store:
    """`HOST:PORT[,HOST:PORT]` or `auto` (registries), or an engine's URL. Not started yet. Raises ConfigurationError.

    `services`: those whose copy is wanted; a hub then says no more than that, an engine may.
    """
    scheme, mark, rest = url.partition("://")
    if url.startswith("embedded:"):  # a folder, no authority: `embedded:DIR`
        scheme, rest = "embedded", url.removeprefix("embedded:")
    elif not mark:
        scheme, rest = "hub", url
    if scheme not in ENGINES:
        known = ", ".join(f"{name}://" for name in ENGINES if name != "hub")
        raise ConfigurationError(f"{url!r}: there is no engine {scheme!r}; expected HOST:PORT, or one of {known}")
    module, _, name = ENGINES[scheme].partition(":")
    engine: Callable[..., Store] = getattr(importlib.import_module(module, __package__), name)
    more = {"services": services} if scheme == "hub" else {}
    return engine(rest, on_change=on_change, credentials=credentials, tls=scheme in ("etcds", "consuls"), **more)


def parse_hosts(rest: str, port: int) -> tuple[str, str, list[Address], str]:
    """What follows an engine's `://`: `[user:password@]host[:port][,host[:port]...][/path]`; the login percent-encoded.

    -> user, password, addresses (with `port` where none is named), path without slashes at its ends.
    Raises ConfigurationError or InvalidInstance.
    """
    hosts, _, path = rest.partition("/")
    login, _, hosts = hosts.rpartition("@")
    user, _, password = map(unquote, login.partition(":"))
    addresses = [_address(text, port) for text in hosts.split(",") if text]
    if not addresses:
        raise ConfigurationError(f"{rest!r} names no host: expected HOST:PORT[,HOST:PORT…][/PATH]")
    return user, password, addresses, path.strip("/")


def _address(text: str, port: int) -> Address:
    """`host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address, whose colons are its own."""
    bare = text.count(":") > 1 and not text.startswith("[")
    if bare or text.endswith("]") or ":" not in text:
        return Address.parse(text) if text.isdigit() else Address(text.removeprefix("[").removesuffix("]"), port)
    return Address.parse(text)
