"""What waits to be written: only last words, in order, no key twice in one batch, and everybody is told in the end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.outbox import Entry, Outbox, Receipt

IDS = st.sampled_from("abcd")


def instance(id: str, weight: int = 1) -> Instance:
    return Instance(id, "s", Address("h", 1), weight=weight)


def touched(entry: Entry) -> set[str]:
    """As etcd's: the end of a row ends its mark."""
    kind, id = entry.name
    return {id, f"mark {id}"} if isinstance(entry.change, Gone) else {f"mark {id}" if kind == "mark" else id}


class Machine(RuleBasedStateMachine):
    """The model: an engine that applies all words at once; the outbox must bring the real one to the same state."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.wanted: dict[str, object] = {}
        self.engine: dict[str, object] = {}
        self.flight: list[Entry] = []
        self.asked, self.answered = 0, list[Exception | None]()
        self.weight = 1

    @staticmethod
    def apply(state: dict[str, object], change: Change) -> None:
        match change:
            case Put(instance):
                state[instance.id] = instance.weight
            case Gone(instance):
                state.pop(instance.id, None)
                state.pop(f"mark {instance.id}", None)
            case Mark(id, enabled, reason):
                state.pop(f"mark {id}", None)
                if not enabled:
                    state[f"mark {id}"] = reason

    @rule(words=st.lists(st.tuples(st.sampled_from(["put", "gone", "off", "on"]), IDS), min_size=1, max_size=4))
    def write(self, words: list[tuple[str, str]]) -> None:
        self.asked += 1
        receipt = Receipt(len(words), self.answered.append)
        for kind, id in words:
            self.weight += 1
            change: Change
            match kind:
                case "put":
                    change = Put(instance(id, self.weight))
                case "gone":
                    change = Gone(instance(id))
                case _:
                    change = Mark(id, kind == "on", str(self.weight))
            self.apply(self.wanted, change)
            self.outbox.add(Entry(change, b"", [receipt]))

    @rule(id=IDS)
    def say_again(self, id: str) -> None:
        if isinstance(weight := self.wanted.get(id), int):
            self.outbox.add(Entry(Put(instance(id, weight)), again=True))

    @rule(most=st.integers(1, 5))
    def take(self, most: int) -> None:
        if not self.flight:
            self.flight = self.outbox.take(most, touched)
            keys = [key for entry in self.flight for key in touched(entry)]
            assert len(keys) == len(set(keys))
            assert len(keys) <= max(most, 2)

    @rule()
    def arrive(self) -> None:
        for entry in self.flight:
            if not (entry.again and entry.name[1] in self.engine):
                self.apply(self.engine, entry.change)
            entry.settle()
            entry.settle()
        self.flight = []

    @rule(taken=st.booleans(), some=st.integers(0, 3))
    def fail(self, taken: bool, some: int) -> None:
        """The answer is lost, or the question is; of some it is known what became of them."""
        for number, entry in enumerate(self.flight):
            if taken and not entry.again:
                self.apply(self.engine, entry.change)
                if number < some:
                    entry.settle()
        self.outbox.put_back(self.flight)
        self.flight = []

    @invariant()
    def bounded(self) -> None:
        assert len(self.outbox) <= 8

    @invariant()
    def nobody_is_told_twice(self) -> None:
        assert len(self.answered) <= self.asked

    def teardown(self) -> None:
        self.arrive()
        while self.outbox:
            self.flight = self.outbox.take(3, touched)
            assert self.flight
            self.arrive()
        assert self.engine == self.wanted
        assert self.answered == [None] * self.asked


TestOutbox = Machine.TestCase
TestOutbox.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_who_waits_is_told_why_and_what_waits_stays() -> None:
    outbox, told = Outbox(), list[Exception | None]()
    error = ValueError("no")
    outbox.add(Entry(Put(instance("a")), b"", [Receipt(1, told.append)]))
    outbox.tell(error)
    assert told == [error]
    (entry,) = outbox.take(9, touched)
    entry.settle()
    assert told == [error]


def test_at_the_end_everybody_is_told() -> None:
    outbox, told = Outbox(), list[Exception | None]()
    receipt = Receipt(2, told.append)
    outbox.add(Entry(Put(instance("a")), b"", [receipt]))
    outbox.add(Entry(Put(instance("b")), b"", [receipt]))
    outbox.close(error := ValueError("over"))
    assert told == [error]
    assert not outbox
