"""The local network as mDNS knows it: services of one kind, said by us, heard from others. The shell around `zeroconf`.

What we hold is said when it is new, shortly after once more (packets get lost), and then every beat. Caches keep the dead
for long (zeroconf a PTR for 1,125 s at least), so who lives is known by whom one hears, not by what is cached.

Interfaces come and go: they are looked at every second, and where they changed everything is opened anew. IPv4 only.
Importing this file imports zeroconf: who may not need it imports this file late.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zeroconf import (  # type: ignore[attr-defined]  # the records are told nowhere, and offered everywhere
    DNSAddress,
    DNSOutgoing,
    DNSQuestion,
    DNSService,
    DNSText,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
)
from zeroconf.asyncio import AsyncZeroconf

from .deadlines import Deadlines
from .errors import InvalidInstance, StoreUnavailable
from .instance import Address
from .links import Link, links

log = logging.getLogger("fairway.registry.lan")

A, PTR, TXT, SRV, ANY, IN = 1, 12, 16, 33, 255, 1  # RFC 1035, 2782
QUERY, ANSWER = 0x0000, 0x8400  # header flags: nothing; QR and AA (RFC 6762, 18)

LOOK_SECONDS = 1.0  # between two looks at the interfaces
REPEAT_SECONDS = 0.3  # what is new, and an end, is said twice
TOGETHER_SECONDS = 0.2  # what is due within this time is said at once
PACE_BYTES, PACE_SECONDS = 12_000, 0.003  # so much, then a pause: receive buffers are small
ASK_SECONDS = (0.0, 0.75)  # who is there? Asked when the network came
MOST_WAITING, WAIT_SECONDS = 256, 2.0  # TXT records whose SRV or A is in another packet


@dataclass(frozen=True)
class Service:
    label: str  # letters, digits, hyphens; at most 63
    hosts: tuple[str, ...]  # IPv4 addresses
    port: int
    txt: bytes  # strings with their lengths before them, as in a TXT record


@dataclass(frozen=True)
class Heard:
    label: str
    addresses: frozenset[Address]  # SRV and A records together
    txt: bytes
    parted: bool  # its end, said by itself


class Lan:
    """`await start()`, then `say` and `unsay`. `heard` is told what others say, `turned` whether there is a network.

    `kind`: the service's type, such as `_http._tcp.local.`; `interfaces`: as for `links`.
    """

    def __init__(
        self,
        kind: str,
        interfaces: Sequence[str] = (),
        *,
        heard: Callable[[list[Heard]], None] = lambda _: None,
        turned: Callable[[bool], None] = lambda _: None,
        beat_seconds: float,
        ttl_seconds: int,
    ) -> None:
        self.kind, self.beat_seconds, self.ttl_seconds = kind, beat_seconds, ttl_seconds
        self.links: tuple[Link, ...] = ()
        self._wanted, self._heard, self._turned = interfaces, heard, turned
        self._held: dict[str, ServiceInfo] = {}
        self._fresh: set[str] = set()  # said once so far
        self._left: dict[str, ServiceInfo] = {}  # their end is to be said, or was said once
        self._due: Deadlines[tuple[str, bool]] = Deadlines()  # label, and whether it is its end
        self._asks: list[float] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._woken = asyncio.Event()
        self._zeroconf: AsyncZeroconf | None = None
        self._task: asyncio.Task[None] | None = None
        self._complained = self._closing = False

    @property
    def up(self) -> bool:
        return self._zeroconf is not None

    def near(self, host: str) -> bool:
        """Whether `host` is an IPv4 address on one of the networks in use."""
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return any(address in link.network for link in self.links)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def say(self, services: Iterable[Service]) -> None:
        """From now on, until `unsay`. Returns once it was said for the first time; there may be no network for long."""
        self._change(services, ())
        await self._said()

    async def unsay(self, labels: Iterable[str]) -> None:
        """Not any more, and everybody is told. Returns once they were."""
        self._change((), labels)
        await self._said()

    def hush(self, label: str) -> None:
        """Not any more, and nobody is told: somebody else says it now."""
        self._change((), [label], loud=False)

    async def change(self, services: Iterable[Service], labels: Iterable[str]) -> None:
        """`say` and `unsay` in one."""
        self._change(services, labels)
        await self._said()

    def replace(self, services: Sequence[Service]) -> None:
        """All that we hold from now on. Waits for nothing."""
        ours = {service.label for service in services}
        self._change(services, [label for label in self._held if label not in ours])

    def again(self, label: str) -> None:
        """It is said again at once: somebody said otherwise."""
        if label in self._held:
            self._due.put((label, False), self._now())
            self._woken.set()

    def ask(self, labels: Iterable[str] = ()) -> None:
        """These to speak up; all there are, if none are named."""
        if self._zeroconf is None:
            return
        names = [(f"{label}.{self.kind}", ANY) for label in labels] or [(self.kind, PTR)]
        for begin in range(0, len(names), 20):
            out = DNSOutgoing(QUERY)
            for name, type in names[begin : begin + 20]:
                out.add_question(DNSQuestion(name, type, IN))
            self._zeroconf.zeroconf.async_send(out)

    async def close(self) -> None:
        """Says the end of all we hold, twice, and lets go."""
        if self._task is None:
            return
        task, self._task, self._closing = self._task, None, True
        self._woken.set()
        await task  # not cancelled: it may be opening or closing sockets, and ends soon
        self._change((), tuple(self._held))
        for pause in (REPEAT_SECONDS / 2, 0.0) if self.up and self._left else ():
            await self._send(self._left.values(), ttl=0)
            await asyncio.sleep(pause)
        await self._shut()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("it was closed before it was said"))

    # -- what we hold ----------------------------------------------------------------------------------------------

    def _change(self, services: Iterable[Service], labels: Iterable[str], loud: bool = True) -> None:
        now = self._now()
        registry = self._zeroconf.zeroconf.registry if self._zeroconf else None
        for service in services:
            label, info = service.label, self._info(service)
            if registry and label in self._held:
                registry.async_update(info)
            elif registry:
                registry.async_add(info)
            self._held[label] = info
            self._fresh.add(label)
            self._left.pop(label, None)
            self._due.drop((label, True))
            self._due.put((label, False), now)
        for label in labels:
            held = self._held.pop(label, None)
            if held is None:
                continue
            if registry:
                registry.async_remove(held)
            self._fresh.discard(label)
            self._due.drop((label, False))
            if loud:
                self._left[label] = held
                self._due.put((label, True), now)
        self._woken.set()

    async def _said(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _info(self, service: Service) -> ServiceInfo:
        # One name for one set of addresses: what several processes of a host say of it is the same.
        name = "-".join(service.hosts).replace(".", "-") if len(service.hosts) == 1 else service.label
        return ServiceInfo(
            self.kind,
            f"{service.label}.{self.kind}",
            service.port,
            properties=service.txt,
            server=f"fairway-{name}.local.",
            parsed_addresses=list(service.hosts),
            host_ttl=self.ttl_seconds,
            other_ttl=self.ttl_seconds,
        )

    # -- the network -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        look_at = 0.0
        while not self._closing:
            self._woken.clear()
            now = self._now()
            try:
                if now >= look_at:
                    look_at = now + LOOK_SECONDS
                    await self._look()
                if self.up:
                    await self._speak()
            except Exception:
                log.exception("the local network; the next try follows")
                await asyncio.sleep(LOOK_SECONDS)
            due = [look_at, *self._asks[:1], *filter(None, (self._due.next(),))] if self.up else [look_at]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(due) - self._now())):
                    await self._woken.wait()

    async def _speak(self) -> None:
        now = self._now()
        saying: list[ServiceInfo] = []
        ending: list[ServiceInfo] = []
        while (due := self._due.take(now + TOGETHER_SECONDS)) is not None:
            label, over = due
            if over and label in self._left:
                ending.append(self._left[label])
                if label in self._fresh:  # its end was said before
                    self._fresh.discard(label)
                    del self._left[label]
                else:
                    self._fresh.add(label)
                    self._due.put(due, now + TOGETHER_SECONDS + REPEAT_SECONDS)
            elif not over and label in self._held:
                saying.append(self._held[label])
                pause = self.beat_seconds * random.uniform(0.9, 1.0)
                if label in self._fresh:
                    self._fresh.discard(label)
                    pause = REPEAT_SECONDS
                self._due.put(due, now + TOGETHER_SECONDS + pause)
        waiters, self._waiters = self._waiters, []
        await self._send(ending, ttl=0)
        await self._send(saying)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        while self._asks and self._asks[0] <= now:
            self._asks.pop(0)
            self.ask()

    async def _send(self, infos: Iterable[ServiceInfo], ttl: int | None = None) -> None:
        """`ttl` 0: their end. An address is nobody's alone: its end is not said."""
        out, size = DNSOutgoing(ANSWER), 0
        seen: set[str] = set()
        for info in infos:
            if size > PACE_BYTES:
                self._transmit(out)
                await asyncio.sleep(PACE_SECONDS)
                out, size, seen = DNSOutgoing(ANSWER), 0, set()
            if ttl is None and info.server not in seen:
                seen.add(str(info.server))
                for address in info.dns_addresses():
                    out.add_answer_at_time(address, 0)
            # TXT last: a large answer is cut into packets, and who hears a TXT is to know the rest already.
            for record in (info.dns_service(ttl), info.dns_pointer(ttl), info.dns_text(ttl)):
                out.add_answer_at_time(record, 0)
            size += len(info.text) + 120
        if size:
            self._transmit(out)

    def _transmit(self, out: DNSOutgoing) -> None:
        if self._zeroconf is not None:
            self._zeroconf.zeroconf.async_send(out)

    async def _look(self) -> None:
        now_there = links(self._wanted)
        if now_there == self.links and self.up == bool(now_there):
            return
        await self._shut()
        self.links = now_there
        if now_there:
            await self._open()

    async def _open(self) -> None:
        try:
            found = AsyncZeroconf([link.address for link in self.links], ip_version=IPVersion.V4Only)
        except OSError as error:  # the port belongs to somebody who does not share it
            if not self._complained:
                log.warning("mDNS cannot be used here: %s", error)
                self._complained = True
            return
        zeroconf = found.zeroconf
        try:
            await zeroconf.async_wait_for_start()
        except BaseException:
            await found.async_close()
            raise
        self._zeroconf = found
        zeroconf.async_add_listener(_Listener(zeroconf, self.kind, self._heard), None)
        now = self._now()
        for label, info in self._held.items():
            zeroconf.registry.async_add(info)
            self._due.put((label, False), now)
        self._asks = [now + seconds for seconds in ASK_SECONDS]
        self._turned(True)

    async def _shut(self) -> None:
        if self._zeroconf is None:
            return
        found, self._zeroconf = self._zeroconf, None
        found.zeroconf.registry.async_remove(list(self._held.values()))  # closing would say their end
        await found.async_close()
        self._turned(False)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Listener(RecordUpdateListener):
    """Puts TXT, SRV and A records together. Called by zeroconf for each packet, before and after its cache knows it."""

    def __init__(self, zeroconf: Zeroconf, kind: str, heard: Callable[[list[Heard]], None]) -> None:
        self._cache, self._suffix, self._heard = zeroconf.cache, f".{kind.lower()}", heard
        self._waiting: dict[str, tuple[DNSText, float]] = {}

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for update in records:
            record = update.new
            if isinstance(record, DNSText) and record.name.lower().endswith(self._suffix):
                if record.ttl and record.is_expired(now):
                    continue  # the cache forgets it: nothing was heard
                if len(self._waiting) >= MOST_WAITING and record.name not in self._waiting:
                    del self._waiting[next(iter(self._waiting))]
                self._waiting[record.name] = record, now

    def async_update_records_complete(self) -> None:
        if not self._waiting:
            return
        told: list[Heard] = []
        newest = max(when for _, when in self._waiting.values())
        for name, (record, when) in list(self._waiting.items()):
            addresses = frozenset[Address]() if not record.ttl else self._addresses(name)
            if addresses or not record.ttl:
                told.append(Heard(name[: -len(self._suffix)], addresses, record.text, not record.ttl))
            elif newest - when < 1000 * WAIT_SECONDS:  # zeroconf counts milliseconds
                continue
            del self._waiting[name]
        if told:
            try:
                self._heard(told)
            except Exception:
                log.exception("what was heard on the local network could not be taken in")

    def _addresses(self, name: str) -> frozenset[Address]:
        found = set()
        for service in self._cache.async_all_by_details(name, SRV, IN):
            if isinstance(service, DNSService):
                for record in self._cache.async_all_by_details(service.server, A, IN):
                    if isinstance(record, DNSAddress) and len(record.address) == 4:
                        with contextlib.suppress(InvalidInstance):  # port 0
                            found.add(Address(socket.inet_ntoa(record.address), service.port))
        return frozenset(found)
