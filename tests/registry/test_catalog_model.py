"""The catalog against a model of it: a dict of rows and a dict of peers, driven by random conversations."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.registry.catalog import Catalog, Gone, Put, Refused
from fairway.registry.wire import Free, Heartbeat, Register

HOSTS = ["127.0.0.1", "10.0.0.7"]
IDS = st.sampled_from(["A", "B", "C", "D"])
PORTS = st.sampled_from([1, 2])  # few, so that the same address comes up again


@dataclass
class Row:
    owner: str
    host: str
    port: int


@dataclass
class Peer:
    host: str
    heard: float
    ttl: float = 45.0


class CatalogMachine(RuleBasedStateMachine):
    @initialize()
    def empty(self) -> None:
        self.catalog = Catalog()
        self.rows: dict[str, Row] = {}
        self.peers: dict[str, Peer] = {}
        self.now = 0.0
        self.joined = 0
        self.index = self.catalog.index

    @rule(host=st.sampled_from(HOSTS))
    def join(self, host: str) -> None:
        self.joined += 1
        name = f"peer {self.joined}"
        self.catalog.join(name, host, self.now)
        self.peers[name] = Peer(host, self.now)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS, port=PORTS, ttl=st.sampled_from([None, 10, 30]))
    def register(self, data: st.DataObject, id: str, port: int, ttl: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        peer, known = self.peers[name], self.rows.get(id)
        [change] = self.catalog.receive(name, Register(id, {"role": "a", "port": port, "ttl_seconds": ttl}), self.now)
        peer.heard = self.now
        same_worker = known is not None and (known.host, known.port) == (peer.host, port)
        if known is None or known.owner == name or same_worker:
            assert isinstance(change, Put)
            assert (change.instance.id, change.instance.address.port) == (id, port)
            self.rows[id] = Row(name, peer.host, port)
            peer.ttl = ttl or peer.ttl
        else:
            assert isinstance(change, Refused)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS)
    def free(self, data: st.DataObject, id: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        changes = self.catalog.receive(name, Free(id), self.now)
        self.peers[name].heard = self.now
        if id not in self.rows:
            assert changes == []
        elif self.rows[id].owner == name:
            assert [type(change) for change in changes] == [Gone]
            del self.rows[id]
        else:
            assert [type(change) for change in changes] == [Refused]

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        assert self.catalog.receive(name, Heartbeat(), self.now) == []
        self.peers[name].heard = self.now

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self._leave(data.draw(st.sampled_from(sorted(self.peers))))

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0, 30.0, 45.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        overdue = {name for name, peer in self.peers.items() if self.now >= peer.heard + peer.ttl}
        assert set(self.catalog.silent(self.now)) == overdue
        for name in overdue:
            self._leave(name)

    def _leave(self, name: str) -> None:
        owned = {id for id, row in self.rows.items() if row.owner == name}
        changes = self.catalog.leave(name)
        assert {change.instance.id for change in changes if isinstance(change, Gone)} == owned
        assert len(changes) == len(owned)
        del self.peers[name]
        for id in owned:
            del self.rows[id]

    @invariant()
    def same_rows(self) -> None:
        found = [(i.id, i.address.host, i.address.port) for i in self.catalog.query()]
        assert found == [(id, row.host, row.port) for id, row in self.rows.items()]

    @invariant()
    def same_deadline(self) -> None:
        deadline = self.catalog.next_deadline()
        assert deadline == min((peer.heard + peer.ttl for peer in self.peers.values()), default=None)
        assert deadline is None or deadline > self.now, "whoever was overdue has been let go"

    @invariant()
    def the_index_never_shrinks(self) -> None:
        assert self.catalog.index >= self.index
        self.index = self.catalog.index


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
