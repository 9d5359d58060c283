"""A reader's copy: it outlives its hub, and drops only what nobody claimed in time."""

from __future__ import annotations

import pytest

from fairway.registry.replica import Replica
from fairway.registry.wire import Free, Heartbeat, Helo, Message, Register, Synced

HUB = "127.0.0.1"


def row(id: str, port: int) -> Register:
    return Register(id, {"role": "classify", "port": port})


def ids(replica: Replica) -> list[str]:
    return [instance.id for instance in replica.instances()]


def synced_with(*rows: Register) -> Replica:
    replica = Replica(hold_seconds=10)
    dump: list[Message] = [Helo("127.0.0.1"), *rows, Synced()]
    for message in dump:
        replica.receive(message, HUB, now=0)
    assert replica.synced
    return replica


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        (row("C", 3), True),
        (row("A", 1), False),  # said again, nothing new
        (row("A", 9), True),
        (Register("C", {"role": "classify"}), False),  # no port: a row nobody can use
        (Free("A"), True),
        (Free("C"), False),
        (Heartbeat(), False),
        (Helo("127.0.0.1"), False),
        (Synced(), False),
    ],
)
def test_it_says_whether_it_changed(message: Message, changed: bool) -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    before = replica.instances()
    assert replica.receive(message, HUB, now=1) is changed
    assert (replica.instances() != before) is changed


def test_a_row_without_a_host_is_at_the_hub() -> None:
    replica = Replica()
    replica.receive(row("A", 1), "10.0.0.7", now=0)
    assert str(replica.instances()[0].address) == "10.0.0.7:1"


def test_nothing_is_dropped_while_the_hub_is_away() -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    replica.disconnected()
    assert not replica.synced
    assert replica.next_deadline() is None
    assert replica.expire(now=1e9) is False
    assert ids(replica) == ["A", "B"]
    assert repr(replica) == "<Replica [2 instances, 2 unconfirmed | stale]>"


def test_a_restarted_hub_is_given_time() -> None:
    replica = synced_with(row("A", 1), row("B", 2), row("C", 3))
    replica.disconnected()
    replica.receive(row("B", 2), HUB, now=100)
    replica.receive(Synced(), HUB, now=100)
    assert ids(replica) == ["A", "B", "C"]
    assert replica.next_deadline() == 110
    assert replica.expire(now=109.9) is False
    assert ids(replica) == ["A", "B", "C"]
    assert replica.expire(now=110) is True
    assert ids(replica) == ["B"], "all that nobody claimed, not only the first"
    assert replica.next_deadline() is None
    assert repr(replica) == "<Replica [1 instances, 0 unconfirmed | synced]>"


def test_claimed_in_time() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    replica.receive(Synced(), HUB, now=100)
    assert replica.receive(row("A", 1), HUB, now=109) is False
    assert replica.expire(now=110) is False
    assert ids(replica) == ["A"]


def test_seaport_hubs_say_synced_again_and_again() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    for now in (100, 105, 109):
        replica.receive(Synced(), HUB, now)
    assert replica.next_deadline() == 110, "the first one counts, or a chatty hub would keep the dead for ever"


def test_a_second_disconnect_begins_the_hold_anew() -> None:
    replica = synced_with(row("A", 1), row("B", 2))
    replica.disconnected()
    replica.receive(row("A", 1), HUB, now=100)
    replica.receive(Synced(), HUB, now=100)
    replica.disconnected()
    assert replica.next_deadline() is None
    replica.receive(Synced(), HUB, now=200)
    assert replica.next_deadline() == 210
    assert replica.expire(now=210) is True
    assert ids(replica) == []


def test_a_new_id_at_the_same_address_replaces_the_unconfirmed_one() -> None:
    replica = synced_with(row("old", 1), row("B", 2))
    replica.disconnected()
    assert replica.receive(row("new", 1), HUB, now=100) is True
    assert ids(replica) == ["B", "new"], "one worker is not counted twice while the old row is held"


def test_a_confirmed_row_is_not_replaced_by_another_at_its_address() -> None:
    replica = synced_with(row("A", 1))
    replica.receive(row("B", 1), HUB, now=1)
    assert ids(replica) == ["A", "B"]


def test_freed_while_unconfirmed() -> None:
    replica = synced_with(row("A", 1))
    replica.disconnected()
    assert replica.receive(Free("A"), HUB, now=100) is True
    replica.receive(Synced(), HUB, now=100)
    assert replica.next_deadline() is None
    assert replica.instances() == []
