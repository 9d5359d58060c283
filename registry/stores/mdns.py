"""A small cluster without any registry: every instance is a DNS-SD service of its own, and who wants to know listens.

`mdns://[IP[,IP…]][/GROUP]`: the addresses of the interfaces to use, all but loopback if none are named; of several
clusters on one network each has its GROUP. Each writer says its rows every TTL/3; a row that was not heard for two beats
is asked for, and its address dialled; without an answer it is gone when the TTL is over.

What there is not: nobody keeps a row for a writer that is away, nobody keeps an operator's marks, and nobody is asked who
he is. A row is believed if its address is among the A records announced with it and on the network of an interface in
use; anybody on that network can still say what he likes. Where that is too little, use a registry.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import ConfigurationError, StoreRefused, StoreUnavailable
from ..instance import Instance
from ..store import BEAT_SECONDS, NOBODY, TTL_SECONDS, WRITE_SECONDS, OnChange, Store
from .mdns_rows import Rows
from .mdns_words import GROUP, Word, decode, encode, label

if TYPE_CHECKING:
    from ..lan import Heard, Lan, Service

log = logging.getLogger("fairway.registry.stores.mdns")

KIND = "_fairway-worker._tcp.local."
FIRST_SECONDS = 1.2  # until all who are there have answered the first question, or said it anyway (RFC 6762, 6)
LOOK_SECONDS = 0.25  # how often it is looked who was silent for too long
DIAL_SECONDS, DIALS = 1.0, 16  # how long a connection may take, and how many are tried at once


@dataclass
class _Said:
    """A row of ours. `yielded`: somebody else says it now; it is ours again when that one is gone."""

    word: Word
    yielded: bool = False


class MdnsStore(Store):
    """Needs a network with multicast; `connected` says whether there is one."""

    def __init__(
        self,
        rest: str,
        *,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        super().__init__(on_change)
        self._interfaces, self._group = _parse(rest)
        if credentials != NOBODY or tls:
            raise ConfigurationError("mdns://: there is nobody to show a token or a certificate to")
        self._rows = Rows()
        self._said: dict[str, _Said] = {}
        self._stamp = 0  # of our last word
        self._news: list[Put | Gone | None] = []  # not in the copy yet; None: the network is another one
        self._woken = asyncio.Event()
        self._complete_at: float | None = None
        self._lan: Lan | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling = asyncio.Semaphore(DIALS)
        self._turned_away = False

    async def start(self) -> None:
        from ..lan import Lan  # and zeroconf with it

        self._lan = Lan(
            KIND,
            self._interfaces,
            heard=self._heard,
            turned=self._turned,
            beat_seconds=BEAT_SECONDS,
            ttl_seconds=int(TTL_SECONDS),
        )
        await self._lan.start()
        self._task = asyncio.create_task(self._run())

    async def write(self, changes: Sequence[Change]) -> None:
        words = [self._judge(change) for change in changes]
        self._remember(changes)
        say: dict[str, Service | None] = {}
        for change, service in zip(changes, words, strict=True):
            if isinstance(change, Mark):
                continue
            id = change.instance.id
            say[label(id)] = service[1] if service else None
            if service:
                self._said[id] = _Said(service[0])
                self._rows.forget(id)
            elif (said := self._said.pop(id, None)) and said.yielded:
                del say[label(id)]  # it is another's: nothing of ours is to end
        if not say:
            return
        if self._lan is None:
            raise StoreUnavailable("the store was not started")
        services = [service for service in say.values() if service]
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._lan.change(services, [name for name, service in say.items() if not service])
        except TimeoutError as error:
            raise StoreUnavailable("there is no network to say it on; it is said as soon as there is one") from error

    async def close(self) -> None:
        tasks = [*self._tasks, *filter(None, (self._task,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None
        if self._lan is not None:
            await self._lan.close()

    # -- what we say -----------------------------------------------------------------------------------------------

    def _judge(self, change: Change) -> tuple[Word, Service] | None:
        """What is to be said from now on; None: its end. Raises StoreRefused."""
        if isinstance(change, Mark):
            raise StoreRefused("mdns:// keeps no marks: nobody is there to keep them; use a registry")
        if change.principal:
            raise StoreRefused("mdns:// keeps no row whose writer is away: nobody is there to keep it; use a registry")
        if isinstance(change, Gone):
            return None
        instance, id = change.instance, change.instance.id
        if reason := self._objection(instance.address.host):
            raise StoreRefused(f"{id!r:.80} at {instance.address}: {reason}")
        return self._formulate(instance, self._rows.stamp(id))

    def _formulate(self, instance: Instance, later_than: int) -> tuple[Word, Service]:
        from ..lan import Service

        self._stamp = max(int(time.time() * 1000), self._stamp + 1, later_than + 1)
        word = Word(instance, self.uid, self._stamp, self._group)
        address = instance.address
        return word, Service(label(instance.id), (address.host,), address.port, encode(word))

    def _objection(self, host: str) -> str | None:
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            return "mDNS tells IPv4 addresses only: listen on one, or advertise one"
        loopback = bool(self._interfaces) and ipaddress.IPv4Address(self._interfaces[0]).is_loopback
        if address.is_loopback and not loopback:
            return "nobody else reaches it there: listen on this machine's address in the network, or advertise it"
        if self._lan is not None and self._lan.up and not self._lan.near(host):
            networks = ", ".join(str(link.network) for link in self._lan.links)
            return f"not on a network that mDNS reaches here ({networks}): nobody would believe it"
        return None

    def _contested(self, word: Word) -> bool:
        """Whether somebody else's word about a row of ours is to be ignored."""
        said = self._said.get(word.instance.id)
        if said is None or said.yielded:
            return False
        if word.order < said.word.order:
            if self._lan is not None:
                self._lan.again(label(word.instance.id))
            return True
        log.info("%s at %s says %s from now on", word.writer, word.instance.address, word.instance.id)
        said.yielded = True
        if self._lan is not None:
            self._lan.hush(label(word.instance.id))
        return False

    async def _say_again(self, id: str) -> None:
        """Who took it over is gone."""
        said = self._said.get(id)
        if said is None or not said.yielded or self._lan is None:
            return
        said.word, service = self._formulate(said.word.instance, self._rows.stamp(id))
        said.yielded = False
        await self._lan.say([service])

    # -- what we hear ----------------------------------------------------------------------------------------------

    def _heard(self, told: list[Heard]) -> None:
        now = asyncio.get_running_loop().time()
        for heard in told:
            word = decode(heard.label, heard.txt)
            if word is None or word.group != self._group or word.writer == self.uid:
                continue
            if heard.parted:
                self._take(self._rows.part(word, now))
            elif self._believable(word, heard) and not self._contested(word):
                self._take(self._rows.hear(word, now))
        if self._rows.refused and not self._turned_away:
            self._turned_away = True
            log.warning(
                "there are more than %d instances on the local network: further ones are ignored", self._rows.most
            )

    def _believable(self, word: Word, heard: Heard) -> bool:
        address = word.instance.address
        return self._lan is not None and address in heard.addresses and self._lan.near(address.host)

    def _turned(self, up: bool) -> None:
        """The network came, or went: then the copy stays as it is."""
        self._rows.clear()
        self._news.append(None)
        self.connected = False
        self._complete_at = asyncio.get_running_loop().time() + FIRST_SECONDS if up else None
        if not up:
            log.info("there is no network to listen on; what was known stays")
        self._woken.set()

    def _take(self, changes: Sequence[Put | Gone]) -> None:
        for change in changes:
            if isinstance(change, Gone) and (said := self._said.get(change.instance.id)) and said.yielded:
                self._spawn(self._say_again(change.instance.id))
        if changes:
            self._news += changes
            self._woken.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            turned = self._woken.is_set()
            self._woken.clear()
            now = loop.time()
            if self._lan is not None and self._lan.up:
                self._look(now)
            changes = self._learn() + self.replica.expire(now)
            if self._complete_at is not None and now >= self._complete_at:
                self._complete_at, self.connected = None, True
                changes += self.replica.confirmed(now)
                turned = True
            if changes or turned:
                await self._tell(changes)

    def _learn(self) -> list[Change]:
        """The copy and who follows it learn in one step."""
        news, self._news = self._news, []
        changes: list[Change] = []
        for change in news:
            if change is None:
                self.replica.disconnected()
            elif isinstance(change, Gone) or (said := self._said.get(change.instance.id)) is None or said.yielded:
                changes += self.replica.receive(change)  # else it is ours by now
        return changes

    def _look(self, now: float) -> None:
        """Who is silent?"""
        ask, lost = self._rows.due(now)
        self._take(lost)
        if ask and self._lan is not None:
            self._lan.ask([label(instance.id) for instance in ask])
            for instance in ask:
                self._spawn(self._dial(instance))

    async def _dial(self, instance: Instance) -> None:
        """It is silent: if nobody listens there either, we do not wait for long."""
        address = instance.address
        try:
            async with self._dialling, asyncio.timeout(DIAL_SECONDS):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            self._rows.doubt(instance.id, asyncio.get_running_loop().time())
        else:
            writer.transport.abort()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse(rest: str) -> tuple[tuple[str, ...], str]:
    """-> addresses of interfaces, group."""
    hosts, _, group = rest.partition("/")
    group = group.strip("/")
    interfaces = tuple(text.strip() for text in hosts.split(",") if text.strip())
    try:
        loopback = {ipaddress.IPv4Address(text).is_loopback for text in interfaces}
    except ValueError:
        loopback = {True, False}
    if len(loopback) == 2 or not GROUP.fullmatch(group):
        raise ConfigurationError(
            f"mdns://{rest}: expected [IP[,IP…]][/GROUP]: IPv4 addresses of interfaces of this machine (loopback only by "
            "itself), and a name of small letters, digits, hyphens"
        )
    return interfaces, group
