"""A reader's copy: it outlives its hub, and drops only what nobody claimed in time."""

from __future__ import annotations

import pytest

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.instance import Address, Instance
from fairway.registry.replica import Replica


def row(id: str, port: int) -> Put:
    return Put(Instance(id, "classify", Address("127.0.0.1", port)))


def gone(id: str) -> Gone:
    return Gone(row(id, 1).instance)


def ids(replica: Replica) -> list[str]:
    return [instance.id for instance in replica.instances()]


def synced_with(*rows: Put) -> Replica:
    replica = Replica(hold_seconds=10)
    for each in rows:
        replica.receive(each)
    replica.confirmed(now=0)
    assert replica.synced
    return replica


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        (row("C", 3), True),
        (row("A", 1), False),  # said again, nothing new
        (row("A", 9), True),
        (Put(row("A", 1).instance, "token:1"), True),
        (gone("A"), True),
        (gone("C"), False),
        (Mark("A", False, "why"), True),
        (Mark("A", True), False),
    ],
)
def test_it_says_what_changed(said: Change, changed: bool) -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    assert bool(replica.receive(said)) is changed
    assert replica.receive(said) == [], "twice is once"


def test_a_mark_is_applied_whenever_it_came() -> None:
    replica = Replica()
    replica.receive(Mark("A", False))
    replica.receive(row("A", 1))
    replica.receive(row("B", 2))
    assert [i.enabled for i in replica.instances()] == [False, True]
    assert replica.receive(Mark("A", True)) == [Mark("A", True)]
    assert [i.enabled for i in replica.instances()] == [True, True]


@pytest.mark.parametrize("hold", [True, False])
def test_the_whole_truth_at_once(hold: bool) -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    replica.receive(Mark("B", False))
    changes = replica.replace([row("B", 2), row("C", 3)], [Mark("C", False)], now=100, hold=hold)
    assert [change for change in changes if isinstance(change, Mark)] == [Mark("B", True), Mark("C", False)]
    assert (gone("A") in changes) is not hold
    assert ids(replica) == (["A", "B", "C"] if hold else ["B", "C"])
    assert replica.next_deadline() == (110 if hold else None)


def test_nothing_is_dropped_while_the_hub_is_away() -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    replica.disconnected()
    assert not replica.synced
    assert replica.next_deadline() is None
    assert replica.expire(now=1e9) == []
    assert ids(replica) == ["A", "B"]
    assert repr(replica) == "<Replica [2 instances, 2 unconfirmed | stale]>"


def test_a_restarted_hub_is_given_time() -> None:
    replica = synced_with(row("A", 1), row("B", 2), row("C", 3))
    replica.disconnected()
    replica.receive(row("B", 2))
    replica.confirmed(now=100)
    assert ids(replica) == ["A", "B", "C"]
    assert replica.next_deadline() == 110
    assert replica.expire(now=109.9) == []
    assert ids(replica) == ["A", "B", "C"]
    assert [type(change) for change in replica.expire(now=110)] == [Gone, Gone]
    assert ids(replica) == ["B"], "all that nobody claimed, not only the first"
    assert replica.next_deadline() is None
    assert repr(replica) == "<Replica [1 instances, 0 unconfirmed | synced]>"


def test_claimed_in_time() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    replica.confirmed(now=100)
    assert replica.receive(row("A", 1)) == []
    assert replica.expire(now=110) == []
    assert ids(replica) == ["A"]


def test_seaport_hubs_say_synced_again_and_again() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    for now in (100, 105, 109):
        replica.confirmed(now=now)
    assert replica.next_deadline() == 110, "the first one counts, or a chatty hub would keep the dead for ever"


def test_a_second_disconnect_begins_the_hold_anew() -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    replica.disconnected()
    replica.receive(row("A", 1))
    replica.confirmed(now=100)
    replica.disconnected()
    assert replica.next_deadline() is None
    replica.confirmed(now=200)
    assert replica.next_deadline() == 210
    assert len(replica.expire(now=210)) == 2
    assert ids(replica) == []


def test_a_new_id_at_the_same_address_replaces_the_unconfirmed_one() -> None:
    replica = synced_with(row("old", 1), row("B", 2))
    replica.disconnected()
    assert [type(change) for change in replica.receive(row("new", 1))] == [Gone, Put]
    assert ids(replica) == ["B", "new"], "one worker is not counted twice while the old row is held"


def test_another_service_at_the_same_address_waits_on() -> None:
    other = Put(Instance("B", "other", Address("127.0.0.1", 1)))
    replica = synced_with(row("A", 1), other)
    replica.disconnected()
    assert replica.receive(row("A", 1)) == []
    assert ids(replica) == ["A", "B"]


def test_a_confirmed_row_is_not_replaced_by_another_at_its_address() -> None:
    replica = synced_with(row("A", 1))
    replica.receive(row("B", 1))
    assert ids(replica) == ["A", "B"]


def test_freed_while_unconfirmed() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    assert len(replica.receive(gone("A"))) == 1
    replica.confirmed(now=100)
    assert replica.next_deadline() is None
    assert replica.instances() == []


def test_two_at_one_address_do_not_flicker_when_all_is_said_again() -> None:
    replica = synced_with(row("A", 1), row("B", 1))
    other = Put(Instance("C", "other", Address("127.0.0.1", 1)))
    replica.receive(other)
    assert replica.replace([row("A", 1), row("B", 1), other], [], now=1, hold=True) == []
    replica.disconnected()
    assert replica.receive(other) == [], "another service's is not what came back"
    assert ids(replica) == ["A", "B", "C"]
