"""Who is alive, and where: THE state machine of one hub. Messages and `now` in, changes out. Sans-io.

Laws:
* A row made by a connection lives as long as that connection, and the connection as long as something is heard on it
  (`lease.py`). A row made with a principal (over HTTP) lives until it is removed; its checks say how it does.
* Only its owner changes or frees a row. One exception: a peer of the same host that registers the same id at the same
  address is the same worker come back before its old connection was missed, and takes the row over.
* What a peer relays for somebody else is dialled before it is served, and again and again as long as nobody says it of
  himself (`hearsay.py`); so is, once, an address that is not the peer's own.
* What is shown is said once: a change that readers would not see is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .advertising import AllowList
from .board import Board
from .board import Event as Event
from .changes import Change, Dial, Gone, Mark, Put, Refused, Released
from .errors import InvalidInstance
from .hearsay import Hearsay
from .instance import Address, Instance, State
from .owners import DURABLE, ENGINE, RESTORED, Peer, Rank
from .row import Row, Word, first_word, last_word, weigh
from .wire import Free, Hello, Message, Register, Synced

HUB_SERVICE = "seaport"  # what npm's hubs register themselves as with each other
MAX_ROWS_PER_PEER = 1_000
MAX_ROWS = 100_000  # of all together, what waits and what is claimed included
MAX_BYTES = 256 * 1024 * 1024  # of their documents, as far as they were said to us


class Catalog(Board):
    """All registrations as one hub sees them. `allowed`: networks whose addresses anybody may advertise.

    `dial_back`: whether addresses are dialled before they are served.
    """

    def __init__(self, allowed: Sequence[str] = (), *, epoch: int = 0, dial_back: bool = True) -> None:
        super().__init__(epoch)
        self.allow_list = AllowList(allowed)
        self.uncertain = False  # the list may be incomplete: after a restart, or before the engine's first full copy
        self._dial_back = dial_back
        self._hearsay = Hearsay()
        self._now = 0.0  # as we were told last
        self._doubt_until: float | None = None

    def lives_here(self) -> bool:
        """Whether a row lives by a connection of ours that nobody else has taken over in the engine."""
        return any(row.owner in self.owners and row.heir is None for row in self._rows.values())

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
        self._now = now
        self.owners.add(Peer(peer, host, now, hub=hub))

    def receive(self, peer: str, message: Message, now: float) -> list[Event]:
        """Any message is a sign of life; `register` and `free` may change something."""
        events = self.beat(peer, now)
        match message:
            case Register(id, meta):
                events += self._register(self.owners[peer], id, dict(meta))
            case Free(id):
                events += self._free(peer, id)
            case Synced():
                self.owners[peer].direct = not self.owners[peer].hub
            case Hello():
                self.owners[peer].direct = self.owners[peer].fairway = True
        return events

    def beat(self, peer: str, now: float) -> list[Event]:
        """It lives. Nearly always this changes nothing, and it is said very often."""
        self._now = now
        changed = self.owners.beat(peer, now)
        return [] if changed is None else self._refresh_owned(peer) + self._refresh_silent(changed)

    def leave(self, peer: str) -> list[Event]:
        """The connection is over: all it registered is gone, or its heirs'."""
        gone = self.owners.remove(peer)
        if gone is None:
            return []
        for id in sorted(gone.claimed):
            self._hearsay.forget(id, peer)
            self._hearsay.doubt(id)  # the worker itself may have been the one that is gone
        events = [event for id in sorted(gone.owned) for event in self._release(self._rows[id])]
        return events + self._dial_again()

    def expire(self, now: float) -> tuple[list[Event], list[str]]:
        """What time did; and the peers that were silent for too long: `leave` has been done, close their connections."""
        self._now = now
        events: list[Event] = []
        if self._doubt_until is not None and now >= self._doubt_until:
            events += self._end_doubt()
        fallen, changed, lost = self.owners.expire(now)
        for peer in fallen:
            events += self._refresh_owned(peer)
        events += self._refresh_silent(changed)
        for peer in lost:
            events += self.leave(peer)
        return events + self._dial_again(), lost

    def next_deadline(self) -> float | None:
        """When to call `expire` again."""
        due = (self.owners.next_deadline(), self._hearsay.next(), self._doubt_until)
        return min((at for at in due if at is not None), default=None)

    def dialled(self, id: str, peer: str, reached: bool, address: Address | None = None) -> list[Event]:
        """What came of a `Dial`. Not reached: it goes on waiting; a row that was only relayed is gone until it is."""
        row = self._rows.get(id)
        if not reached:
            if row is None or not self._relays(row, peer, address):
                return []
            word, owner = self._hearsay.waiting(id, peer) or row.word, self.owners[peer]
            return [*self._release(row), *self._wait(word, owner)]
        if not self.waits(id, peer, address) or (said := self._forget_word(id, peer)) is None:
            return []
        if row is not None and row.owner not in (peer, RESTORED):  # somebody else was quicker
            if row.word.relayed and self.owners.rank(row, self.owners[peer], said.instance) is Rank.OWNER:
                return self._take_over(row, said, self.owners[peer])
            self._claim(said, self.owners[peer])
            return []
        return self._install(said, peer)

    def waits(self, id: str, peer: str, address: Address | None = None) -> bool:
        """`address`: at this one; it may have named another since."""
        word = self._hearsay.waiting(id, peer)
        return word is not None and address in (None, word.instance.address)

    def wants(self, dial: Dial) -> bool:
        """Whether it still matters what comes of it."""
        row = self._rows.get(dial.id)
        relayed = row is not None and self._relays(row, dial.peer, dial.address)
        return relayed or self.waits(dial.id, dial.peer, dial.address)

    def speakers(self, id: str) -> set[str]:
        """Peers that register it and may be the worker itself: who has it, and who would. A hub is nobody's worker."""
        row = self._rows.get(id)
        say = {name for name in self._hearsay.speakers(id) if name in self.owners and not self.owners[name].hub}
        return say | ({row.owner} if row else set())

    # -- principals: who registers over HTTP -----------------------------------------------------------------------

    def register(
        self, principal: str, instance: Instance, peer_host: str, now: float, admin: bool = False
    ) -> list[Event]:
        """A row that outlives its maker's connection; `instance.checks` say how it does. Replaces its own former self."""
        known = self._rows.get(instance.id)
        if known and known.principal != principal and not (admin and known.principal):
            return [Refused(instance.id, "somebody else owns this id")]
        try:
            word = Word(instance, size=weigh(instance))
        except InvalidInstance as error:
            return [Refused(instance.id, str(error))]
        objection = self.may_advertise(instance.address.host, peer_host)
        objection = objection or self._no_room(word, known.word if known else None)
        if objection:
            return [Refused(instance.id, objection)]
        if known is None:
            return self._install(word, DURABLE, principal, first_word(instance))
        before = {check.id: check for check in known.instance.checks}
        kept = known.instance.address == instance.address and all(check.id in before for check in instance.checks)
        measured = known.measured if kept else first_word(instance)
        return self._replace(known, word, DURABLE, known.principal, measured)

    def deregister(self, principal: str, id: str, admin: bool = False) -> list[Event]:
        row = self._rows.get(id)
        if row is None:
            return []
        if not row.principal:
            return [Refused(id, "it lives by the connection of its worker; maintenance takes it out of service")]
        if not admin and row.principal != principal:
            return [Refused(id, "only its owner may free it")]
        self._forget_owner(row)
        self._forget_claims(id)
        return self._remove(row)

    # -- engines: what other hubs, or our own last life, wrote -------------------------------------------------------

    def restore(self, changes: Iterable[Change], until: float) -> list[Event]:
        """What our own last life knew: served as suspect until it is heard of, or until `until`."""
        events: list[Event] = []
        for change in changes:
            if isinstance(change, Put):
                owner = DURABLE if change.principal else RESTORED
                events += self._install(Word(change.instance), owner, change.principal, unheard=True)
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
                        events += self._install(Word(instance), ENGINE, principal)
                    elif row.owner in self.owners:
                        row.heir = instance
                    else:
                        events += self._replace(row, Word(instance), ENGINE, principal, row.measured)
                case Gone(instance, principal):
                    row = self._rows.get(instance.id)
                    # What outlives connections is removed wherever it was written, ours as well.
                    if row is not None and (row.owner == ENGINE or (principal and row.principal)):
                        events += self._release(row)
                    elif row is not None:
                        row.heir = None
                case Mark():
                    events += self._mark(change)
        return events

    # -- rows ------------------------------------------------------------------------------------------------------

    def _register(self, peer: Peer, id: str, meta: dict[str, Any]) -> list[Event]:
        try:
            instance = Instance.from_meta(id, meta, peer.host)
            instance = replace(instance, enabled=True, suspect=False, checks=())  # not for an owner to say
            size = weigh(instance)
        except InvalidInstance as error:
            return [Refused(id, str(error))]
        if objection := self.may_advertise(instance.address.host, peer.host):
            return [Refused(id, objection)]
        if instance.service == HUB_SERVICE and not peer.fairway:
            peer.hub, peer.direct = True, False
        word, row = Word(instance, relayed=not peer.direct, size=size), self._rows.get(id)
        mine = row is not None and row.owner == peer.name
        if not mine and id not in peer.claimed and len(peer.owned) + len(peer.claimed) >= MAX_ROWS_PER_PEER:
            return [Refused(id, f"one peer may hold at most {MAX_ROWS_PER_PEER} registrations")]
        rank = Rank.OWNER if row is None or mine else self.owners.rank(row, peer, instance)
        if rank is Rank.STRANGER:
            return [Refused(id, "somebody else owns this id")]
        former = row.word if row is not None and rank is Rank.OWNER else self._hearsay.word(id, peer.name)
        if objection := self._no_room(word, former):
            return [Refused(id, objection)]
        if rank is Rank.HEIR:
            self._claim(word, peer)
            return []
        self.owners.promise(peer, meta.get("ttl_seconds"))
        if row is not None and row.word.relayed and not mine:
            return self._take_over(row, word, peer)
        moved = row is None or row.instance.address != instance.address
        if self._dial_back and (moved or not peer.direct) and self._to_be_dialled(peer, instance):
            return self._wait(word, peer)
        return self._install(word, peer.name)

    def _no_room(self, word: Word, former: Word | None) -> str | None:
        """Why it cannot be kept; None if it can. What takes the place of `former` and is no larger always can."""
        if former is None and len(self._rows) + self._hearsay.count >= MAX_ROWS:
            return f"this registry is full: it holds {MAX_ROWS} registrations"
        grown = word.size - (former.size if former else 0)
        if grown > 0 and self._bytes + self._hearsay.bytes + grown > MAX_BYTES:
            return f"this registry is full: its registrations may have {MAX_BYTES} bytes together"
        return None

    def _to_be_dialled(self, peer: Peer, instance: Instance) -> bool:
        """seaport's clients register first and listen then: on their own address, theirs are served unasked."""
        return peer.fairway or not peer.direct or instance.address.host != peer.host

    def _wait(self, word: Word, peer: Peer) -> list[Event]:
        id, address = word.instance.id, word.instance.address
        row = self._rows.get(id)
        moved = row is not None and row.instance.address != address
        events: list[Event] = list(self._release(row)) if row is not None and moved and row.owner == peer.name else []
        self._hearsay.wait(peer.name, word)
        peer.claimed.add(id)
        return [*events, Dial(id, peer.name, address)]

    def _claim(self, word: Word, peer: Peer) -> None:
        self._hearsay.claim(peer.name, word)
        peer.claimed.add(word.instance.id)

    def _forget_word(self, id: str, peer: str) -> Word | None:
        """-> what it claimed, or what waited."""
        if peer in self.owners:
            self.owners[peer].claimed.discard(id)
        return self._hearsay.forget(id, peer)

    def _forget_claims(self, id: str) -> None:
        for peer in self._hearsay.claims(id):
            self._forget_word(id, peer)

    def _relays(self, row: Row, peer: str, address: Address | None) -> bool:
        return row.word.relayed and row.owner == peer and address in (None, row.instance.address)

    def _dial_again(self) -> list[Event]:
        """Rows that were only relayed: those whose turn it is."""
        rows = [self._rows[id] for id in self._hearsay.due(self._now)]
        return [Dial(row.instance.id, row.owner, row.instance.address) for row in rows]

    def _install(
        self, word: Word, owner: str, principal: str = "", measured: State | None = None, unheard: bool = False
    ) -> list[Event]:
        measured = measured or last_word(word.instance)
        known = self._rows.get(word.instance.id)
        if known is not None:
            return self._replace(known, word, owner, principal, measured)
        row = Row(word, owner, principal, measured, unheard)
        self._owned(row)
        return self._add(row)

    def _replace(
        self, row: Row, word: Word, owner: str, principal: str = "", measured: State = "passing"
    ) -> list[Event]:
        self._forget_owner(row)
        events = self._change(row, word)
        row.owner, row.principal, row.measured, row.unheard = owner, principal, measured, False
        if owner == ENGINE:
            row.heir = None
        self._owned(row)
        return events + self._refresh(row)

    def _owned(self, row: Row) -> None:
        id = row.instance.id
        self._forget_word(id, row.owner)
        self.owners.own(row.owner, id, row.instance.service)
        if row.word.relayed and self._dial_back:
            self._hearsay.reached(id, self._now)

    def _take_over(self, row: Row, word: Word, peer: Peer) -> list[Event]:
        """From who only relayed it, and may inherit it."""
        relay, relayed = self.owners[row.owner], row.word
        events = self._replace(row, word, peer.name)
        self._claim(relayed, relay)
        return events

    def _release(self, row: Row) -> list[Event]:
        """Its owner is gone. Who else claims it inherits: what the engine says at once, a relay once it was dialled."""
        self._forget_owner(row)
        if row.heir is not None:
            return [Released(row.instance), *self._replace(row, Word(row.heir), ENGINE)]
        events = self._remove(row)
        for peer, word in self._hearsay.claims(row.instance.id).items():
            events += self._wait(word, self.owners[peer])
        return events

    def _free(self, peer: str, id: str) -> list[Event]:
        claimed = self._forget_word(id, peer) is not None
        row = self._rows.get(id)
        if row is None:
            return []
        if row.owner != peer:
            if not claimed:
                return [Refused(id, "only its owner may free it")]
            self._hearsay.doubt(id)
            return self._dial_again()
        self._forget_claims(id)
        return self._release(row)

    def _forget_owner(self, row: Row) -> None:
        self.owners.disown(row.owner, row.instance.id)
        self._hearsay.settle(row.instance.id)

    def _end_doubt(self) -> list[Event]:
        self._doubt_until, self.uncertain = None, False
        events: list[Event] = []
        for row in [row for row in self._rows.values() if row.unheard]:
            row.unheard = False
            events += self._remove(row) if row.owner == RESTORED else self._refresh(row)
        return events

    def __repr__(self) -> str:
        return f"<Catalog [{len(self._rows)} instances of {len(self._services)} services | {self.owners!r}]>"
