"""The hub's shell: sockets, timers, the engine and the log around a Catalog."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from aiohttp import web

from .audience import Audience
from .beacon import Beacon
from .catalog import Catalog
from .changes import Change, Dial, Gone, Mark, Put, Refused
from .config import RegistrySettings
from .dialler import Dialler
from .errors import ConfigurationError, WireError
from .instance import Address, Instance
from .listeners.dns import DnsListener
from .listeners.http import http_app
from .listeners.rows import Doorman, RowsProtocol
from .peering import Peering
from .pipeline import Events, Nothing, Pipeline
from .prober import Prober
from .rights import UNKNOWN, Rights, Tokens
from .store import TTL_SECONDS, Store, new_id, open_store
from .stores.embedded import EmbeddedStore
from .tls import ServerTls
from .waiters import Waiters
from .watched import Watched, watched_tokens
from .watcher import Tell
from .wire import Free, Message, Register, encode

log = logging.getLogger("fairway.registry")

LEAST_SWEEP, MOST_SWEEP = 0.05, 1.0  # seconds between two looks for the silent
HAND_OVER_SECONDS = 3.0  # workers reconnect within two
HANDSHAKE_SECONDS = 10.0  # of TLS; until it is done, a connection counts for none
HELD_UP_SECONDS = 0.5  # so late a look for the silent is put off
MAX_REASON = 512  # characters of an operator's words; the rest is cut
SEAPORT_VERSION = "2.0.9"  # what a hub registers itself as, role `seaport`, where it exchanges rows


class Hub:
    """`await start()`, then `port` is bound. `await close()` lets everybody go."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self.uid = new_id()
        self.catalog = Catalog(settings.allow, dial_back=settings.dial_back)
        self.published: dict[str, Instance] = {}  # as readers know it
        self.peers: dict[str, RowsProtocol] = {}
        self.doors: set[Doorman] = set()
        self._audience = Audience[RowsProtocol]()
        self.counters: Counter[str] = Counter()
        self._told: dict[str, bytes] = {}  # the row of each published instance
        self._asked: dict[str, set[RowsProtocol]] = {}  # who waits for what becomes of which registration
        self._waiters = Waiters()
        self._followers: list[Callable[[Events], None]] = []
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: list[Callable[[], object]] = []  # what `close` awaits, last opened first
        self._dialler = Dialler(lambda dial: self.catalog.wants(dial), self._reached, self._not_reached)
        self._tokens: Watched[Tokens] | None = None
        self.dns: DnsListener | None = None
        self._leaving = False
        self._pipeline = Pipeline(self._tell)

    async def start(self) -> None:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        settings = self.settings
        tls = self._open_tls()
        self.store = await self._open_store()
        self._pipeline.open(self.store, self.catalog)
        self._tasks = [asyncio.create_task(run()) for run in (self._pipeline.run, self._beat, self._sweep)]
        self.prober = Prober(self)
        await self.prober.start()
        self._closing += [self.prober.close, self._dialler.close]
        runner = web.AppRunner(
            http_app(self), access_log=None, keepalive_timeout=75, shutdown_timeout=1, handler_cancellation=True
        )
        await runner.setup()
        self._closing.append(runner.cleanup)
        self._http = cast(web.Server, runner.server)
        context = tls.context if tls else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Doorman(self, self._http),
                settings.host,
                settings.port,
                backlog=4096,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
            )
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ConfigurationError(f"the registry cannot listen on {where}: {error.strerror}") from error
        if settings.dns_listen_port is not None:
            await self._listen_dns(settings.dns_listen_port, tls)
        for text in settings.peer:
            peering = Peering(Address.parse(text), lambda: RowsProtocol(self, dialled=True))
            peering.start()
            self._closing.append(peering.close)
        if settings.mdns:
            beacon = Beacon()
            await beacon.start(Address(settings.host, self.port), tls=tls is not None)
            self._closing.append(beacon.close)
        spoken = "seaport rows and HTTP" + (", both over TLS" if tls else "")
        log.info("registry listening on %s:%d (%s)", settings.host, self.port, spoken)

    @property
    def port(self) -> int:
        assert self._server is not None
        return cast(int, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """What lives by our connections stays registered: its owners say it again, to the next life or another registry."""
        self._leaving = True
        if self._server:
            self._server.close()
        for transport in [*(peer.transport for peer in self.peers.values()), *(door.transport for door in self.doors)]:
            transport.close()
        if self._server and not isinstance(self.store, EmbeddedStore):
            await self._hand_over()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in reversed(self._closing):
            await cast("asyncio.Future[None]", close())
        self._closing.clear()

    async def _hand_over(self) -> None:
        """Closing the store removes our rows from the engine: not before others have taken them over."""
        for _ in range(int(HAND_OVER_SECONDS / LEAST_SWEEP)):
            if not self.store.connected or not self.catalog.lives_here():
                return
            await asyncio.sleep(LEAST_SWEEP)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def rights(self, token: str) -> Rights:
        return (self._tokens.value if self._tokens else OPEN).rights(token)

    @property
    def connections(self) -> int:
        """Open ones of all kinds: seaport peers, HTTP, and those that have not said what they are."""
        return len(self.peers) + len(self.doors) + len(self._http.connections)

    @property
    def waiting(self) -> int:
        """Queries that wait for a change."""
        return len(self._waiters)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _open_tls(self) -> ServerTls | None:
        settings = self.settings
        if settings.token_file:
            self._tokens = watched_tokens(settings.token_file, self._revoke)
            self._tokens.start()
            self._closing.append(self._tokens.close)
        if not settings.tls_cert:
            return None
        tls = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        tls.start()
        self._closing.append(tls.close)
        return tls

    async def _open_store(self) -> Store:
        settings = self.settings
        store = open_store(settings.store or "embedded:", self._others_wrote, settings.credentials())
        self._closing.append(store.close)
        if isinstance(store, EmbeddedStore):
            await store.start()
            epoch = await store.epoch(int(time.time()))
            self.catalog = Catalog(settings.allow, epoch=epoch, dial_back=settings.dial_back)
            self._tell(self.catalog.restore(store.loaded, self.now() + TTL_SECONDS))
        else:
            self.catalog = Catalog(settings.allow, epoch=int(time.time()), dial_back=settings.dial_back)
            self.catalog.uncertain = True
            await store.start()
        return store

    async def _listen_dns(self, port: int, tls: ServerTls | None) -> None:
        settings = self.settings
        dns = DnsListener(
            self.catalog, zone=settings.dns_zone, ttl=settings.dns_ttl, allowed=lambda: self.rights("").may_read
        )
        self._closing.append(dns.close)
        tls_port = settings.dns_tls_port if tls else None
        tried, flag = port, "--dns-port"
        try:
            await dns.start(settings.host, port)
            if tls and tls_port is not None:
                tried, flag = tls_port, "--dns-tls-port"
                await dns.start_tls(settings.host, tls_port, tls.context)
        except OSError as error:
            raise ConfigurationError(
                f"DNS cannot listen on {settings.host}:{tried}: {error.strerror}; say {flag} N, or --no-dns"
            ) from error
        self.dns = dns
        log.info("answering DNS for %s on %s:%d", settings.dns_zone, settings.host, dns.port)

    def _revoke(self, tokens: Tokens) -> None:
        """Who showed a token that no longer is one is let go, and what it registered with it."""
        for peer in list(self.peers.values()):
            if peer.token and tokens.rights(peer.token) == UNKNOWN:
                log.warning("%s showed a token that was revoked: it is let go", peer.name)
                peer.transport.abort()

    # -- peers -----------------------------------------------------------------------------------------------------

    def joined(self, peer: RowsProtocol) -> str:
        self.counters["joined"] += 1
        name = f"{peer.host}#{self.counters['joined']}"
        self.peers[name] = peer
        self.catalog.join(name, peer.host, self.now(), hub=peer.dialled)
        return name

    def hears(self, peer: RowsProtocol, services: frozenset[str] | None) -> Iterable[Instance]:
        """From now on `peer` is offered what becomes of these (None: of all) -> what is published of them."""
        self._audience.add(peer, services)
        if services is None:
            return self.published.values()
        found = (self.published.get(each.id) for service in services for each in self.catalog.instances(service))
        return [instance for instance in found if instance]

    def heard(self, peer: RowsProtocol, message: Message) -> None:
        if peer.name not in self.peers:
            return  # it was let go; the rest of what it had sent is of no account
        events = self.catalog.receive(peer.name, message, self.now())
        id = message.id if isinstance(message, Register) else ""
        for event in events:
            if isinstance(event, Refused):
                peer.refused(event.id, event.reason)
                id = ""
        if id and peer.fairway:
            self._ask(peer, id)
        if events or id:
            self._submit(events if events else [Nothing(id)], origin=peer.name)

    def marked(self, peer: RowsProtocol, id: str, enabled: bool, reason: str) -> None:
        if not peer.rights.admin:
            peer.refused(id, f"{peer.rights.principal} may not enable or disable: that is an admin's")
            return
        events = self.catalog.mark(id, enabled, reason[:MAX_REASON])
        for event in events:
            if isinstance(event, Refused):
                peer.refused(event.id, event.reason)
                return
        self._ask(peer, id)
        self._submit([*events, Nothing(id)])

    def _ask(self, peer: RowsProtocol, id: str) -> None:
        self._asked.setdefault(id, set()).add(peer)
        peer.asking.add(id)

    def _ask_no_more(self, peer: RowsProtocol, id: str) -> None:
        if id in peer.asking:
            peer.asking.discard(id)
            self._asked[id].discard(peer)
            if not self._asked[id]:
                del self._asked[id]

    def left(self, peer: RowsProtocol) -> None:
        self._audience.remove(peer)
        if self.peers.pop(peer.name, None):
            for id in list(peer.asking):
                self._ask_no_more(peer, id)
            if not self._leaving:
                self._submit(self.catalog.leave(peer.name))

    def row(self, tell: Tell) -> bytes:
        """What `tell` says, as a row; those of published instances are kept ready."""
        if tell.instance is None:
            return encode(Free(tell.id))
        row = self._told.get(tell.id)
        if row is None or self.published.get(tell.id) is not tell.instance:
            meta = tell.instance.as_meta()
            meta.pop("checks", None)  # ours to ask; their headers may hold secrets
            try:
                row = encode(Register(tell.id, meta))
            except WireError as error:  # from an engine: whoever wrote it there had other limits
                log.warning("%s cannot be told to anybody: %s", tell.id, error)
                row = encode(Free(tell.id))
            self._told[tell.id] = row
        return row

    def own_row(self) -> bytes:
        """What we are to a hub we exchange rows with: its clients may come to us when it is gone."""
        address = Address(self.settings.host, self.port)
        return encode(Register(self.uid, Instance(self.uid, "seaport", address, SEAPORT_VERSION).as_meta()))

    # -- changes ---------------------------------------------------------------------------------------------------

    async def commit(self, events: Events) -> None:
        """Engine first, then readers. Raises StoreUnavailable (told all the same, and written later) or StoreRefused."""
        if events:
            await self._submit(events)

    def _submit(self, events: Events, origin: str = "") -> asyncio.Future[None]:
        """`origin`: the peer that said so, and need not be told."""
        return self._pipeline.submit(events, origin)

    def _others_wrote(self, changes: Sequence[Change]) -> None:
        self._pipeline.overwritten(changes)
        events = self.catalog.foreign(changes)
        # The mark of a row whose lease ran out: nobody else is left to remove it.
        lifted = [e for e in events if isinstance(e, Mark) and e.enabled and self.catalog.get(e.id) is None]
        self._pipeline.submit([event for event in events if event not in lifted], foreign=True)
        self._submit(lifted)

    def _tell(self, events: Events, origin: str = "", error: Exception | None = None) -> None:
        services: set[str | None] = set()
        for event in events:
            match event:
                case Put(instance):
                    before = self.published.get(instance.id)
                    self.published[instance.id] = instance
                    self._told.pop(instance.id, None)
                    services.add(instance.service)
                    flags = " suspect" if instance.suspect else ""
                    if not instance.enabled:
                        flags += f" disabled ({self.catalog.reason_of(instance.id) or 'no reason given'})"
                    log.info("%s%s %s at %s [%s]", instance.state, flags, instance.role, instance.address, instance.id)
                    self._offer(instance.id, before, instance, origin)
                    self._answer(instance.id, error)
                case Gone(instance):
                    before = self.published.pop(instance.id, None)
                    self._told.pop(instance.id, None)
                    services.add(instance.service)
                    log.info("gone %s at %s [%s]", instance.role, instance.address, instance.id)
                    self._offer(instance.id, before, None, origin)
                case Mark(id, enabled, reason):
                    if (owner := self.peers.get(self.catalog.owner_of(id) or "")) is not None:
                        owner.marked(id, enabled, reason)
                case Dial():
                    self._dialler.dial(event)
                case Nothing(id):
                    self._answer(id, error)
        if services:
            self.counters["changes"] += len(events)
            self._waiters.wake(services | {None})
        for follow in self._followers:
            follow(events)

    def _offer(self, id: str, before: Instance | None, now: Instance | None, origin: str) -> None:
        """To all but those who may be its worker: seaport's clients would take that for the end of their own row."""
        untold = {origin, *self.catalog.speakers(id)}
        services = {instance.service for instance in (before, now) if instance}
        for peer in self._audience.of(services):
            if peer.name not in untold:
                peer.offer(id, before, now)

    def _answer(self, id: str, error: Exception | None) -> None:
        """To those who asked what became of it. Who waits for an engine that is away is answered when it asks again."""
        for peer in [peer for peer in self._asked.get(id, ()) if not self.catalog.waits(id, peer.name)]:
            self._ask_no_more(peer, id)
            peer.refused(id, str(error)) if error else peer.accepted(id)

    def _reached(self, dial: Dial) -> None:
        self._submit(
            [*self.catalog.dialled(dial.id, dial.peer, True, dial.address), Nothing(dial.id)], origin=dial.peer
        )

    def _not_reached(self, dial: Dial, reason: str) -> None:
        """Who said so may be the worker itself, only busy: seaport's would take that it is gone for an order."""
        self._submit(self.catalog.dialled(dial.id, dial.peer, False, dial.address), origin=dial.peer)
        if (peer := self.peers.get(dial.peer)) and self.catalog.waits(dial.id, dial.peer, dial.address):
            self._ask_no_more(peer, dial.id)
            peer.refused(dial.id, reason + "; trying on")

    # -- readers ---------------------------------------------------------------------------------------------------

    async def changed(self, service: str | None, index: int, seconds: float) -> None:
        """Until the service's index is beyond `index`, or that is of another life, or for `seconds`."""
        deadline = self.now() + seconds
        while self.catalog.knows_index(index) and self.catalog.index_of(service) <= index:
            if not await self._waiters.wait(service, deadline):
                return

    def subscribe(self, follow: Callable[[Events], None]) -> None:
        """`follow(events)` is called after each time readers were told."""
        self._followers.append(follow)

    def unsubscribe(self, follow: Callable[[Events], None]) -> None:
        self._followers.remove(follow)

    def touched(self, id: str) -> None:
        """What only some readers see of it changed: who waits for its service is woken."""
        if service := self.catalog.touch(id):
            self._waiters.wake({service, None})

    # -- time ------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_seconds)
            for count, peer in enumerate(list(self.peers.values())):
                peer.beat()
                if count % 500 == 499:
                    await asyncio.sleep(0)  # ten thousand at a time would keep the others waiting

    async def _sweep(self) -> None:
        while True:
            due = self.catalog.next_deadline()
            pause = MOST_SWEEP if due is None else due - self.now()
            at = self.now() + min(MOST_SWEEP, max(LEAST_SWEEP, pause))
            await asyncio.sleep(at - self.now())
            if self.now() - at > HELD_UP_SECONDS:
                continue  # we were stopped: what our peers said meanwhile lies there unread
            if self.store.synced and not isinstance(self.store, EmbeddedStore):
                self.catalog.uncertain = False
            try:
                events, lost = self.catalog.expire(self.now())
            except Exception:  # a fault of ours: the next look is to come all the same
                log.exception("looking for the silent failed")
                continue
            for name in lost:
                log.warning("nothing heard from %s for too long: it is let go", name)
                peer = self.peers.pop(name)
                self._audience.remove(peer)
                for id in list(peer.asking):
                    self._ask_no_more(peer, id)
                peer.transport.abort()
            self._submit(events)

    def __repr__(self) -> str:
        return f"<Hub {self.catalog!r}>"


OPEN = Tokens()  # nobody is asked
