"""What strangers cannot do to rows that are not theirs, nor to the books that are kept of their own."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.registry.catalog import Catalog, Event
from fairway.registry.changes import Dial, Gone, Put, Refused
from fairway.registry.instance import Address, Instance
from fairway.registry.wire import Heartbeat, Hello, Register, Synced

TTL = 10.0


def row(id: str, port: int = 9001, **more: Any) -> Register:
    return Register(id, {"role": "classify", "port": port, "ttl_seconds": TTL} | more)


def instance(id: str) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", 9001))


def joined(it: Catalog, peer: str) -> None:
    it.join(peer, "127.0.0.1", 0)
    it.receive(peer, Synced(), 0)


def seen(it: Catalog) -> dict[str, str]:
    return {i.id: i.state for i in it.instances()}


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_what_is_reached_while_its_owner_is_silent_is_counted_as_silent() -> None:
    for end in ("silence", "a beat", "a hang-up"):
        it = Catalog()
        it.join("a", "127.0.0.1", now=0)
        it.receive("a", Hello(), now=0)
        assert kinds(it.receive("a", row("A"), now=0)) == [Dial]
        it.expire(7)
        it.dialled("A", "a", reached=True)
        assert seen(it) == {"A": "critical"}
        match end:
            case "silence":
                it.expire(TTL + 1)
            case "a beat":
                it.receive("a", Heartbeat(), now=8)
            case "a hang-up":
                it.leave("a")
        assert seen(it) == ({"A": "passing"} if end == "a beat" else {})


def test_only_the_address_that_was_dialled_is_served() -> None:
    it = Catalog()
    it.join("a", "127.0.0.1", now=0)
    it.receive("a", Hello(), now=0)
    [first] = it.receive("a", row("A", 9001), now=0)
    [second] = it.receive("a", row("A", 9002), now=0)
    assert isinstance(first, Dial)
    assert isinstance(second, Dial)
    assert it.dialled("A", "a", True, first.address) == [], "it says 9002 now, and there nobody was reached yet"
    assert kinds(it.dialled("A", "a", True, second.address)) == [Put]


def test_a_stranger_on_the_same_host_cannot_pose_as_a_worker_come_back() -> None:
    it = Catalog(dial_back=False)
    for name, principal in (("a", "token:a"), ("b", "token:b")):
        joined(it, name)
        it.owners.known_as(name, principal)
    it.receive("a", row("A"), now=0)
    assert kinds(it.receive("b", row("A"), now=0)) == [Refused], "with another token"
    it.owners.known_as("b", "token:a")
    assert kinds(it.receive("b", row("A", role="other"), now=0)) == [Refused], "as another service"
    it.receive("b", row("A"), now=0)
    assert it.owner_of("A") == "b"


def test_a_stranger_cannot_have_a_row_of_the_last_life() -> None:
    it = Catalog(dial_back=False)
    it.restore([Put(instance("A"))], until=TTL)
    joined(it, "b")
    assert kinds(it.receive("b", row("A", 9002), now=0)) == [Refused]
    assert kinds(it.receive("b", row("A", role="other"), now=0)) == [Refused]
    joined(it, "a")
    assert kinds(it.receive("a", row("A"), now=0)) == [Put]


def test_who_claims_what_another_hub_held_inherits_it() -> None:
    """seaport's clients name their rows before their `synced`: until then it may be a relay."""
    it = Catalog()
    it.foreign([Put(instance("A"))])
    it.join("a", "127.0.0.1", now=0)
    assert it.receive("a", row("A"), now=0) == []
    it.receive("a", Synced(), now=0)
    assert kinds(it.foreign([Gone(instance("A"))])) == [Gone, Dial]
    assert kinds(it.dialled("A", "a", reached=True)) == [Put]


def test_those_given_up_lately_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.owners.MAX_SERVICES", 10)
    it = Catalog()
    for n in range(30):
        joined(it, f"w{n}")
        it.receive(f"w{n}", row(f"A{n}", role=f"s{n}"), now=0)
    for n in range(30):
        it.beat(f"w{n}", 1.0 * n)
    for n in range(30):
        it.expire(n + TTL + 0.5)
    assert seen(it) == {}
    assert len(it.owners._lost) <= 10
