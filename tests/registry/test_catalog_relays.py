"""Rows that only a relay speaks of: who may have them, and how it is found out that their workers died."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.registry.catalog import Catalog, Event
from fairway.registry.changes import Dial, Gone, Put, Refused, Released
from fairway.registry.hearsay import AGAIN_SECONDS, DIALS
from fairway.registry.instance import Address, Instance
from fairway.registry.wire import Free, Hello, Register, Synced

HERE, A_HOST, B_HOST = "127.0.0.1", "10.0.0.1", "10.0.0.2"
THERE = Address(A_HOST, 9001)


def row(id: str, port: int = 9001, **more: Any) -> Register:
    return Register(id, {"role": "classify", "port": port, "ttl_seconds": 3600} | more)


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def seen(it: Catalog) -> list[str]:
    return [i.id for i in it.instances()]


def relayed(host: str = HERE, address: str = HERE, **options: Any) -> Catalog:
    """The hub was restarted; b, an npm client, is back first, and names A, which lives. All at 0."""
    it = Catalog(("10.0.0.0/8",), **options)
    it.join("b", host, now=0)
    it.receive("b", row("A", host=address), now=0)
    it.receive("b", Synced(), now=0)
    it.dialled("A", "b", reached=True)
    assert it.owner_of("A") == "b"
    return it


def back(it: Catalog, peer: str = "a", host: str = HERE, now: float = 1) -> list[Event]:
    """The worker itself, over npm's client: it names its rows before its `synced`."""
    it.join(peer, host, now)
    events = it.receive(peer, row("A", host=host), now)
    it.receive(peer, Synced(), now)
    return events


# -- on another host ------------------------------------------------------------------------------------


def test_who_says_so_at_the_address_itself_has_the_row() -> None:
    it = relayed(B_HOST, A_HOST)
    assert back(it, host=A_HOST) == [], "readers see nothing of it"
    assert it.owner_of("A") == "a"
    assert kinds(it.leave("a")) == [Gone, Dial], "the relay is no more than an heir"
    assert seen(it) == []


def test_so_has_a_peer_that_speaks_for_itself_and_is_dialled_no_more() -> None:
    it = relayed(B_HOST, A_HOST)
    it.join("a", A_HOST, now=1)
    it.receive("a", Synced(), now=1)
    [put] = it.receive("a", row("A", words="my own"), now=1)
    assert isinstance(put, Put)
    assert it.owner_of("A") == "a"
    it.beat("b", 40)
    it.beat("a", 40)
    assert it.expire(41) == ([], [])
    assert kinds(it.receive("a", Free("A"), now=42)) == [Gone], "what its owner frees, nobody inherits"


def test_the_relay_whose_dial_came_first_gives_way_to_the_worker() -> None:
    it = Catalog(("10.0.0.0/8",))
    it.join("b", B_HOST, now=0)
    it.receive("b", row("A", host=A_HOST), now=0)
    it.join("a", A_HOST, now=0)
    it.receive("a", Hello(), now=0)
    it.receive("a", row("A"), now=0)
    assert kinds(it.dialled("A", "b", True, THERE)) == [Put]
    it.dialled("A", "a", True, THERE)
    assert it.owner_of("A") == "a"


@pytest.mark.parametrize("more", [{"role": "other"}, {"port": 9002}])
def test_another_row_of_that_name_does_not_have_it(more: dict[str, Any]) -> None:
    it = relayed(B_HOST, A_HOST)
    it.join("a", A_HOST, now=1)
    it.receive("a", Synced(), now=1)
    assert kinds(it.receive("a", row("A", **more), now=1)) == [Refused]


def test_nor_has_a_third_host() -> None:
    it = relayed(B_HOST, A_HOST)
    it.join("c", "10.0.0.3", now=1)
    it.receive("c", Synced(), now=1)
    assert kinds(it.receive("c", row("A", host=A_HOST), now=1)) == [Refused]


def test_what_its_owner_said_himself_no_neighbour_takes() -> None:
    it = Catalog(("10.0.0.0/8",))
    it.join("a", A_HOST, now=0)
    it.receive("a", Synced(), now=0)
    it.receive("a", row("A"), now=0)
    it.owners.known_as("a", "token:a")
    it.join("c", A_HOST, now=0)
    it.owners.known_as("c", "token:c")
    it.receive("c", Synced(), now=0)
    assert kinds(it.receive("c", row("A"), now=0)) == [Refused]


# -- on the same host -----------------------------------------------------------------------------------


def test_the_worker_of_a_relayed_row_dies_on_the_relays_own_host() -> None:
    """thalassa #12, its other half: the relay is connected for ever, and was reached once."""
    it = relayed()
    assert back(it) == []
    assert it.owner_of("A") == "b", "either of them may be the worker"
    assert it.leave("a") == [Dial("A", "b", Address(HERE, 9001))]
    assert seen(it) == ["A"]
    [gone, dial] = it.dialled("A", "b", False, Address(HERE, 9001))
    assert isinstance(gone, Gone)
    assert isinstance(dial, Dial)
    assert seen(it) == []
    assert it.wants(dial), "it waits, as what is relayed does"
    assert kinds(it.dialled("A", "b", True, Address(HERE, 9001))) == [Put]


def test_a_claim_that_is_withdrawn_is_no_proof_but_a_doubt() -> None:
    it = relayed()
    back(it)
    assert kinds(it.receive("a", Free("A"), now=2)) == [Dial]
    assert it.dialled("A", "b", True) == []
    assert seen(it) == ["A"]
    it.join("c", HERE, now=2)
    assert kinds(it.receive("c", Free("A"), now=2)) == [Refused], "who never claimed it cannot even ask"


def test_on_the_same_host_as_well_who_speaks_for_himself_has_it() -> None:
    it = relayed()
    back(it)
    it.receive("a", row("A", words="said again"), now=2)
    assert it.owner_of("A") == "a"
    assert it.leave("b") == []
    assert kinds(it.leave("a")) == [Gone]


def test_a_neighbour_with_another_token_is_an_heir_at_most() -> None:
    it = relayed()
    it.owners.known_as("b", "token:b")
    it.join("c", HERE, now=1)
    it.owners.known_as("c", "token:c")
    it.receive("c", Synced(), now=1)
    assert it.receive("c", row("A", words="mine now"), now=1) == []
    assert it.owner_of("A") == "b"
    assert kinds(it.leave("b")) == [Gone, Dial]


def test_a_row_whose_word_another_hub_has_as_well_is_left_to_it() -> None:
    it = relayed()
    it.foreign([Put(Instance("A", "classify", Address("10.0.0.9", 9001)))])
    assert kinds(it.dialled("A", "b", False)) == [Released, Put, Dial]
    assert it.owner_of("A") == "engine"


# -- again and again ------------------------------------------------------------------------------------


def test_what_is_only_relayed_is_dialled_again_each_time_to_live() -> None:
    it = relayed()
    assert it.next_deadline() == AGAIN_SECONDS
    assert it.expire(AGAIN_SECONDS - 0.1) == ([], [])
    for turn in range(1, 4):
        [dial], _ = it.expire(turn * AGAIN_SECONDS)
        assert isinstance(dial, Dial)
        assert it.wants(dial)
        assert it.dialled("A", "b", True, dial.address) == []
    [dial], _ = it.expire(4 * AGAIN_SECONDS)
    assert isinstance(dial, Dial)
    assert kinds(it.dialled("A", "b", False, dial.address)) == [Gone, Dial]
    assert it.expire(4.5 * AGAIN_SECONDS) == ([], []), "what is not served is the dialler's to try"


def test_without_dialling_back_nothing_is_dialled_again() -> None:
    assert relayed(dial_back=False).expire(29) == ([], [])


def test_a_dial_of_an_address_it_has_left_says_nothing() -> None:
    it = relayed()
    assert kinds(it.receive("b", row("A", 9002), now=1)) == [Put], "it speaks for itself now"
    assert it.dialled("A", "b", False, Address(HERE, 9001)) == []
    assert it.dialled("A", "b", False, Address(HERE, 9002)) == []
    assert seen(it) == ["A"]


def test_thousands_of_relayed_rows_take_turns() -> None:
    rows = 3 * DIALS * int(AGAIN_SECONDS)
    it = Catalog()
    for n in range(rows):
        if n % 1000 == 0:
            it.join(f"hub{n // 1000}", HERE, now=0, hub=True)
        it.receive(f"hub{n // 1000}", row(f"A{n}"), now=0)
        it.dialled(f"A{n}", f"hub{n // 1000}", reached=True)
    asked: list[str] = []
    for step in range(int(4 * 3 * AGAIN_SECONDS)):
        now = AGAIN_SECONDS + step / 4
        for hub in range(rows // 1000):
            it.beat(f"hub{hub}", now)
        events, _ = it.expire(now)
        assert len(events) <= DIALS
        asked += [event.id for event in events if isinstance(event, Dial)]
    assert len(asked) == rows
    assert len(set(asked)) == rows, "none twice before all were asked for once"


def test_a_relay_that_leaves_with_many_claims_does_not_start_them_all() -> None:
    it = relayed()
    for n in range(3 * DIALS):
        it.receive("b", row(f"A{n}"), now=0)
    it.join("hub", HERE, now=0, hub=True)
    for n in range(3 * DIALS):
        it.receive("hub", row(f"B{n}"), now=0)
        it.dialled(f"B{n}", "hub", reached=True)
    it.join("c", HERE, now=1)
    for n in range(3 * DIALS):
        it.receive("c", row(f"B{n}"), now=1)
    assert kinds(it.leave("c")) == [Dial] * DIALS
    assert kinds(it.expire(1.5)[0]) == []
    assert kinds(it.expire(2.1)[0]) == [Dial] * DIALS


# -- how much there may be ------------------------------------------------------------------------------


def test_all_rows_together_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.catalog.MAX_ROWS", 3)
    it = relayed()
    back(it)
    it.receive("b", row("B", host="10.0.0.3"), now=1)
    assert kinds(it.receive("b", row("C"), now=1)) == [Refused], "one is served, one claimed, one waits"
    [refused] = it.register("p", Instance("D", "classify", Address(HERE, 9002)), HERE, now=1)
    assert isinstance(refused, Refused)
    assert refused.reason == "this registry is full: it holds 3 registrations"
    assert kinds(it.receive("b", row("A", words="again"), now=1)) == [Put]
    it.leave("a")
    assert kinds(it.receive("b", row("C"), now=1)) == [Put]


def test_all_documents_together_are_bounded_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Catalog()
    it.join("w", HERE, now=0)
    it.receive("w", Synced(), now=0)
    it.receive("w", row("A", words="x" * 1000), now=0)
    monkeypatch.setattr("fairway.registry.catalog.MAX_BYTES", it._bytes + 500)
    [refused] = it.receive("w", row("B", words="x" * 1000), now=0)
    assert isinstance(refused, Refused)
    assert "bytes together" in refused.reason
    assert kinds(it.receive("w", row("A", words="x" * 2000), now=0)) == [Refused], "nor may one grow"
    assert kinds(it.register("p", Instance("C", "classify", Address(HERE, 1), meta={"x": "x" * 900}), HERE, 0)) == [
        Refused
    ]
    assert kinds(it.receive("w", row("A", state="draining", words="x" * 1000), now=0)) == [Put]
    assert kinds(it.receive("w", row("A"), now=0)) == [Put]
    assert kinds(it.receive("w", row("B", words="x" * 1000), now=0)) == [Put]
    it.leave("w")
    assert (it._bytes, it._hearsay.bytes, it._hearsay.count) == (0, 0, 0)
