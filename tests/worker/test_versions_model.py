"""Versions under random lives: published, removed, broken, mended, relabelled, withdrawn, in any order.

What is watched: nothing that is served is given up for nothing, whatever happens; and when nothing more happens, what is
wanted is what is served.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fairway.worker.versions import Policy, State, Versions

NUMBERS = st.integers(1, 5)
POLICIES = st.sampled_from(["latest", "latest:2", "all", "specific:1", "specific:2,4"]).map(Policy.parse)
LABELS = st.dictionaries(st.sampled_from(["stable", "canary"]), NUMBERS)
NEVER = 10_000.0  # seconds: all pauses together are over by then


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.versions = Versions("m")
        self.now = 0.0
        self.there: set[int] = set()
        self.broken: set[int] = set()
        self.loading: int | None = None
        self.unloading: set[int] = set()
        self.policy, self.labels, self.withdrawn = Policy(), dict[str, int](), False
        self.before: dict[int, State] = {}
        self.labelled: dict[str, int] = {}

    # -- what people do --

    @rule(number=NUMBERS, broken=st.booleans())
    def publish(self, number: int, broken: bool) -> None:
        was_there = number in self.there
        self.there.add(number)
        (self.broken.add if broken else self.broken.discard)(number)
        self.versions.aspire(self.there)
        if was_there:
            self.versions.changed(number)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self.there.discard(number)
        self.versions.aspire(self.there)

    @rule(policy=POLICIES, labels=LABELS)
    def configure(self, policy: Policy, labels: dict[str, int]) -> None:
        self.policy, self.labels = policy, labels
        self.versions.configure(policy, labels)

    @rule(withdrawn=st.sampled_from([False, False, False, True]))
    def withdraw(self, withdrawn: bool) -> None:
        self.withdrawn = withdrawn
        self.versions.withdraw() if withdrawn else self.versions.restore()

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if seconds > 50:
            self.versions.retry()

    # -- what the worker does --

    @initialize(numbers=st.sets(NUMBERS))
    def start(self, numbers: set[int]) -> None:
        for number in numbers:
            self.publish(number, broken=False)
        for _ in range(2 * len(numbers)):
            self.load()

    # Few rules, so that each is drawn often: the long ways are those on which something is to be found.
    @rule(works=st.lists(st.sampled_from(["load", "retire", "unload"]), min_size=1, max_size=6))
    def work(self, works: list[str]) -> None:
        for name in works:
            getattr(self, name)()
            self.nothing_is_given_up_for_nothing()

    def load(self) -> None:
        if self.loading is not None:
            if self.loading in self.broken:
                self.versions.failed(self.loading, "broken", self.now)
            else:
                self.versions.loaded(self.loading)
            self.loading = None
        elif (number := self.versions.next_load(self.now)) is not None:
            assert number in self.there
            assert not self.withdrawn
            self.versions.begun(number)
            self.loading = number

    def retire(self) -> None:
        if (number := self.versions.next_unload()) is not None:
            self.versions.retired(number)
            self.unloading.add(number)

    def unload(self) -> None:
        if self.unloading:
            self.versions.unloaded(self.unloading.pop())

    # -- what must hold --

    @property
    def wanted(self) -> set[int]:
        if self.withdrawn:
            return set()
        return self.policy.select(self.there) | (set(self.labels.values()) & self.there)

    @invariant()
    def nothing_is_given_up_for_nothing(self) -> None:
        states = {status.version: status.state for status in self.versions.statuses()}
        served = {number for number, state in states.items() if state == "AVAILABLE"}
        lost = {number for number, state in self.before.items() if state == "AVAILABLE"} - served
        assert not lost & self.wanted
        if lost and not self.withdrawn:
            assert served, "the last one that was served is gone"
            assert served & self.wanted, "what took its place is not what is wanted"
            if lost & self.there:
                assert self.wanted <= served, "it was superseded by what is not served yet"
        self.before = states

    @invariant()
    def labels_name_what_is_served(self) -> None:
        labels = self.versions.labels
        assert set(labels.values()) <= set(self.versions.available)
        assert set(labels) <= set(self.labels)
        for label, number in labels.items():
            assert number in (self.labels[label], self.labelled.get(label)), "it moved to where nobody sent it"
        for label in set(self.labelled) & set(self.labels):
            # Who takes a version's folder away takes its label as well, once another one serves.
            removed = self.labels[label] not in self.there
            assert label in labels or removed or self.withdrawn, "a label that worked works no more"
        for label, target in self.labels.items():
            assert target not in self.versions.available or labels[label] == target
        self.labelled = dict(labels)

    @invariant()
    def wanted_is_what_the_policy_and_the_labels_say(self) -> None:
        assert self.versions.wanted == self.wanted

    @invariant()
    def what_is_loaded_or_unloaded_is_told_so(self) -> None:
        states = {status.version: status.state for status in self.versions.statuses()}
        assert {number for number, state in states.items() if state == "UNLOADING"} == self.unloading
        assert {number for number, state in states.items() if state == "LOADING"} <= {self.loading}
        assert self.versions.loading == (self.loading is not None)

    def teardown(self) -> None:
        """Nothing happens any more: all that is wanted and can be loaded is served, and little else."""
        self.broken = set()
        self.versions.retry()
        self.now += NEVER
        for _ in range(50):
            self.load()
            self.retire()
            self.unload()
        served = set(self.versions.available)
        assert self.loading is None
        if self.withdrawn:
            assert not served
        elif self.wanted:
            assert self.wanted <= served
            assert served - self.wanted <= set(self.versions.labels.values())
        assert self.versions.next_unload() is None
        assert self.versions.next_load(self.now) is None


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
