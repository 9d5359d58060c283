"""Who is alive, and where: THE state machine of one hub. Messages and `now` in, changes out. Sans-io.

Laws:
* A row made by a connection lives as long as that connection, and the connection as long as something is heard on it
  (`lease.py`). A row made with a principal (over HTTP) lives until it is removed; its checks say how it does.
* Only its owner changes or frees a row. One exception: a peer of the same host that registers the same id at the same
  address is the same worker come back before its old connection was missed, and takes the row over.
* What a peer relays for somebody else is dialled before it is served; so is an address that is not the peer's own.
* What is shown is said once: a change that readers would not see is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .advertising import AllowList
from .changes import Change, Dial, Gone, Mark, Put, Refused, Released
from .errors import InvalidInstance
from .index import Index
from .instance import EVERYTHING, Address, Instance, Query, State
from .lease import Silence
from .owners import Owners, Peer
from .row import Row, first_word, last_word, too_large
from .wire import Free, Hello, Message, Register, Synced

ENGINE = "engine"  # the owner of what other hubs wrote to the engine we share
RESTORED = "restored"  # the owner of what our own last life knew
DURABLE = "durable"  # the owner of what was registered over HTTP
HUB_SERVICE = "seaport"  # what npm's hubs register themselves as with each other
MAX_ROWS_PER_PEER = 1_000

Event = Change | Refused | Released | Dial


class Catalog:
    """All registrations as one hub sees them. `allowed`: networks whose addresses anybody may advertise.

    `dial_back`: whether addresses are dialled before they are served.
    """

    def __init__(self, allowed: Sequence[str] = (), *, epoch: int = 0, dial_back: bool = True) -> None:
        self.allow_list = AllowList(allowed)
        self.owners = Owners(self._population)
        self.uncertain = False  # the list may be incomplete: after a restart, or before the engine's first full copy
        self._dial_back = dial_back
        self._index = Index(epoch)
        self._rows: dict[str, Row] = {}
        self._services: dict[str, dict[str, Row]] = {}
        self._marks: dict[str, Mark] = {}
        self._waiting: dict[str, dict[str, Instance]] = {}  # to be dialled: id -> who said so, and what
        self._doubt_until: float | None = None

    # -- readers ---------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Instance | None:
        row = self._rows.get(id)
        return row.shown if row else None

    def owner_of(self, id: str) -> str | None:
        row = self._rows.get(id)
        return row.owner if row else None

    def principal_of(self, id: str) -> str | None:
        """None: no such row. Empty: a connection made it."""
        row = self._rows.get(id)
        return row.principal if row else None

    def reason_of(self, id: str) -> str | None:
        """The operator's words, if it is marked as not to be used."""
        mark = self._marks.get(id)
        return mark.reason if mark else None

    def instances(self, service: str | None = None) -> list[Instance]:
        """In the order of registration, suspects last."""
        rows = self._rows if service is None else self._services.get(service, {})
        found = [row.shown for row in rows.values() if row.shown]
        return sorted(found, key=lambda i: i.suspect) if any(i.suspect for i in found) else found

    def query(self, query: Query = EVERYTHING) -> list[Instance]:
        return [i for i in self.instances(query.service or None) if query.matches(i)]

    def services(self) -> dict[str, list[Instance]]:
        return {name: self.instances(name) for name in self._services}

    def index_of(self, service: str | None = None) -> int:
        """Grows with every change of the service (None: of any). At least 1; survives the service's end."""
        return self._index.of(service)

    def knows_index(self, index: int) -> bool:
        """False: another life, or another hub, gave it out."""
        return self._index.knows(index)

    @property
    def index(self) -> int:
        return self._index.of(None)

    def lives_here(self) -> bool:
        """Whether a row lives by a connection of ours that nobody else has taken over in the engine."""
        return any(row.owner in self.owners and ENGINE not in row.claims for row in self._rows.values())

    def may_advertise(self, host: str, peer_host: str) -> str | None:
        """Why not; None if it may."""
        return self.allow_list.objection(host, peer_host)

    def document(self, id: str) -> Put | None:
        """What the engine is to hold of a row that is ours."""
        row = self._rows.get(id)
        return None if row is None or row.owner == ENGINE else row.document()

    # -- peers: who lives by a connection --------------------------------------------------------------------------

    def join(self, peer: str, host: str, now: float, hub: bool = False) -> None:
        """What a peer says before its first `synced` may be a relay; after that, or its `hello`, it speaks for itself.

        A hub, whom we connected to or who registered itself as one, relays for ever.
        """
        self.owners.add(Peer(peer, host, now, hub=hub))

    def receive(self, peer: str, message: Message, now: float) -> list[Event]:
        """Any message is a sign of life; `register` and `free` may change something."""
        events = self.beat(peer, now)
        match message:
            case Register(id, meta):
                events += self._register(self.owners[peer], id, dict(meta), now)
            case Free(id):
                events += self._free(peer, id)
            case Synced():
                self.owners[peer].direct = not self.owners[peer].hub
            case Hello():
                self.owners[peer].direct = self.owners[peer].fairway = True
        return events

    def beat(self, peer: str, now: float) -> list[Event]:
        """It lives. Nearly always this changes nothing, and it is said very often."""
        changed = self.owners.beat(peer, now)
        return [] if changed is None else self._refresh_owned(peer) + self._refresh_silent(changed)

    def leave(self, peer: str) -> list[Event]:
        """The connection is over: all it registered is gone, or its heirs'."""
        gone = self.owners.remove(peer)
        if gone is None:
            return []
        for id in gone.claimed:
            self._no_longer_claims(peer, id)
        return [event for id in sorted(gone.owned) for event in self._release(self._rows[id])]

    def expire(self, now: float) -> tuple[list[Event], list[str]]:
        """What time did; and the peers that were silent for too long: `leave` has been done, close their connections."""
        events: list[Event] = []
        if self._doubt_until is not None and now >= self._doubt_until:
            events += self._end_doubt()
        fallen, changed, lost = self.owners.expire(now)
        for peer in fallen:
            events += self._refresh_owned(peer)
        events += self._refresh_silent(changed)
        for peer in lost:
            events += self.leave(peer)
        return events, lost

    def next_deadline(self) -> float | None:
        """When to call `expire` again."""
        due = [at for at in (self.owners.next_deadline(), self._doubt_until) if at is not None]
        return min(due, default=None)

    def dialled(self, id: str, peer: str, reached: bool, address: Address | None = None) -> list[Event]:
        """What came of a `Dial`. Not reached: it stays waiting, and may be dialled again while `waits` says so."""
        if not reached or not self.waits(id, peer, address):
            return []
        instance = self._waiting[id][peer]
        self._no_longer_claims(peer, id)
        row = self._rows.get(id)
        if row is not None and row.owner not in (peer, RESTORED):
            self._claim(row, self.owners[peer], instance)  # somebody else was quicker
            return []
        return self._install(id, instance, peer)

    def waits(self, id: str, peer: str, address: Address | None = None) -> bool:
        """`address`: at this one; it may have named another since."""
        instance = self._waiting.get(id, {}).get(peer)
        return instance is not None and address in (None, instance.address)

    # -- principals: who registers over HTTP -----------------------------------------------------------------------

    def register(
        self, principal: str, instance: Instance, peer_host: str, now: float, admin: bool = False
    ) -> list[Event]:
        """A row that outlives its maker's connection; `instance.checks` say how it does. Replaces its own former self."""
        known = self._rows.get(instance.id)
        if known and known.principal != principal and not (admin and known.principal):
            return [Refused(instance.id, "somebody else owns this id")]
        objection = self.may_advertise(instance.address.host, peer_host) or too_large(instance)
        if objection:
            return [Refused(instance.id, objection)]
        if known is None:
            return self._install(instance.id, instance, DURABLE, principal, first_word(instance))
        before = {check.id: check for check in known.instance.checks}
        kept = known.instance.address == instance.address and all(check.id in before for check in instance.checks)
        measured = known.measured if kept else first_word(instance)
        return self._replace(known, instance, DURABLE, known.principal, measured)

    def deregister(self, principal: str, id: str, admin: bool = False) -> list[Event]:
        row = self._rows.get(id)
        if row is None:
            return []
        if not row.principal:
            return [Refused(id, "it lives by the connection of its worker; maintenance takes it out of service")]
        if not admin and row.principal != principal:
            return [Refused(id, "only its owner may free it")]
        self._forget_owner(row)
        row.claims.clear()
        return self._remove(row)

    def judge(self, id: str, state: State) -> list[Event]:
        """What the checks of a row say."""
        row = self._rows.get(id)
        if row is None:
            return []
        row.measured, row.unheard = state, False
        return self._refresh(row)

    def touch(self, id: str) -> str | None:
        """Something about it changed that only some readers see, as the words of its checks. -> its service."""
        row = self._rows.get(id)
        if row is None:
            return None
        self._index.grow(row.instance.service)
        return row.instance.service

    def mark(self, id: str, enabled: bool, reason: str = "") -> list[Event]:
        """An operator's word, whoever owns the row."""
        if id not in self._rows:
            return [Refused(id, "there is no such instance")]
        return self._mark(Mark(id, enabled, reason))

    # -- engines: what other hubs, or our own last life, wrote -------------------------------------------------------

    def restore(self, changes: Iterable[Change], until: float) -> list[Event]:
        """What our own last life knew: served as suspect until it is heard of, or until `until`."""
        events: list[Event] = []
        for change in changes:
            if isinstance(change, Put):
                owner = DURABLE if change.principal else RESTORED
                events += self._install(change.instance.id, change.instance, owner, change.principal, unheard=True)
            elif isinstance(change, Mark):
                events += self._mark(change)
        self.uncertain, self._doubt_until = True, until
        return events

    def foreign(self, changes: Iterable[Change]) -> list[Event]:
        """What others wrote to the engine we share. Nothing of it is to be written back."""
        events: list[Event] = []
        for change in changes:
            match change:
                case Put(instance, principal):
                    row = self._rows.get(instance.id)
                    if row is None:
                        events += self._install(instance.id, instance, ENGINE, principal)
                    elif row.owner in self.owners:
                        row.claims[ENGINE] = instance
                    else:
                        events += self._replace(row, instance, ENGINE, principal, row.measured)
                case Gone(instance, principal):
                    row = self._rows.get(instance.id)
                    # What outlives connections is removed wherever it was written, ours as well.
                    if row is not None and (row.owner == ENGINE or (principal and row.principal)):
                        events += self._release(row)
                    elif row is not None:
                        row.claims.pop(ENGINE, None)
                case Mark():
                    events += self._mark(change)
        return events

    # -- rows ------------------------------------------------------------------------------------------------------

    def _register(self, peer: Peer, id: str, meta: dict[str, Any], now: float) -> list[Event]:
        try:
            instance = Instance.from_meta(id, meta, peer.host)
        except InvalidInstance as error:
            return [Refused(id, str(error))]
        instance = replace(instance, enabled=True, suspect=False, checks=())  # not for an owner to say
        objection = self.may_advertise(instance.address.host, peer.host) or too_large(instance)
        if objection:
            return [Refused(id, objection)]
        if instance.service == HUB_SERVICE and not peer.fairway:
            peer.hub, peer.direct = True, False
        row = self._rows.get(id)
        if row is None or row.owner != peer.name:
            if len(peer.owned) + len(peer.claimed) >= MAX_ROWS_PER_PEER and id not in peer.claimed:
                return [Refused(id, f"one peer may hold at most {MAX_ROWS_PER_PEER} registrations")]
            if row is not None:
                same = (row.instance.service, row.instance.address) == (instance.service, instance.address)
                if row.principal or not same or not self.owners.alike(row.owner, peer):
                    return [Refused(id, "somebody else owns this id")]
                if row.owner != RESTORED and not peer.direct:
                    self._claim(row, peer, instance)
                    return []
        self.owners.promise(peer, meta.get("ttl_seconds"))
        moved = row is None or row.instance.address != instance.address
        if self._dial_back and (moved or not peer.direct) and self._to_be_dialled(peer, instance):
            return self._wait(id, instance, peer)
        return self._install(id, instance, peer.name) if row is None else self._replace(row, instance, peer.name)

    def _to_be_dialled(self, peer: Peer, instance: Instance) -> bool:
        """seaport's clients register first and listen then: on their own address, theirs are served unasked."""
        return peer.fairway or not peer.direct or instance.address.host != peer.host

    def _wait(self, id: str, instance: Instance, peer: Peer) -> list[Event]:
        row = self._rows.get(id)
        moved = row is not None and row.instance.address != instance.address
        events: list[Event] = list(self._release(row)) if row is not None and moved and row.owner == peer.name else []
        self._waiting.setdefault(id, {})[peer.name] = instance
        peer.claimed.add(id)
        return [*events, Dial(id, peer.name, instance.address)]

    def _install(
        self,
        id: str,
        instance: Instance,
        owner: str,
        principal: str = "",
        measured: State | None = None,
        unheard: bool = False,
    ) -> list[Event]:
        measured = measured or last_word(instance)
        known = self._rows.get(id)
        if known is not None:
            return self._replace(known, instance, owner, principal, measured)
        row = Row(instance, owner, principal, measured, unheard)
        self._rows[id] = row
        self._services.setdefault(instance.service, {})[id] = row
        self.owners.own(owner, id, instance.service)
        return self._refresh(row)

    def _replace(
        self, row: Row, instance: Instance, owner: str, principal: str = "", measured: State = "passing"
    ) -> list[Event]:
        events: list[Event] = []
        self._forget_owner(row)
        if row.instance.service != instance.service:
            events += self._remove(row, keep=True)
            self._rows[instance.id] = row
            self._services.setdefault(instance.service, {})[instance.id] = row
        self.owners.own(owner, instance.id, instance.service)
        row.instance, row.owner, row.principal = instance, owner, principal
        row.measured, row.unheard = measured, False
        row.claims.pop(owner, None)
        return events + self._refresh(row)

    def _release(self, row: Row) -> list[Event]:
        """Its owner is gone. Who else claims it inherits: what the engine says at once, a relay once it was dialled."""
        self._forget_owner(row)
        if ENGINE in row.claims:
            heir = row.claims.pop(ENGINE)
            return [Released(row.instance), *self._replace(row, heir, ENGINE)]
        events = self._remove(row)
        for peer, instance in row.claims.items():
            events += self._wait(instance.id, instance, self.owners[peer])
        return events

    def _free(self, peer: str, id: str) -> list[Event]:
        claimed = self._no_longer_claims(peer, id)
        row = self._rows.get(id)
        if row is None:
            return []
        if row.owner != peer:
            return [] if claimed else [Refused(id, "only its owner may free it")]
        row.claims = {ENGINE: row.claims[ENGINE]} if ENGINE in row.claims else {}
        return self._release(row)

    def _claim(self, row: Row, peer: Peer, instance: Instance) -> None:
        row.claims[peer.name] = instance
        peer.claimed.add(instance.id)

    def _no_longer_claims(self, peer: str, id: str) -> bool:
        """Whether it did."""
        row, waiting = self._rows.get(id), self._waiting.get(id, {})
        claimed = waiting.pop(peer, None) is not None
        if not waiting:
            self._waiting.pop(id, None)
        if row is not None:
            claimed = row.claims.pop(peer, None) is not None or claimed
        if peer in self.owners:
            self.owners[peer].claimed.discard(id)
        return claimed

    def _remove(self, row: Row, keep: bool = False) -> list[Event]:
        """`keep`: it goes on under another service's name, and keeps its mark."""
        id, service = row.instance.id, row.instance.service
        del self._rows[id]
        del self._services[service][id]
        if not self._services[service]:
            del self._services[service]
        shown, row.shown = row.shown or row.instance, None
        self._index.grow(service)
        lifted: list[Event] = [Mark(id, True)] if not keep and id in self._marks else []
        if lifted:
            del self._marks[id]
        return [Gone(shown, row.principal), *lifted]

    def _forget_owner(self, row: Row) -> None:
        self.owners.disown(row.owner, row.instance.id)

    def _mark(self, mark: Mark) -> list[Event]:
        if self._marks.get(mark.id, Mark(mark.id, True)) == mark:
            return []
        if mark.enabled:
            del self._marks[mark.id]
        else:
            self._marks[mark.id] = mark
        row = self._rows.get(mark.id)
        return [mark, *(self._refresh(row) if row else [])]

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _silence(self, row: Row) -> Silence:
        if row.unheard:
            return Silence.RESTORED
        return self.owners.silence(row.owner, row.instance.service)

    def _refresh(self, row: Row) -> list[Event]:
        seen = row.look(self._silence(row), enabled=row.instance.id not in self._marks)
        if seen == row.shown:
            return []
        row.shown = seen
        self._index.grow(seen.service)
        return [Put(seen, row.principal)]

    def _refresh_owned(self, peer: str) -> list[Event]:
        return [event for id in self.owners[peer].owned for event in self._refresh(self._rows[id])]

    def _refresh_silent(self, services: Iterable[str]) -> list[Event]:
        """Whether many are silent has changed: all who are look different now."""
        silent = dict.fromkeys(peer for service in services for peer in self.owners.silent(service))
        return [event for peer in silent for event in self._refresh_owned(peer)]

    def _population(self, service: str) -> int:
        return len(self._services.get(service, ()))

    def _end_doubt(self) -> list[Event]:
        self._doubt_until, self.uncertain = None, False
        events: list[Event] = []
        for row in [row for row in self._rows.values() if row.unheard]:
            row.unheard = False
            events += self._remove(row) if row.owner == RESTORED else self._refresh(row)
        return events

    def __repr__(self) -> str:
        return f"<Catalog [{len(self._rows)} instances of {len(self._services)} services | {self.owners!r}]>"
