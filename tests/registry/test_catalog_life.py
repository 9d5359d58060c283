"""Leases, doubt and inheritance: what becomes of rows whose owners fall silent, die, come back, or are spoken for."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.registry.catalog import Catalog, Event
from fairway.registry.changes import Dial, Gone, Mark, Put, Refused, Released
from fairway.registry.check import Check
from fairway.registry.instance import Address, Instance
from fairway.registry.lease import HOLD_SECONDS
from fairway.registry.wire import Free, Heartbeat, Hello, Register, Synced

TTL = 10.0


def row(id: str, port: int = 9001, **more: Any) -> Register:
    return Register(id, {"role": "classify", "port": port, "ttl_seconds": TTL} | more)


def instance(id: str, port: int = 9001, **more: Any) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", port), **more)


def joined(it: Catalog, peer: str, now: float = 0, host: str = "127.0.0.1") -> None:
    it.join(peer, host, now)
    it.receive(peer, Synced(), now)


def seen(it: Catalog) -> dict[str, str]:
    """id -> state as readers see it, with a question mark for suspects."""
    return {i.id: i.state + ("?" if i.suspect else "") for i in it.instances()}


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def cluster(size: int, services: int = 1) -> Catalog:
    """`size` peers of one row each, all heard at 0."""
    it = Catalog()
    for n in range(size):
        joined(it, f"w{n}")
        it.receive(f"w{n}", row(f"A{n}", 9000 + n, role=f"s{n % services}"), now=0)
    return it


def beat(it: Catalog, peers: range, now: float) -> None:
    for n in peers:
        it.beat(f"w{n}", now)


# -- silence --------------------------------------------------------------------------------------------


def test_two_missed_beats_make_critical_and_one_beat_heals() -> None:
    it = cluster(2)
    beat(it, range(1, 2), now=6)
    assert it.expire(6.6) == ([], [])
    [fallen], lost = it.expire(6.7)
    assert isinstance(fallen, Put)
    assert (fallen.instance.id, fallen.instance.state, lost) == ("A0", "critical", [])
    [healed] = it.receive("w0", Heartbeat(), now=9.9)
    assert isinstance(healed, Put)
    assert seen(it) == {"A0": "passing", "A1": "passing"}
    beat(it, range(1, 2), now=12)
    assert it.expire(16.5) == ([], []), "and the whole ttl begins anew"


def test_few_silent_ones_are_given_up_at_their_ttl() -> None:
    it = cluster(30)
    beat(it, range(4, 30), now=5)
    it.expire(7)
    events, lost = it.expire(10)
    assert lost == ["w0", "w1", "w2", "w3"], "four are few, whatever their share"
    assert kinds(events) == [Gone] * 4


def test_five_of_many_are_few_as_well() -> None:
    it = cluster(34)  # 5 of 34 are 14.7 %
    beat(it, range(5, 34), now=5)
    it.expire(7)
    assert len(it.expire(10)[1]) == 5


def test_many_at_once_are_held_as_suspects_ranked_last_and_still_served() -> None:
    it = cluster(33)  # 5 of 33 are 15.2 %
    beat(it, range(5, 33), now=5)
    events, lost = it.expire(7)
    assert (kinds(events), lost) == ([Put] * 5, [])
    silent = [f"A{n}" for n in range(5)]
    assert {id: seen(it)[id] for id in silent} == dict.fromkeys(silent, "passing?")
    assert [i.id for i in it.instances()][-5:] == silent, "suspects come last"
    for now in (10, 60, 300):
        beat(it, range(5, 33), now=now)
        assert it.expire(now) == ([], []), "held"


def test_a_hold_ends_for_each_that_is_heard_and_after_five_minutes_for_the_rest() -> None:
    it = cluster(10)
    it.expire(7)
    it.expire(10)
    assert set(seen(it).values()) == {"passing?"}, "all of them fell silent: the list does not empty"
    beat(it, range(5), now=20)
    assert list(seen(it).values()) == ["passing"] * 5 + ["passing?"] * 5
    for now in range(22, 310, 3):
        beat(it, range(5), now=now)
        assert it.expire(now) == ([], [])
    events, lost = it.expire(TTL + HOLD_SECONDS + 0.1)
    assert lost == [f"w{n}" for n in range(5, 10)]
    assert kinds(events) == [Gone] * 5
    assert seen(it) == {f"A{n}": "passing" for n in range(5)}


def test_when_most_are_back_the_few_that_stayed_away_are_given_up() -> None:
    it = cluster(10)
    it.expire(7)
    it.expire(10)
    beat(it, range(1, 10), now=12)
    assert seen(it)["A0"] == "critical", "one of ten is no mass"
    events, lost = it.expire(13.1)
    assert lost == ["w0"]
    assert kinds(events) == [Gone]


def test_dribbling_deaths_count_together() -> None:
    it = cluster(20)
    beat(it, range(3, 20), now=4)
    it.expire(7)
    assert len(it.expire(10)[1]) == 3, "three alone are few"
    beat(it, range(5, 20), now=10)
    it.expire(11)
    _, lost = it.expire(14.5)
    assert lost == [], "two more within the same ttl: five of twenty"
    assert list(seen(it).values())[-2:] == ["passing?"] * 2


def test_one_service_in_doubt_does_not_hold_another() -> None:
    it = cluster(40, services=2)
    beat(it, range(3, 40, 2), now=5)  # all of s0 fall silent, and one of s1
    it.expire(7)
    _, lost = it.expire(10)
    assert lost == ["w1"]
    assert {state for id, state in seen(it).items() if int(id[1:]) % 2 == 0} == {"passing?"}


def test_a_lost_connection_is_proof_whatever_the_number() -> None:
    it = cluster(10)
    events = [event for n in range(9) for event in it.leave(f"w{n}")]
    assert kinds(events) == [Gone] * 9
    assert seen(it) == {"A9": "passing"}


# -- restart --------------------------------------------------------------------------------------------


def restored(*puts: Put | Mark, dial_back: bool = True) -> Catalog:
    it = Catalog(epoch=7, dial_back=dial_back)
    it.restore(puts, until=TTL)
    return it


def test_what_the_last_life_knew_is_suspect_until_its_owner_is_back() -> None:
    it = restored(Put(instance("A")), Put(instance("B", 9002)), Mark("B", False, "being mended"))
    assert it.uncertain
    assert seen(it) == {"A": "passing?", "B": "passing?"}
    assert [i.enabled for i in it.instances()] == [True, False]
    it.join("w", "127.0.0.1", now=1)
    it.receive("w", Hello(), now=1)
    assert kinds(it.receive("w", row("A"), now=1)) == [Put], "back on its own connection, at its own address"
    assert seen(it) == {"B": "passing?", "A": "passing"}
    it.beat("w", now=9)
    events, _ = it.expire(TTL)
    assert kinds(events) == [Gone, Mark]
    assert seen(it) == {"A": "passing"}
    assert not it.uncertain


def test_durable_rows_outlive_the_doubt_and_are_judged_by_their_checks() -> None:
    check = Check("service:A", "tcp", "127.0.0.1:9001")
    it = restored(Put(instance("A", checks=(check,)), "token:1"), Put(instance("B", 9002), "token:1"))
    assert seen(it) == {"A": "passing?", "B": "passing?"}, "the first word of a check is not held against it"
    assert kinds(it.judge("A", "critical")) == [Put]
    assert seen(it) == {"A": "critical", "B": "passing?"}
    events, _ = it.expire(TTL)
    assert kinds(events) == [Put]
    assert seen(it) == {"A": "critical", "B": "passing"}


def test_the_index_never_goes_backwards_over_a_restart() -> None:
    first = Catalog(epoch=7)
    joined(first, "w")
    first.receive("w", row("A"), now=0)
    before = first.index_of("classify")
    assert first.knows_index(before)
    second = Catalog(epoch=8)
    assert second.index_of("classify") > before
    assert not second.knows_index(before), "who waits with it is answered at once"


def test_the_index_is_a_services_own_and_outlives_it() -> None:
    it = Catalog()
    joined(it, "w")
    it.receive("w", row("A"), now=0)
    mine = it.index_of("classify")
    it.receive("w", row("X", role="other"), now=0)
    assert it.index_of("classify") == mine
    assert it.index_of() == it.index_of("other") > mine
    it.receive("w", Free("A"), now=0)
    assert it.index_of("classify") > mine, "gone is a change"
    gone = it.index_of("classify")
    it.receive("w", row("A"), now=0)
    assert it.index_of("classify") > gone


# -- relays ---------------------------------------------------------------------------------------------


def test_a_zombie_relayed_by_a_peer_that_comes_back_is_not_served() -> None:
    """thalassa #12: hub down, worker A dies, hub back, worker B announces A as well."""
    it = Catalog()
    it.join("b", "127.0.0.1", now=0)
    events = it.receive("b", row("A", 9001), now=0) + it.receive("b", row("B", 9002), now=0)
    assert kinds(events) == [Dial, Dial]
    it.receive("b", Synced(), now=0)
    assert seen(it) == {}
    assert it.dialled("A", "b", reached=False) == []
    assert kinds(it.dialled("B", "b", reached=True)) == [Put]
    assert seen(it) == {"B": "passing"}
    assert it.waits("A", "b"), "it may only not listen yet"
    it.leave("b")
    assert not it.waits("A", "b")
    assert it.dialled("A", "b", reached=True) == [], "nobody vouches for it any more"


def test_a_zombie_of_the_last_life_is_not_confirmed_by_a_relay() -> None:
    it = restored(Put(instance("A")))
    it.join("b", "127.0.0.1", now=1)
    [dial] = it.receive("b", row("A"), now=1)
    assert isinstance(dial, Dial)
    assert seen(it) == {"A": "passing?"}
    events, _ = it.expire(TTL)
    assert kinds(events) == [Gone]


def test_a_relay_never_takes_a_row_from_its_living_owner_but_inherits_it() -> None:
    it = Catalog()
    joined(it, "a")
    it.receive("a", row("A"), now=0)
    it.join("b", "127.0.0.1", now=1)
    assert it.receive("b", row("A"), now=1) == []
    assert it.owner_of("A") == "a"
    events = it.leave("a")
    assert kinds(events) == [Gone, Dial], "not served on hearsay, not even for a moment"
    assert kinds(it.dialled("A", "b", reached=True)) == [Put]
    assert it.owner_of("A") == "b"


def test_what_its_owner_frees_nobody_inherits() -> None:
    it = Catalog()
    joined(it, "a")
    it.receive("a", row("A"), now=0)
    it.join("b", "127.0.0.1", now=1)
    it.receive("b", row("A"), now=1)
    assert kinds(it.receive("a", Free("A"), now=2)) == [Gone]
    assert not it.waits("A", "b")


def test_a_relay_that_frees_only_forgets() -> None:
    it = Catalog()
    joined(it, "a")
    it.receive("a", row("A"), now=0)
    it.join("b", "127.0.0.1", now=1)
    it.receive("b", row("A"), now=1)
    assert it.receive("b", Free("A"), now=2) == []
    assert seen(it) == {"A": "passing"}
    assert kinds(it.leave("a")) == [Gone]


def test_a_hub_relays_for_ever() -> None:
    it = Catalog()
    joined(it, "a")
    it.receive("a", row("A"), now=0)
    joined(it, "hub")
    it.receive("hub", row("H", 9009, role="seaport@2.0.9"), now=0)
    assert it.receive("hub", row("A"), now=1) == [], "said after its `synced`, and yet no owner's word"
    assert it.owner_of("A") == "a"
    it.receive("hub", Synced(), now=1)
    assert kinds(it.receive("hub", row("B", 9002), now=2)) == [Dial]
    it.join("dialled", "127.0.0.1", now=2, hub=True)
    it.receive("dialled", Synced(), now=2)
    assert kinds(it.receive("dialled", row("C", 9003), now=2)) == [Dial]


def test_a_peer_of_ours_and_a_foreign_address_are_dialled_a_seaport_clients_own_is_not() -> None:
    it = Catalog(("10.0.0.0/8",))
    it.join("ours", "127.0.0.1", now=0)
    it.receive("ours", Hello(), now=0)
    joined(it, "theirs")
    assert kinds(it.receive("ours", row("A"), now=0)) == [Dial]
    assert kinds(it.receive("theirs", row("B", 9002), now=0)) == [Put], "it registers first, and listens then"
    assert kinds(it.receive("theirs", row("C", 9003, host="10.0.0.7"), now=0)) == [Dial]
    it.dialled("A", "ours", reached=True)
    assert kinds(it.receive("ours", row("A", state="draining"), now=1)) == [Put], "known there: not dialled again"
    assert kinds(it.receive("ours", row("A", 9009), now=2)) == [Gone, Dial], "moved: not served until reached"


def test_an_owner_can_say_nothing_about_what_is_not_its_to_say() -> None:
    it = Catalog()
    joined(it, "w")
    it.receive(
        "w", row("A", enabled=False, suspect=True, checks=[{"id": "x", "kind": "http", "target": "http://x/"}]), 0
    )
    [found] = it.instances()
    assert (found.enabled, found.suspect, found.checks) == (True, False, ())


# -- principals, marks, engines -------------------------------------------------------------------------


def test_a_durable_row_is_its_principals() -> None:
    it = Catalog()
    [put] = it.register("token:1", instance("A"), "127.0.0.1", now=0)
    assert put == Put(instance("A"), "token:1")
    [refused] = it.register("token:2", instance("A", 9009), "127.0.0.1", now=0)
    assert isinstance(refused, Refused)
    assert kinds(it.deregister("token:2", "A")) == [Refused]
    joined(it, "w")
    assert kinds(it.receive("w", row("A"), now=0)) == [Refused], "nor a connection's"
    assert kinds(it.receive("w", Free("A"), now=0)) == [Refused]
    assert it.leave("w") == []
    assert it.deregister("token:1", "A") == [Gone(instance("A"), "token:1")]
    assert it.deregister("token:1", "A") == []


def test_a_connections_row_is_not_removed_over_http_not_even_by_an_admin() -> None:
    """Its worker would go on, unlisted, and not know."""
    it = cluster(1)
    for admin in (False, True):
        [refused] = it.deregister("anonymous", "A0", admin=admin)
        assert isinstance(refused, Refused)
        assert "maintenance" in refused.reason


def test_what_an_owner_said_last_outlives_a_restart_and_is_known_at_another_hub() -> None:
    said = Check("service:A", "ttl", ttl_seconds=60, status="critical")
    asked = Check("service:B", "tcp", "127.0.0.1:9002")
    rows = [Put(instance("A", checks=(said,)), "p"), Put(instance("B", 9002, checks=(asked,)), "p")]
    assert seen(restored(*rows)) == {"A": "critical?", "B": "passing?"}, "what was only asked is asked again"
    there = Catalog()
    there.foreign(rows)
    assert seen(there) == {"A": "critical", "B": "passing"}


def test_registering_again_keeps_what_was_measured() -> None:
    check = Check("service:A", "ttl", ttl_seconds=5)
    it = Catalog()
    it.register("p", instance("A", checks=(check,)), "127.0.0.1", now=0)
    assert seen(it) == {"A": "critical"}
    it.judge("A", "passing")
    it.register("p", instance("A", checks=(check,), tags=("new",)), "127.0.0.1", now=1)
    assert seen(it) == {"A": "passing"}
    it.register("p", instance("A", 9002, checks=(check,)), "127.0.0.1", now=2)
    assert seen(it) == {"A": "critical"}, "elsewhere, it has to show itself anew"


def test_the_operators_word_is_kept_apart_and_survives_the_owners() -> None:
    it = cluster(1)
    [mark, put] = it.mark("A0", False, "disk is full")
    assert mark == Mark("A0", False, "disk is full")
    assert isinstance(put, Put)
    assert (put.instance.enabled, put.instance.state, put.instance.serving) == (False, "passing", False)
    it.receive("w0", row("A0", 9000, role="s0", words="said again"), now=1)
    assert [i.enabled for i in it.instances()] == [False]
    document = it.document("A0")
    assert document is not None
    assert document.instance.enabled, "what is written of the row is its owner's word"
    assert it.reason_of("A0") == "disk is full"
    assert it.mark("A0", False, "disk is full") == []
    assert kinds(it.mark("A0", True)) == [Mark, Put]
    assert kinds(it.mark("nobody", False)) == [Refused]


def test_a_mark_does_not_outlive_its_row() -> None:
    it = cluster(1)
    it.mark("A0", False)
    assert it.leave("w0")[1:] == [Mark("A0", True)]
    joined(it, "w0")
    it.receive("w0", row("A0", 9000), now=1)
    assert [i.enabled for i in it.instances()] == [True]


def test_what_other_hubs_wrote_comes_and_goes_with_them() -> None:
    it = Catalog()
    assert kinds(it.foreign([Put(instance("A"))])) == [Put]
    assert it.document("A") is None, "it is not ours to write"
    joined(it, "w")
    assert kinds(it.receive("w", row("A", 9009), now=0)) == [Refused]
    assert kinds(it.foreign([Mark("A", False, "why"), Put(instance("A", state="draining"))])) == [Mark, Put, Put]
    assert kinds(it.foreign([Gone(instance("A"))])) == [Gone, Mark]


def test_a_worker_that_moves_to_another_hub_is_never_missed() -> None:
    here = Catalog()
    joined(here, "w")
    here.receive("w", row("A"), now=0)
    # It connects to another hub, which writes it to the engine; then its connection to us ends.
    assert here.foreign([Put(instance("A"))]) == []
    events = here.leave("w")
    assert kinds(events)[0] is Released, "the engine is told to forget our version"
    assert Gone not in kinds(events)
    assert (list(seen(here)), here.owner_of("A")) == (["A"], "engine")
    # ... and it comes back to us.
    joined(here, "w2", now=1)
    here.receive("w2", row("A"), now=1)
    assert here.owner_of("A") == "w2"
    assert here.document("A") is not None
    assert here.foreign([Gone(instance("A"))]) == [], "the other's version goes: ours stays"


def test_a_durable_row_that_was_removed_at_another_hub_is_gone_here() -> None:
    it = Catalog()
    it.register("p", instance("A"), "127.0.0.1", now=0)
    assert kinds(it.foreign([Gone(instance("A"), "p")])) == [Gone]
    assert seen(it) == {}


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_durable_row_is_the_last_writers(first: str) -> None:
    it = Catalog()
    for side in (first, "there" if first == "here" else "here"):
        if side == "here":
            it.register("p", instance("A", tags=("here",)), "127.0.0.1", now=0)
        else:
            it.foreign([Put(instance("A", tags=("there",)), "p")])
    [found] = it.instances()
    assert found.tags == (("there",) if first == "here" else ("here",))
    assert (it.document("A") is None) is (first == "here")
    assert it.deregister("p", "A") == [Gone(found, "p")], "its principal may remove it at any hub"
