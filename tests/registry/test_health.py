"""What checks say, with a clock moved by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fairway.registry.check import Check, Status
from fairway.registry.health import (
    DIALS_BEFORE_CRITICAL,
    LOOK_AGAIN_SECONDS,
    WORST,
    Ask,
    Event,
    Expired,
    Health,
    Result,
    Turned,
)
from fairway.registry.instance import Address, Instance
from fairway.registry.lease import HOLD_SECONDS

TTL = Check("ttl", "ttl", ttl_seconds=10.0)
TCP = Check("tcp", "tcp", "127.0.0.1:9001", interval_seconds=5.0)


def instance(*checks: Check, id: str = "w1", state: str = "critical", service: str = "classify") -> Instance:
    return Instance(id, service, Address("127.0.0.1", 9001), state=state, checks=checks)  # type: ignore[arg-type]


def tracked(*checks: Check, now: float = 0.0, shared: bool = False, state: str = "critical") -> Health:
    health = Health(shared)
    health.track(instance(*checks, state=state), now)
    return health


def asks(events: list[Event]) -> list[str]:
    return [event.check.id for event in events if isinstance(event, Ask)]


# -- who is asked --------------------------------------------------------------------------------------------------


def test_a_new_check_is_asked_at_once_then_an_interval_after_each_answer() -> None:
    health = tracked(TCP)
    assert health.next_deadline() == 0.0
    [ask] = health.due(0.0, room=1)
    assert ask == Ask("w1", TCP, Address("127.0.0.1", 9001))
    assert health.due(100.0, room=1) == [], "one question at a time"
    assert health.next_deadline() is None
    assert health.report("w1", TCP, Result("passing", "fine"), 2.0) == [Turned("w1")]
    assert health.next_deadline() == 7.0
    assert health.due(6.9, room=1) == []
    assert asks(health.due(7.0, room=1)) == ["tcp"]
    assert health.report("w1", TCP, Result("passing", "fine"), 7.0) == [], "nothing new"


def test_no_more_questions_than_there_is_room_for_but_clocks_run_on() -> None:
    health = tracked(TCP, replace(TCP, id="tcp2"), replace(TTL, status="passing"))
    assert health.next_deadline(room=0) == 10.0
    assert health.due(9.0, room=0) == []
    assert health.due(10.0, room=0) == [Turned("w1")], "its time is over, whatever else is to be done"
    assert asks(health.due(10.0, room=1)) == ["tcp"]
    assert asks(health.due(10.0, room=5)) == ["tcp2"]


def test_many_at_a_time_are_spread_over_their_interval() -> None:
    health = Health()
    for n in range(200):
        health.track(instance(replace(TCP, id=str(n)), id=str(n)), 0.0, spread=True)
    first = len(health.due(1.0, room=1000))
    assert 10 < first < 90, "about a fifth in the first of five seconds"
    assert first + len(health.due(5.0, room=1000)) == 200


def test_the_answer_to_a_question_that_is_no_longer_asked() -> None:
    health = tracked(TCP)
    health.due(0.0, room=1)
    other = replace(TCP, target="127.0.0.1:9002")
    health.track(instance(other), 1.0)
    assert health.report("w1", TCP, Result("passing"), 1.5) == []
    assert health.statuses("w1") == {"tcp": "critical"}
    assert health.due(1.5, room=1) == [Ask("w1", other, Address("127.0.0.1", 9001))]
    health.forget("w1")
    assert health.report("w1", other, Result("passing"), 2.0) == []
    assert health.next_deadline() is None


# -- what it means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_check_is_critical_until_it_was_asked(kind: str) -> None:
    check = replace(TCP, kind=kind)  # type: ignore[arg-type]
    assert tracked(check).state("w1") == "critical"
    assert tracked(replace(check, status="passing")).state("w1") == "passing", "unless its owner says otherwise"


def test_what_is_served_already_is_well_until_we_know_better() -> None:
    health = tracked(TCP, TTL, state="passing")
    assert health.state("w1") == "passing"
    health.due(0.0, room=1)
    assert health.report("w1", TCP, Result("critical", "refused"), 1.0) == [Turned("w1")]
    assert health.state("w1") == "critical"


@given(st.lists(st.sampled_from(("passing", "warning", "critical")), min_size=1, max_size=5))
def test_the_worst_counts_and_a_warning_is_served(statuses: list[Status]) -> None:
    health = tracked(*(Check(str(n), "ttl", ttl_seconds=1.0) for n in range(len(statuses))))
    for n, status in enumerate(statuses):
        health.said(str(n), Result(status), 0.0)
    assert health.state("w1") == ("critical" if "critical" in statuses else "passing")


def test_the_first_answer_is_always_news() -> None:
    """The catalog holds a restored row for unheard of until then."""
    health = tracked(replace(TCP, status="passing"), state="passing")
    health.due(0.0, room=1)
    assert health.report("w1", TCP, Result("passing"), 0.0) == [Turned("w1")]


def test_thresholds() -> None:
    check = replace(TCP, successes_before_passing=2, failures_before_critical=3)
    health, now, seen = tracked(check), 0.0, []
    for status in ("passing", "passing", "critical", "critical", "warning", "critical", "critical", "critical"):
        health.due(now, room=1)
        health.report("w1", check, Result(status), now)
        seen.append(health.results("w1")["tcp"].status)
        now += 5.0
    assert seen == ["critical", "passing", "passing", "passing", "warning", "warning", "warning", "critical"]


def test_output_alone_is_no_turn_but_seen() -> None:
    health = tracked(TTL)
    health.said("ttl", Result("passing", "one"), 0.0)
    version, of_it = health.version("classify"), health.version_of("w1")
    assert health.said("ttl", Result("passing", "two"), 1.0) == []
    assert health.results("w1")["ttl"].output == "two"
    assert (health.version("classify") > version, health.version_of("w1") > of_it) == (True, True)
    version = health.version("classify")
    health.said("ttl", Result("passing", "two"), 2.0)
    assert health.version("classify") == version


# -- the owner's word ----------------------------------------------------------------------------------------------


def test_a_ttl_runs_from_the_last_word() -> None:
    health = tracked(TTL)
    assert health.said("ttl", Result("passing", "hi"), 0.0) == [Turned("w1")]
    assert health.said("ttl", Result("passing", "hi"), 9.0) == []
    assert health.due(18.9, room=1) == []
    assert health.due(19.0, room=1) == [Turned("w1")]
    assert health.results("w1")["ttl"] == Result("critical", "TTL expired")
    assert health.due(1000.0, room=1) == [], "once"
    assert health.said("ttl", Result("warning"), 1001.0) == [Turned("w1")]
    assert health.state("w1") == "passing"


@pytest.mark.parametrize("shared", [True, False])
def test_the_document_of_before_does_not_wake_the_silent(shared: bool) -> None:
    """What readers are told of its end holds the document of its better days."""
    said = replace(TTL, status="passing")
    health = tracked(said, shared=shared, state="passing")
    health.said("ttl", Result("passing"), 0.0)
    assert Turned("w1") in health.due(10.0, room=0)
    health.track(instance(said), 10.0)
    assert health.state("w1") == "critical"


def test_only_a_ttl_check_is_said() -> None:
    health = tracked(TCP)
    assert health.said("tcp", Result("passing"), 0.0) == []
    assert health.said("nobody", Result("passing"), 0.0) == []
    assert health.state("w1") == "critical"


def test_a_talkative_owner_costs_no_memory() -> None:
    health = tracked(replace(TTL, ttl_seconds=1e6))
    for n in range(10_000):
        health.said("ttl", Result("passing"), n / 1000)
    assert len(health._clocks._heap) == 1


# -- registered again ----------------------------------------------------------------------------------------------


def test_registering_again_keeps_status_output_and_rhythm() -> None:
    health = tracked(TCP, TTL)
    health.due(0.0, room=1)
    health.report("w1", TCP, Result("passing", "fine"), 0.0)
    health.said("ttl", Result("passing", "hi"), 0.0)
    health.track(instance(TCP, TTL, state="passing"), 3.0)
    assert health.results("w1") == {"tcp": Result("passing", "fine"), "ttl": Result("passing", "hi")}
    assert health.next_deadline() == 5.0
    health.track(instance(replace(TCP, interval_seconds=7.0), state="passing"), 4.0)
    assert health.results("w1") == {"tcp": Result("passing", "fine")}
    assert asks(health.due(4.0, room=1)) == ["tcp"], "another question is asked at once"


def test_a_moved_instance_is_asked_at_once() -> None:
    health = tracked(TTL, TCP)
    health.due(0.0, room=1)
    health.report("w1", TCP, Result("passing"), 0.0)
    health.track(replace(instance(TTL, TCP), address=Address("127.0.0.1", 9002)), 1.0)
    assert asks(health.due(1.0, room=1)) == ["tcp"]


def test_a_check_id_is_the_first_comers() -> None:
    health = tracked(TTL)
    health.track(instance(TTL, id="w2"), 0.0)
    assert health.find("ttl") == ("w1", TTL)
    health.forget("w2")
    assert health.find("ttl") == ("w1", TTL)
    health.forget("w1")
    assert health.find("ttl") is None


def test_another_service_under_the_same_id() -> None:
    health = tracked(TTL)
    health.track(instance(TTL, service="other"), 0.0)
    assert len(health) == 1
    health.forget("w1")
    assert repr(health) == "<Health [0 checks of 0 instances, 0 critical]>"


# -- deregistered --------------------------------------------------------------------------------------------------


def test_critical_for_too_long() -> None:
    check = replace(TCP, deregister_after_seconds=60.0)
    health, now = tracked(check), 0.0
    while now < 60.0:
        for event in health.due(now, room=1):
            assert isinstance(event, Ask), now
            health.report("w1", check, Result("critical", "refused"), now)
        now += 1.0
    assert Expired("w1") in health.due(60.0, room=1)
    assert Expired("w1") not in health.due(60.0 + LOOK_AGAIN_SECONDS / 2, room=1)
    assert Expired("w1") in health.due(60.0 + LOOK_AGAIN_SECONDS, room=1), "it is still here: again"


def test_well_for_a_moment_begins_the_time_anew() -> None:
    check = replace(TTL, deregister_after_seconds=60.0)
    health = tracked(check)
    health.said("ttl", Result("passing"), 50.0)
    assert health.due(60.0, room=1) == [Turned("w1")]
    assert health.due(119.9, room=1) == []
    assert health.due(120.0, room=1) == [Expired("w1")]


def test_many_ill_at_once_are_kept_for_a_while() -> None:
    check = replace(TTL, deregister_after_seconds=60.0)
    health = Health()
    for n in range(10):
        health.track(instance(replace(check, id=f"c{n}"), id=f"w{n}"), 0.0)
    for n in range(5, 10):
        health.said(f"c{n}", Result("passing"), 0.0)
    now = 60.0
    while now < 60.0 + HOLD_SECONDS:
        for n in range(5, 10):
            health.said(f"c{n}", Result("passing"), now)
        assert Expired not in map(type, health.due(now, room=1)), "five of ten: rather it is we who are blind"
        now += 5.0
    gone = health.due(now, room=1)
    assert sorted(event.id for event in gone) == [f"w{n}" for n in range(5)], "not for ever"
    assert {type(event) for event in gone} == {Expired}


# -- beside other registries ---------------------------------------------------------------------------------------


def test_who_does_not_hear_the_owner_dials_it() -> None:
    health = tracked(replace(TTL, status="passing"), shared=True, state="passing")
    [ask] = health.due(0.0, room=1)
    assert isinstance(ask, Ask)
    assert health.report("w1", ask.check, Result("passing", "TCP connect"), 0.0) == [Turned("w1")]
    assert health.results("w1")["ttl"].output == "its owner talks to another registry; TCP connect"
    now = 0.0
    for _ in range(DIALS_BEFORE_CRITICAL):
        assert health.state("w1") == "passing"
        now += TTL.ttl_seconds / 3
        health.due(now, room=1)
        health.report("w1", ask.check, Result("critical", "refused"), now)
    assert health.state("w1") == "critical", "the dead say nothing to anybody"


def test_what_the_owner_said_elsewhere_counts_here() -> None:
    health = tracked(replace(TTL, status="passing"), shared=True, state="passing")
    health.due(0.0, room=1)
    health.track(instance(TTL, state="passing"), 1.0)  # it said `fail` there
    assert health.state("w1") == "critical"
    health.report("w1", TTL, Result("passing"), 1.0)
    assert health.state("w1") == "critical", "that it listens is not that it is well"
    assert health.vouched("w1") == {}


def test_what_it_says_here_others_are_to_know() -> None:
    health = tracked(TTL, shared=True)
    health.due(0.0, room=1)
    health.said("ttl", Result("passing"), 1.0)
    assert health.vouched("w1") == {"ttl": "passing"}
    health.track(instance(TTL, state="passing"), 2.0)  # an older word of the document's
    assert health.state("w1") == "passing"
    assert health.due(10.9, room=1) == [], "nobody is dialled who talks to us"
    assert Turned("w1") in health.due(11.0, room=0)
    assert health.vouched("w1") == {"ttl": "critical"}
    health.track(instance(TTL), 11.0)  # as we wrote it
    health.track(instance(replace(TTL, status="passing")), 12.0)  # it talks to another one now
    assert health.state("w1") == "passing"
    assert health.vouched("w1") == {}


def test_what_another_one_wrote_meanwhile_is_written_over() -> None:
    health = tracked(replace(TTL, status="passing"), shared=True, state="passing")
    assert health.said("ttl", Result("passing"), 1.0) == [Turned("w1")]
    assert health.said("ttl", Result("passing"), 2.0) == []
    health.track(instance(TTL, state="passing"), 3.0)  # there it fell silent: it talks to us now
    assert health.state("w1") == "passing"
    assert health.said("ttl", Result("passing"), 4.0) == [Turned("w1")]


# -- all of it -----------------------------------------------------------------------------------------------------

IDS, STATUSES = st.sampled_from(("a", "b", "c")), st.sampled_from(("passing", "warning", "critical"))


class Machine(RuleBasedStateMachine):
    """Random lives of three instances, one ttl and one tcp check each, against the plainest bookkeeping."""

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        self.health, self.now, self.shared = Health(shared), 0.0, shared
        self.here: dict[str, Instance] = {}
        self.flying: dict[str, Ask] = {}
        self.asked_at: dict[str, float] = {}
        self.said_at: dict[str, float] = {}
        self.told: dict[str, str] = {}  # what the catalog thinks

    def settle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Ask):
                assert event.check.id not in self.flying, "one question at a time"
                assert self.now - self.asked_at.get(event.check.id, -99.0) >= 3.0, "not more often than the interval"
                self.flying[event.check.id] = event
            elif isinstance(event, Turned):
                self.told[event.id] = self.health.state(event.id)

    @rule(id=IDS, status=STATUSES)
    def register(self, id: str, status: Status) -> None:
        if id in self.here:
            return
        tcp = Check(f"{id}.tcp", "tcp", "x:1", interval_seconds=3.0)
        checks = (Check(f"{id}.ttl", "ttl", ttl_seconds=10.0, status=status), tcp)
        self.here[id] = instance(*checks, id=id)
        self.health.track(self.here[id], self.now)
        self.told[id] = "critical"
        self.said_at[f"{id}.ttl"] = self.now

    @rule(id=IDS)
    def told_again(self, id: str) -> None:
        """As readers are, with the document as it ever was."""
        if id in self.here:
            self.health.track(replace(self.here[id], state=self.told[id]), self.now)  # type: ignore[arg-type]

    @rule(id=IDS)
    def remove(self, id: str) -> None:
        self.health.forget(id)
        self.here.pop(id, None)
        for each in (f"{id}.ttl", f"{id}.tcp"):
            for book in (self.flying, self.asked_at, self.said_at):
                book.pop(each, None)

    @rule(id=IDS, status=STATUSES)
    def say(self, id: str, status: Status) -> None:
        self.flying.pop(f"{id}.ttl", None)
        self.said_at[f"{id}.ttl"] = self.now
        self.settle(self.health.said(f"{id}.ttl", Result(status), self.now))

    @rule(status=STATUSES)
    def answer(self, status: Status) -> None:
        for name, ask in list(self.flying.items()):
            del self.flying[name]
            self.asked_at[name] = self.now
            self.settle(self.health.report(ask.id, ask.check, Result(status), self.now))

    @rule(seconds=st.integers(0, 12), room=st.integers(0, 4))
    def wait(self, seconds: int, room: int) -> None:
        self.now += seconds
        events = self.health.due(self.now, room)
        assert len(asks(events)) <= room
        self.settle(events)

    @invariant()
    def the_catalog_knows(self) -> None:
        for id in getattr(self, "here", {}):
            assert self.told[id] == self.health.state(id), "no turn goes unsaid"
            worst = max(self.health.statuses(id).values(), key=WORST.__getitem__)
            assert self.health.state(id) == ("critical" if worst == "critical" else "passing")

    @invariant()
    def nobody_silent_is_well(self) -> None:
        if getattr(self, "here", None) and not self.shared:
            self.settle(self.health.due(self.now, room=0))
            for id in self.here:
                if self.now - self.said_at.get(f"{id}.ttl", -99.0) >= 10.0:
                    assert self.health.statuses(id)[f"{id}.ttl"] == "critical"

    @invariant()
    def something_is_due_while_anybody_is_here(self) -> None:
        waiting = [f"{id}.tcp" for id in getattr(self, "here", {}) if f"{id}.tcp" not in self.flying]
        if waiting:
            due = self.health.next_deadline()
            assert due is not None
            assert due <= self.now + 3.0


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
