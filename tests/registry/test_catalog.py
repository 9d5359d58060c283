"""The state machine, by transcripts: who says what, when, and what changes. The clock is moved by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.registry.catalog import MAX_ROWS_PER_PEER, Catalog
from fairway.registry.changes import Gone, Put, Refused
from fairway.registry.errors import ConfigurationError
from fairway.registry.instance import Query
from fairway.registry.owners import SEAPORT_TIMEOUT
from fairway.registry.wire import MAX_ROW, Free, Heartbeat, Helo, Message, Register, Synced, encode


def row(id: str, port: int = 9001, **more: Any) -> Register:
    return Register(id, {"role": "classify", "port": port} | more)


def catalog(*peers: str, host: str = "127.0.0.1", allowed: tuple[str, ...] = ()) -> Catalog:
    made = Catalog(allowed, dial_back=False)
    for peer in peers:
        joined(made, peer, host)
    return made


def joined(it: Catalog, peer: str, host: str = "127.0.0.1", now: float = 0) -> None:
    """A seaport client past its greeting: what it says from now on is about itself."""
    it.join(peer, host, now)
    it.receive(peer, Synced(), now)


def ids(of: Catalog) -> list[str]:
    return [instance.id for instance in of.query()]


def refusal(of: Catalog, peer: str, message: Message) -> str:
    before = (of.query(), of.index)
    [change] = of.receive(peer, message, now=1)
    assert isinstance(change, Refused)
    assert (of.query(), of.index) == before, "a refusal changes nothing"
    return change.reason


def test_register_change_free() -> None:
    it = catalog("w")
    [first] = it.receive("w", row("A1"), now=1)
    assert isinstance(first, Put)
    assert str(first.instance.address) == "127.0.0.1:9001"
    [second] = it.receive("w", row("A1", state="draining"), now=2)
    assert isinstance(second, Put)
    assert second.instance.state == "draining"
    assert it.query() == [second.instance]
    assert it.receive("w", Free("A1"), now=3) == [Gone(second.instance)]
    assert it.query() == []
    assert it.receive("w", Free("A1"), now=4) == [], "twice freed is freed"


def test_rows_stand_in_the_order_of_registration() -> None:
    it = catalog("w", "v")
    for peer, id, port in (("w", "C", 1), ("v", "A", 2), ("w", "B", 3), ("w", "C", 4)):
        it.receive(peer, row(id, port), now=1)
    assert ids(it) == ["C", "A", "B"], "a change does not move a row to the end"
    it.receive("v", Register("D", {"role": "other@1.0.0", "port": 5}), now=1)
    assert [i.id for i in it.query(Query("other", "1.x"))] == ["D"]
    assert {name: len(rows) for name, rows in it.services().items()} == {"classify": 3, "other": 1}


def test_a_disconnect_frees_all_of_this_peer_and_nothing_else() -> None:
    it = catalog("w", "v")
    for peer, id in (("w", "B"), ("v", "V"), ("w", "A")):
        it.receive(peer, row(id), now=1)
    assert [change.instance.id for change in it.leave("w") if isinstance(change, Gone)] == ["A", "B"]
    assert ids(it) == ["V"]
    assert it.leave("w") == [], "the second of two ends of one connection"


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(None, SEAPORT_TIMEOUT), (10, 10), (1, 1), (2.5, 2.5), (3600, 3600),
     (0, SEAPORT_TIMEOUT), (3601, SEAPORT_TIMEOUT), (-1, SEAPORT_TIMEOUT), ("10", SEAPORT_TIMEOUT),
     (True, SEAPORT_TIMEOUT), ([], SEAPORT_TIMEOUT)],
)  # fmt: skip
def test_silence_ends_a_peer_exactly_at_its_deadline(ttl: Any, seconds: float) -> None:
    it = catalog("w")
    it.receive("w", row("A1", ttl_seconds=ttl), now=100)
    [late], lost = it.expire(100 + seconds * 2 / 3)
    assert isinstance(late, Put)
    assert (late.instance.state, lost) == ("critical", []), "two beats were missed"
    assert it.next_deadline() == 100 + seconds
    assert it.expire(100 + seconds - 0.001) == ([], [])
    assert it.expire(100 + seconds) == ([Gone(late.instance)], ["w"])
    assert ids(it) == []


@pytest.mark.parametrize("sign", [Heartbeat(), Synced(), Helo("me"), Free("nobody's"), Register("bad", {})])
def test_any_message_is_a_sign_of_life(sign: Message) -> None:
    it = catalog("w")
    it.receive("w", sign, now=44)
    assert it.expire(now=44 + 45 - 0.001) == ([], [])
    assert it.expire(now=44 + 45) == ([], ["w"])


def test_the_next_deadline_is_the_earliest() -> None:
    it = catalog("w", "v")
    it.receive("v", row("A1", ttl_seconds=10), now=5)
    assert it.next_deadline() == pytest.approx(5 + 10 * 2 / 3)
    it.leave("v")
    it.expire(now=29)
    assert it.next_deadline() == pytest.approx(45 * 2 / 3)
    it.leave("w")
    it.expire(now=31)
    assert it.next_deadline() is None


def test_a_stranger_can_neither_take_nor_free_a_row() -> None:
    it = catalog("w", "v")
    it.receive("w", row("A1"), now=1)
    assert refusal(it, "v", row("A1", port=666)) == "somebody else owns this id"
    assert refusal(it, "v", Free("A1")) == "only its owner may free it"
    joined(it, "far", "10.0.0.7")
    assert refusal(it, "far", row("A1", host="10.0.0.7")) == "somebody else owns this id"


def test_another_host_cannot_take_a_row_over_even_at_the_same_address() -> None:
    it = catalog("w", allowed=("127.0.0.0/8",))
    it.receive("w", row("A1"), now=1)
    joined(it, "far", "10.0.0.7")
    assert refusal(it, "far", row("A1", host="127.0.0.1")) == "somebody else owns this id"


def test_a_worker_that_comes_back_takes_its_own_row_over() -> None:
    it = catalog("old", "new")
    it.receive("old", row("A1"), now=1)
    [change] = it.receive("new", row("A1", pid=2), now=2)
    assert isinstance(change, Put)
    assert it.leave("old") == [], "the old connection's end no longer frees it"
    assert ids(it) == ["A1"]
    assert it.leave("new") == [Gone(change.instance)]


@pytest.mark.parametrize(
    ("peer", "host", "allowed", "ok"),
    [
        ("127.0.0.1", None, (), True),
        ("127.0.0.1", "localhost", (), True),
        ("127.0.0.1", "::1", (), True),
        ("10.0.0.7", None, (), True),
        ("10.0.0.7", "10.0.0.7", (), True),
        ("10.0.0.7", "10.0.0.8", (), False),
        ("2001:db8::7", "2001:DB8:0::7", (), True),  # the same address in other letters
        ("2001:db8::7", "2001:db8::8", (), False),
        ("10.0.0.7", "127.0.0.1", (), False),
        ("127.0.0.1", "10.0.0.8", (), False),
        ("10.0.0.7", "10.0.0.8", ("10.0.0.0/8",), True),
        ("10.0.0.7", "10.0.0.8", ("192.168.0.0/16", "10.0.0.8"), True),
        ("10.0.0.7", "192.168.0.1", ("10.0.0.0/8",), False),
        ("10.0.0.7", "worker.lan", ("0.0.0.0/0",), False),  # a name may point anywhere tomorrow
        ("10.0.0.7", "fd00::1", ("10.0.0.0/8",), False),
        ("10.0.0.7", "fd00::1", ("10.0.0.0/8", "fd00::/8"), True),
    ],
)
def test_addresses_a_peer_may_advertise(peer: str, host: str | None, allowed: tuple[str, ...], ok: bool) -> None:
    it = catalog("w", host=peer, allowed=allowed)
    if ok:
        assert [type(change) for change in it.receive("w", row("A1", host=host), now=1)] == [Put]
    else:
        assert refusal(it, "w", row("A1", host=host)).endswith(
            f"own address ({peer}) and not on the registry's --allow list"
        )


def test_a_network_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"--allow: '10.0.0.0/99' is not a network"):
        Catalog(("127.0.0.0/8", "10.0.0.0/99"))


@pytest.mark.parametrize("meta", [{}, {"role": "a"}, {"role": "a", "port": 0}, {"role": "a/b", "port": 1}])
def test_what_cannot_be_served_is_refused(meta: dict[str, Any]) -> None:
    assert "is not a" in refusal(catalog("w"), "w", Register("A1", meta))


def test_a_change_that_is_refused_leaves_the_row_as_it_was() -> None:
    it = catalog("w")
    it.receive("w", row("A1"), now=1)
    assert "is not a port" in refusal(it, "w", row("A1", port=0))


def test_a_row_too_long_to_be_told_is_refused() -> None:
    # It came in within the limit, but grows on the way out: its letters become escapes, its host is added.
    umlauts = row("A1", words="ü" * 2000)
    assert "at most 8192 are accepted" in refusal(catalog("w"), "w", umlauts)
    room = MAX_ROW - len(encode(row("A1", words="")))
    assert "at most 8192 are accepted" in refusal(catalog("w"), "w", row("A1", words="x" * room))


def test_a_row_has_room_for_what_is_said_of_it_later() -> None:
    it = catalog("p")
    for words in range(7900, 8192):
        events = it.receive("p", row("A", words="x" * words), now=0)
        if any(isinstance(event, Refused) for event in events):
            break
    it.mark("A", False)
    it.expire(0.7 * 45)
    shown = it.get("A")
    assert shown is not None
    assert (shown.state, shown.enabled) == ("critical", False)
    assert len(encode(Register("A", shown.as_meta()))) <= MAX_ROW


def test_metadata_nested_too_deeply_for_its_readers_are_refused() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    assert "nested too deeply" in refusal(catalog("p"), "p", row("A", words=deep))


def test_one_peer_cannot_fill_the_catalog() -> None:
    it = catalog("w", "v")
    for number in range(MAX_ROWS_PER_PEER):
        it.receive("w", row(f"A{number}"), now=1)
    assert "at most 1000 registrations" in refusal(it, "w", row("one more"))
    assert [type(change) for change in it.receive("w", row("A7", pid=1), now=1)] == [Put], "its own may change"
    assert [type(change) for change in it.receive("v", row("another's"), now=1)] == [Put]
    it.receive("w", Free("A7"), now=1)
    assert [type(change) for change in it.receive("w", row("one more"), now=1)] == [Put]


def test_the_index_grows_with_every_change() -> None:
    it = catalog("w")
    seen = [it.index]
    for message in (row("A1"), row("A2"), row("A1", state="draining"), Free("A2")):
        it.receive("w", message, now=1)
        seen.append(it.index)
    it.leave("w")
    seen.append(it.index)
    assert seen == sorted(set(seen)), seen


def test_the_dashboard_line() -> None:
    it = catalog("w", "v")
    it.receive("w", row("A1"), now=1)
    it.receive("w", row("A2"), now=1)
    it.receive("v", Register("B", {"role": "other", "port": 1}), now=1)
    assert repr(it) == "<Catalog [3 instances of 2 services | 2 peers]>"
