"""ZooKeeper's transactions against a model of ZooKeeper: writers that read, dawdle, and write, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fairway.registry.changes import Gone, Mark, Put
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.document import Row, document, mark_document
from fairway.registry.stores.outbox import Entry
from fairway.registry.stores.zookeeper_layout import (
    Check,
    Create,
    Delete,
    Layout,
    Node,
    Operation,
    Set,
    Transaction,
    parent,
)

LAYOUT = Layout("fairway")
IDS = ("a",)  # rows meet nowhere but at their services
SERVICES = ("x", "y")
WRITERS = 2
HASTE = st.integers(0, 2)


class Tree:
    """The laws of ZooKeeper that matter here: versions begin at 0, owners stay, a transaction is all or nothing."""

    def __init__(self) -> None:
        self.nodes = {path: Node(b"") for path in (LAYOUT.rows, LAYOUT.marks)}

    def commit(self, operations: list[Operation], session: int) -> bool:
        nodes = dict(self.nodes)
        for operation in operations:
            node = nodes.get(operation.path)
            match operation:
                case Create(path, value, ephemeral):
                    above = nodes.get(parent(path))
                    if node is not None or above is None or above.owner:
                        return False
                    nodes[path] = Node(value, 0, session if ephemeral else 0)
                case Set(path, value, version):
                    if node is None or node.version != version:
                        return False
                    nodes[path] = Node(value, version + 1, node.owner)
                case Check(_, version):
                    if node is None or node.version != version:
                        return False
                case Delete(path, version):
                    children = any(parent(other) == path for other in nodes)
                    if node is None or node.version != version or children:
                        return False
                    del nodes[path]
        self.nodes = nodes
        return True

    def expire(self, session: int) -> None:
        self.nodes = {path: node for path, node in self.nodes.items() if node.owner != session}

    def row(self, path: str) -> Row | None:
        node = self.nodes.get(path)
        found = LAYOUT.read(path, node.value) if node else None
        assert found is None or isinstance(found, Row)
        return found


@dataclass
class Writer:
    uid: str
    session: int
    entry: Entry | None = None
    where: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Node | None] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


class Writers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree, self.sessions = Tree(), WRITERS
        self.writers = [Writer(f"writer{number}", number + 1) for number in range(WRITERS)]

    def begin(self, writer: Writer, change: Put | Gone | Mark, haste: int, again: bool = False) -> None:
        """`haste`: 0, it dawdles; 1, it reads all at once; 2, and writes as well."""
        value = b""
        if isinstance(change, Put):
            value = document(change, writer.uid)
        elif isinstance(change, Mark) and not change.enabled:
            value = mark_document(change, writer.uid)
        writer.entry = Entry(change, value, again=again)
        writer.where = {
            found.put.instance.id: path
            for path in self.tree.nodes
            if path.count("/") == 4
            if (found := self.tree.row(path))
        }
        touched = sorted({*LAYOUT.touched(writer.entry, writer.where)})
        folders = sorted({parent(path) for path in touched if LAYOUT.is_row(path)})
        writer.seen, writer.unread = {}, [*folders, *touched]
        if haste:
            self.read(self.writers.index(writer), len(writer.unread))
        if haste > 1:
            self.conclude(writer)

    @rule(
        number=st.integers(0, WRITERS - 1),
        id=st.sampled_from(IDS),
        service=st.sampled_from(SERVICES),
        weight=st.integers(1, 3),
        principal=st.sampled_from(["", "", "ops"]),
        again=st.booleans(),
        haste=HASTE,
    )
    def put(self, number: int, id: str, service: str, weight: int, principal: str, again: bool, haste: int) -> None:
        row = Instance(id, service, Address("127.0.0.1", 9000), weight=weight)
        self.begin(self.writers[number], Put(row, principal), haste, again)

    @rule(
        number=st.integers(0, WRITERS - 1),
        id=st.sampled_from(IDS),
        service=st.sampled_from(SERVICES),
        principal=st.sampled_from(["", "", "ops"]),
        haste=HASTE,
    )
    def free(self, number: int, id: str, service: str, principal: str, haste: int) -> None:
        self.begin(self.writers[number], Gone(Instance(id, service, Address("127.0.0.1", 9000)), principal), haste)

    @rule(number=st.integers(0, WRITERS - 1))
    def take(self, number: int) -> None:
        """What it is all about, and would come by chance too seldom: a row taken over, while ..."""
        self.put(number, IDS[0], SERVICES[0], number + 1, "", again=False, haste=2)

    @rule(number=st.integers(0, WRITERS - 1))
    def be_about_to_leave(self, number: int) -> None:
        """... who had it has read that it is his, and will act on that."""
        self.free(number, IDS[0], SERVICES[0], "", haste=1)

    @rule(number=st.integers(0, WRITERS - 1), id=st.sampled_from(IDS), enabled=st.booleans(), haste=HASTE)
    def mark(self, number: int, id: str, enabled: bool, haste: int) -> None:
        self.begin(self.writers[number], Mark(id, enabled), haste)

    @rule(number=st.integers(0, WRITERS - 1), count=st.integers(1, 5))
    def read(self, number: int, count: int) -> None:
        writer = self.writers[number]
        for path in writer.unread[:count]:
            writer.seen[path] = self.tree.nodes.get(path)
        del writer.unread[:count]

    @precondition(lambda self: any(writer.entry for writer in self.writers))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """What was not read yet is read in the same breath."""
        number = data.draw(st.sampled_from([number for number, one in enumerate(self.writers) if one.entry]))
        self.read(number, len(self.writers[number].unread))
        self.conclude(self.writers[number])

    def conclude(self, writer: Writer) -> None:
        entry, writer.entry = writer.entry, None
        assert entry is not None
        transaction = Transaction(LAYOUT, writer.seen, writer.where, writer.uid, writer.session)
        done = transaction.add(entry)
        before = dict(self.tree.nodes)
        rows = {path: self.tree.row(path) for path in before if path.count("/") == 4}
        if not self.tree.commit(transaction.operations, writer.session):
            assert self.tree.nodes == before
            return
        match entry.change:
            case Put(instance, principal):
                path = LAYOUT.row(instance)
                old = rows.get(path)
                if entry.again and old and old.writer != writer.uid:
                    # It was written before ours was to be again: it stays, whatever we believed.
                    assert self.tree.nodes[path] == before[path]
                elif done and transaction.operations:
                    node = self.tree.nodes[path]
                    assert (node.value, node.owner) == (entry.value, 0 if principal else writer.session)
            case Gone(instance, ""):
                for path, old in rows.items():
                    if old and old.writer != writer.uid:
                        assert self.tree.nodes.get(path) == before[path], "it freed what is another's"
            case Gone(instance, _):
                if done:
                    assert LAYOUT.row(instance) not in self.tree.nodes
            case Mark(id, enabled) if (
                transaction.operations
            ):  # else it was so when it was read, and that was its moment
                assert (LAYOUT.mark(id) in self.tree.nodes) is not enabled

    @rule(number=st.integers(0, WRITERS - 1))
    def lose_session(self, number: int) -> None:
        """What was on its way in it is not done."""
        writer = self.writers[number]
        self.tree.expire(writer.session)
        self.sessions += 1
        writer.session, writer.entry = self.sessions, None

    @invariant()
    def every_row_ends_as_its_writer_means_it(self) -> None:
        """An ephemeral row is of a session of its own writer's: nobody's document lives by another's heartbeat."""
        for path, node in self.tree.nodes.items():
            if path.count("/") == 4 and (row := self.tree.row(path)):
                sessions = [writer.session for writer in self.writers if writer.uid == row.writer]
                assert [node.owner] == ([0] if row.put.principal else sessions)


Writers.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
test_writers = Writers.TestCase


@pytest.mark.parametrize(
    ("id", "segment"), [(".", "%2E"), ("..", "%2E%2E"), ("a/b", "a%2Fb"), ("...", "..."), ("a.b", "a.b")]
)
def test_what_is_no_name_in_zookeeper_is_written_otherwise(id: str, segment: str) -> None:
    assert LAYOUT.row(Instance(id, "x", Address("h", 1))) == f"/fairway/v1/x/{segment}"
    assert LAYOUT.mark(id) == f"/fairway/marks/{segment}"


@given(id=st.text(min_size=1, max_size=128), service=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
def test_every_name_is_legal_and_comes_back(id: str, service: str) -> None:
    put = Put(Instance(id, service, Address("127.0.0.1", 9000)), "ops")
    path = LAYOUT.row(put.instance)
    assert path.isascii()
    assert path.isprintable()
    assert not {".", "..", ""} & set(path.split("/")[1:])
    assert LAYOUT.read(path, document(put, "w")) == Row("w", put)
    assert LAYOUT.read(LAYOUT.mark(id), mark_document(Mark(id, False, "why"), "w")) == Mark(id, False, "why")
