"""Peers that relay, workers that die behind them, and a dialler that tells the truth: what must hold of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.registry.catalog import Catalog, Event
from fairway.registry.changes import Dial, Gone, Put
from fairway.registry.hearsay import AGAIN_SECONDS
from fairway.registry.instance import Address, Instance
from fairway.registry.wire import Free, Register, Synced

HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
WORKERS = {"A": Address(HOSTS[0], 1), "B": Address(HOSTS[0], 2), "C": Address(HOSTS[1], 1)}
IDS = st.sampled_from(sorted(WORKERS))


@dataclass
class Peer:
    host: str
    hub: bool
    direct: bool = False


class RelaysMachine(RuleBasedStateMachine):
    @initialize()
    def empty(self) -> None:
        self.catalog = Catalog(("10.0.0.0/8",))
        self.peers: dict[str, Peer] = {}
        self.listening = set(WORKERS)
        self.dials: dict[tuple[str, str], tuple[Dial, bool]] = {}  # and whether it was said that it failed
        self.published: dict[str, Instance] = {}
        self.themselves: dict[str, str] = {}  # id -> the peer that spoke for itself last, at that address
        self.now = 0.0
        self.joined = 0

    def done(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Put(instance):
                    assert self.published.get(instance.id) != instance, "said twice"
                    self.published[instance.id] = instance
                case Gone(instance):
                    del self.published[instance.id]
                case Dial():
                    assert self.catalog.wants(event)
                    self.dials[event.id, event.peer] = event, False

    def attempt(self, key: tuple[str, str]) -> bool:
        """One attempt, as the dialler makes it -> whether it led to anything."""
        dial, said = self.dials[key]
        if not self.catalog.wants(dial):
            del self.dials[key]
            return True
        if dial.id in self.listening:
            del self.dials[key]
            self.done(self.catalog.dialled(*key, True, dial.address))
            return True
        if not said:
            self.dials[key] = dial, True
            self.done(self.catalog.dialled(*key, False, dial.address))
        return not said

    # -- peers ----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.peers) < 5)
    @rule(host=st.sampled_from(HOSTS), hub=st.sampled_from([False, False, True]), named=st.lists(IDS, max_size=3))
    def join(self, host: str, hub: bool, named: list[str]) -> None:
        self.joined += 1
        name = f"{host}#{self.joined}"
        self.peers[name] = Peer(host, hub)
        self.catalog.join(name, host, self.now, hub=hub)
        for id in named:
            self.say(name, id)

    def say(self, name: str, id: str) -> None:
        address = WORKERS[id]
        meta = {"role": "a", "host": address.host, "port": address.port, "ttl_seconds": 3600}
        self.done(self.catalog.receive(name, Register(id, meta), self.now))
        if self.peers[name].direct and self.catalog.owner_of(id) == name and self.peers[name].host == address.host:
            self.themselves[id] = name

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS)
    def register(self, data: st.DataObject, id: str) -> None:
        self.say(data.draw(st.sampled_from(sorted(self.peers))), id)

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def synced(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        self.done(self.catalog.receive(name, Synced(), self.now))
        self.peers[name].direct = not self.peers[name].hub

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS)
    def free(self, data: st.DataObject, id: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        self.done(self.catalog.receive(name, Free(id), self.now))
        if self.themselves.get(id) == name:
            del self.themselves[id]

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        del self.peers[name]
        self.done(self.catalog.leave(name))
        self.themselves = {id: peer for id, peer in self.themselves.items() if peer != name}

    # -- the world ------------------------------------------------------------------------------------------

    @rule(id=IDS)
    def worker_dies_or_is_back(self, id: str) -> None:
        self.listening ^= {id}

    @precondition(lambda self: self.dials)
    @rule(data=st.data())
    def one_is_dialled(self, data: st.DataObject) -> None:
        self.attempt(data.draw(st.sampled_from(sorted(self.dials))))

    @rule(id=IDS, there=st.booleans())
    def another_hub(self, id: str, there: bool) -> None:
        instance = Instance(id, "a", WORKERS[id])
        self.done(self.catalog.foreign([Put(instance) if there else Gone(instance)]))

    @rule(seconds=st.sampled_from([0.5, AGAIN_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for name in self.peers:
            self.done(self.catalog.beat(name, self.now))
        events, lost = self.catalog.expire(self.now)
        assert not lost
        self.done(events)

    @rule()
    def all_is_found_out(self) -> None:
        """A time to live without news, every dial answered."""
        self.time_passes(AGAIN_SECONDS)
        while any(self.attempt(key) for key in sorted(self.dials)):
            pass
        for id in WORKERS:
            owner, row = self.catalog.owner_of(id), self.catalog._rows.get(id)
            spoken_for = bool(self.catalog.speakers(id))
            if id in self.listening:
                assert spoken_for is (owner is not None), "whoever lives and is spoken for is served"
            elif row is not None:
                assert not row.word.relayed, "no dead one is served on hearsay"

    # -- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def who_speaks_for_himself_keeps_his_row_from_relays(self) -> None:
        for id, name in self.themselves.items():
            owner = self.catalog.owner_of(id)
            row = self.catalog._rows[id]
            assert owner == name or (not row.word.relayed and self.peers[str(owner)].host == WORKERS[id].host)

    @invariant()
    def the_books_agree(self) -> None:
        it = self.catalog
        assert {i.id: i for i in it.instances()} == self.published
        rows, hearsay = it._rows, it._hearsay
        assert set(hearsay._asked) == {id for id, row in rows.items() if row.word.relayed}
        assert it._bytes == sum(row.word.size for row in rows.values())
        words = [
            (id, peer, word)
            for book in (hearsay._waiting, hearsay._claims)
            for id, said in book.items()
            for peer, word in said.items()
        ]
        assert (hearsay.count, hearsay.bytes) == (len(words), sum(word.size for *_, word in words))
        assert set(hearsay._claims) <= rows.keys(), "what nobody has is not claimed: it waits"
        for name in self.peers:
            assert set(it.owners[name].owned) == {id for id, row in rows.items() if row.owner == name}
            assert it.owners[name].claimed == {id for id, peer, _ in words if peer == name}
        assert {peer for _, peer, _ in words} <= self.peers.keys()
        for id, peer in [(id, peer) for id, peer, _ in words if it.waits(id, peer)]:
            assert (id, peer) in self.dials, "somebody is asking"


TestRelays = RelaysMachine.TestCase
TestRelays.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
