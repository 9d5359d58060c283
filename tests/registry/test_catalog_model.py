"""The catalog and its readers against a model: a dict of rows, driven by random conversations, deaths, restarts.

At most four rows: too few for the mass-expiry guard, which has transcripts of its own in test_catalog_life.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.registry.catalog import Catalog, Event
from fairway.registry.changes import Change, Gone, Mark, Put, Refused, Released
from fairway.registry.instance import Address, Instance, State
from fairway.registry.watcher import Tell, Watcher
from fairway.registry.wire import Free, Heartbeat, Register, Synced

TTL = 10.0
HOSTS = ["127.0.0.1", "10.0.0.7"]
SERVICES = ["a", "b"]
IDS = st.sampled_from(["A", "B", "C", "D"])
PORTS = st.sampled_from([1, 2])  # few, so that the same address comes up again
PRINCIPALS = st.sampled_from(["p", "q"])


@dataclass
class Row:
    owner: str  # a peer's name, "engine", "durable" or "restored"
    host: str
    port: int
    principal: str = ""
    word: State = "passing"
    measured: State = "passing"
    unheard: bool = False
    heir: tuple[str, int] | None = None  # the engine's version, while a peer of ours owns it


@dataclass
class Peer:
    host: str
    heard: float
    ttl: float = 45.0
    late: bool = False


@dataclass
class Reader:
    """A watcher and the copy its owner keeps."""

    watcher: Watcher
    plain: bool
    copy: dict[str, Instance]
    synced: bool = False

    def read(self, tell: object) -> None:
        if not isinstance(tell, Tell):
            self.synced = True
        elif tell.instance is None:
            self.copy.pop(tell.id, None)
        else:
            self.copy[tell.id] = tell.instance


def service(id: str) -> str:
    return SERVICES[ord(id) % 2]


def instance(id: str, host: str, port: int) -> Instance:
    return Instance(id, service(id), Address(host, port))


class CatalogMachine(RuleBasedStateMachine):
    @initialize()
    def empty(self) -> None:
        self.epoch = 1
        self.catalog = Catalog(("10.0.0.0/8",), epoch=self.epoch, dial_back=False)
        self.rows: dict[str, Row] = {}
        self.peers: dict[str, Peer] = {}
        self.disabled: set[str] = set()
        self.journal: dict[str, Change] = {}
        self.published: dict[str, Instance] = {}
        self.readers: list[Reader] = []
        self.indices: dict[str | None, int] = dict.fromkeys([None, *SERVICES], 0)
        self.now = 0.0
        self.doubt_until: float | None = None
        self.joined = 0

    # -- what the hub does with events ----------------------------------------------------------------------

    def done(self, events: list[Event], foreign: bool = False) -> None:
        for event in events:
            match event:
                case Put(now) | Gone(now):
                    before = self.published.get(now.id)
                    after = now if isinstance(event, Put) else None
                    assert before != after, "said twice"
                    if after:
                        self.published[now.id] = after
                    else:
                        del self.published[now.id]
                    for reader in self.readers:
                        told = reader.watcher.offer(now.id, before, after)
                        if told:
                            assert reader.copy.get(now.id) != told.instance, "told twice"
                            reader.read(told)
                case _:
                    pass
            lifted = isinstance(event, Mark) and event.enabled and self.catalog.get(event.id) is None
            if not foreign or lifted:
                self.write(event)

    def write(self, event: Event) -> None:
        match event:
            case Put(put) if document := self.catalog.document(put.id):
                self.journal[put.id] = document
            case Gone(gone) | Released(gone):
                self.journal.pop(gone.id, None)
            case Mark(id, enabled):
                self.journal[f"mark {id}"] = event
                if enabled:
                    self.journal.pop(f"mark {id}")

    # -- peers ----------------------------------------------------------------------------------------------

    @rule(host=st.sampled_from(HOSTS))
    def join(self, host: str) -> None:
        self.joined += 1
        name = f"peer {self.joined}"
        self.catalog.join(name, host, self.now)
        self.done(self.catalog.receive(name, Synced(), self.now))
        self.peers[name] = Peer(host, self.now)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS, port=PORTS, state=st.sampled_from(["passing", "draining"]))
    def register(self, data: st.DataObject, id: str, port: int, state: State) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        peer, known = self.peers[name], self.rows.get(id)
        peer.heard, peer.late = self.now, False
        meta = {"role": service(id), "port": port, "ttl_seconds": TTL, "state": state}
        events = self.catalog.receive(name, Register(id, meta), self.now)
        self.done(events)
        same = known is not None and (known.host, known.port) == (peer.host, port) and not known.principal
        if known is None or known.owner == name or same:
            assert not any(isinstance(event, Refused) for event in events)
            heir = known.heir if known else None
            peer.ttl = TTL
            self.rows[id] = Row(name, peer.host, port, word=state, heir=heir)
        else:
            assert isinstance(events[-1], Refused)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), id=IDS)
    def free(self, data: st.DataObject, id: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        self.peers[name].heard, self.peers[name].late = self.now, False
        events = self.catalog.receive(name, Free(id), self.now)
        self.done(events)
        if id in self.rows and self.rows[id].owner == name:
            self.released(id)
        else:
            assert any(isinstance(event, Refused) for event in events) is (id in self.rows)

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        self.peers[name].heard, self.peers[name].late = self.now, False
        self.done(self.catalog.receive(name, Heartbeat(), self.now))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.peers)))
        self.done(self.catalog.leave(name))
        self.left(name)

    def left(self, name: str) -> None:
        del self.peers[name]
        for id in [id for id, row in self.rows.items() if row.owner == name]:
            self.released(id)

    def released(self, id: str) -> None:
        row = self.rows[id]
        if row.heir:
            self.rows[id] = Row("engine", *row.heir)
        else:
            self.removed(id)

    def removed(self, id: str) -> None:
        del self.rows[id]
        self.disabled.discard(id)

    # -- time -----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 3.0, 7.0, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        events, lost = self.catalog.expire(self.now)
        self.done(events)
        assert set(lost) == {name for name, peer in self.peers.items() if self.now >= peer.heard + peer.ttl}
        for peer in self.peers.values():
            peer.late = self.now >= peer.heard + peer.ttl * 2 / 3
        for name in lost:
            self.left(name)
        if self.doubt_until is not None and self.now >= self.doubt_until:
            self.doubt_until = None
            for id, row in list(self.rows.items()):
                if row.unheard and row.owner == "restored":
                    self.removed(id)
                row.unheard = False

    @rule()
    def restart(self) -> None:
        """The hub is killed, and comes back with what is on disk; no peer is there yet."""
        self.epoch += 1
        shown = {i.id: i for i in self.catalog.instances()}
        ours = [c for c in self.journal.values() if not isinstance(c, Mark) or self.rows[c.id].owner != "engine"]
        self.journal = {f"mark {c.id}" if isinstance(c, Mark) else c.instance.id: c for c in ours}
        changes = sorted(ours, key=lambda change: isinstance(change, Mark))
        self.catalog = Catalog(("10.0.0.0/8",), epoch=self.epoch, dial_back=False)
        self.peers.clear()
        self.readers.clear()
        self.published.clear()
        for id, row in list(self.rows.items()):
            if row.owner == "engine":
                self.removed(id)  # the engine will say it again, and its mark
                continue
            word = row.word if row.principal else shown[id].state
            owner = "durable" if row.principal else "restored"
            self.rows[id] = Row(owner, row.host, row.port, row.principal, word, unheard=True)
        self.doubt_until = self.now + TTL
        self.done(self.catalog.restore(changes, self.doubt_until))

    # -- principals, operators, other hubs ------------------------------------------------------------------

    @rule(principal=PRINCIPALS, id=IDS, port=PORTS)
    def register_durably(self, principal: str, id: str, port: int) -> None:
        known = self.rows.get(id)
        events = self.catalog.register(principal, instance(id, "127.0.0.1", port), "127.0.0.1", self.now)
        self.done(events)
        if known and known.principal != principal:
            assert [type(event) for event in events] == [Refused]
            return
        measured = known.measured if known and (known.host, known.port) == ("127.0.0.1", port) else "passing"
        self.rows[id] = Row("durable", "127.0.0.1", port, principal, measured=measured)

    @rule(principal=PRINCIPALS, id=IDS)
    def deregister(self, principal: str, id: str) -> None:
        events = self.catalog.deregister(principal, id)
        self.done(events)
        if id in self.rows and self.rows[id].principal == principal:
            self.removed(id)
        else:
            assert any(isinstance(event, Refused) for event in events) is (id in self.rows)

    @rule(id=IDS, state=st.sampled_from(["passing", "critical"]))
    def judge(self, id: str, state: State) -> None:
        if id in self.rows and self.rows[id].principal:
            self.done(self.catalog.judge(id, state))
            self.rows[id].measured, self.rows[id].unheard = state, False

    @rule(id=IDS, enabled=st.booleans())
    def mark(self, id: str, enabled: bool) -> None:
        self.done(self.catalog.mark(id, enabled))
        if id in self.rows:
            (self.disabled.discard if enabled else self.disabled.add)(id)

    @rule(id=IDS, port=PORTS, principal=st.sampled_from(["", "p"]))
    def another_hub_writes(self, id: str, port: int, principal: str) -> None:
        known = self.rows.get(id)
        self.done(self.catalog.foreign([Put(instance(id, "10.0.0.9", port), principal)]), foreign=True)
        self.journal.pop(id, None) if known and known.owner not in self.peers else None
        if known and known.owner in self.peers:
            known.heir = ("10.0.0.9", port)
        else:
            measured = known.measured if known else "passing"
            self.rows[id] = Row("engine", "10.0.0.9", port, principal, measured=measured)

    @rule(id=IDS)
    def another_hub_removes(self, id: str) -> None:
        self.done(self.catalog.foreign([Gone(instance(id, "10.0.0.9", 1))]), foreign=True)
        if id in self.rows and self.rows[id].owner == "engine":
            self.removed(id)
        elif id in self.rows:
            self.rows[id].heir = None

    # -- readers --------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < 4)
    @rule(plain=st.booleans(), services=st.sampled_from([None, ["a"], []]), flowing=st.booleans())
    def watch(self, plain: bool, services: list[str] | None, flowing: bool) -> None:
        reader = Reader(Watcher(services, plain), plain, {})
        reader.watcher.flowing = flowing
        reader.watcher.greet(self.published.values())
        self.readers.append(reader)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), rows=st.integers(1, 3), flowing=st.booleans())
    def drain(self, data: st.DataObject, rows: int, flowing: bool) -> None:
        """The reader reads a little, and then goes on, or pauses again."""
        reader = data.draw(st.sampled_from(self.readers))
        for told in reader.watcher.take(self.published.get, rows):
            reader.read(told)
        reader.watcher.flowing = flowing

    # -- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def readers_see_what_the_model_says(self) -> None:
        expected = {}
        for id, row in self.rows.items():
            late = row.owner in self.peers and self.peers[row.owner].late
            states = ("passing", "starting", "draining", "critical")
            state: State = "critical" if late else max(row.word, row.measured, key=states.index)
            expected[id] = (row.host, row.port, state, row.unheard, id not in self.disabled)
        found = {
            i.id: (i.address.host, i.address.port, i.state, i.suspect, i.enabled) for i in self.catalog.instances()
        }
        assert found == expected
        assert {i.id: i for i in self.catalog.instances()} == self.published
        assert {name: {i.id for i in rows} for name, rows in self.catalog.services().items()} == {
            name: ids for name in SERVICES if (ids := {id for id in self.rows if service(id) == name})
        }

    @invariant()
    def what_is_on_disk_is_what_is_ours(self) -> None:
        on_disk = {id for id in self.journal if not id.startswith("mark ")}
        assert on_disk == {id for id, row in self.rows.items() if row.owner != "engine"}

    @invariant()
    def nobody_misses_anything(self) -> None:
        for reader in self.readers:
            behind = set(reader.watcher._backlog)
            expected = {
                id: i
                for id, i in self.published.items()
                if (reader.watcher.services is None or i.service in reader.watcher.services)
                and (i.serving or not reader.plain)
            }
            for id in (reader.copy.keys() | expected.keys()) - behind:
                assert reader.copy.get(id) == expected.get(id)
            if not reader.watcher.behind:
                assert reader.synced
                assert reader.copy == expected
            assert len(behind) <= 4, "a slow reader costs a set of ids, however much happens"

    @invariant()
    def indices_only_grow(self) -> None:
        for name, before in self.indices.items():
            self.indices[name] = self.catalog.index_of(name)
            assert self.indices[name] >= before
            assert self.catalog.knows_index(self.indices[name])

    @invariant()
    def nobody_is_forgotten(self) -> None:
        deadline = self.catalog.next_deadline()
        late = [peer.heard + peer.ttl * (1 if peer.late else 2 / 3) for peer in self.peers.values()]
        earliest = min([*late, *([self.doubt_until] if self.doubt_until else [])], default=None)
        if earliest is not None:
            assert deadline is not None
            assert deadline <= earliest + 1e-6, "nobody is looked at too late"


def test_a_replaced_instance_is_another_value() -> None:
    one = instance("A", "127.0.0.1", 1)
    assert replace(one, state="draining") != one


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
