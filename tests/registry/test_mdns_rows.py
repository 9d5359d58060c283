"""What is said over mDNS, and whom to believe: packets lost, twice, late; and what strangers may say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.changes import Gone, Put
from fairway.registry.errors import StoreRefused
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.mdns_rows import MOST_ENDS, Rows
from fairway.registry.stores.mdns_words import MOST_BYTES, Word, decode, encode, label
from fairway.registry.txt import MOST_STRING, pack, unpack

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
INSTANCES = st.builds(
    Instance,
    id=IDS,
    service=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    address=st.builds(Address, st.sampled_from(["127.0.0.1", "10.0.0.7"]), st.integers(1, 65535)),
    version=st.sampled_from(["", "1.2.3", "2.0.0-rc.1"]),
    state=st.sampled_from(["starting", "passing", "draining", "critical"]),
    models=st.lists(TEXTS, max_size=2).map(tuple),
    meta=st.dictionaries(st.sampled_from(["a", "größe", "☕"]), VALUES, max_size=2),
    tags=st.lists(TEXTS, max_size=2).map(tuple),
    weight=st.integers(0, 65535),
    enabled=st.booleans(),
    suspect=st.booleans(),
)
WORDS = st.builds(
    Word,
    INSTANCES,
    st.from_regex(r"[0-9A-F]{16}", fullmatch=True),
    st.integers(0, 2**62),
    st.from_regex(r"[a-z0-9-]{0,32}", fullmatch=True),
)


def instance(id: str = "A1", **more: Any) -> Instance:
    return replace(Instance(id, "classify", Address("10.0.0.7", 9001)), **more)


def said(id: str = "A1", **more: bytes) -> bytes:
    """A TXT record as another implementation may write it."""
    document = json.dumps({"id": id, "role": "classify", "host": "10.0.0.7", "port": 9001}).encode()
    plain = {"txtvers": b"1", "writer": b"W", "stamp": b"5", "d0": document}
    return pack(plain | more)


# -- the strings -------------------------------------------------------------------------------------------------------


@given(WORDS)
def test_what_was_encoded_is_decoded(word: Word) -> None:
    try:
        txt = encode(word)
    except StoreRefused:
        assert len(json.dumps(word.instance.as_meta(), ensure_ascii=False).encode()) > MOST_BYTES - 200
        return
    assert len(txt) <= MOST_BYTES
    assert decode(label(word.instance.id), txt) == word


@pytest.mark.parametrize("size", [*range(700, 1200, 17), *range(1000, 1100)])
def test_what_fits_fits_and_what_does_not_is_refused(size: int) -> None:
    word = Word(instance(meta={"words": "x" * size}), "W" * 16, 1_700_000_000_000, "group")
    document = len(json.dumps(word.instance.as_meta(), separators=(",", ":")))
    try:
        txt = encode(word)
    except StoreRefused:
        assert document > MOST_BYTES - 120
    else:
        assert len(txt) <= MOST_BYTES
        assert document <= MOST_BYTES - 80
        assert decode("A1", txt) == word


@pytest.mark.parametrize("meta", [{"n": float("nan")}, {"n": float("inf")}, {"o": object()}, {"x": "y" * 9000}])
def test_what_cannot_be_said_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(StoreRefused):
        encode(Word(instance(meta=meta), "W", 1))


@given(st.binary(max_size=1400))
def test_any_bytes_are_read_without_harm(txt: bytes) -> None:
    assert decode("A1", txt) is None
    assert sum(len(key) + len(value) for key, value in unpack(txt).items()) <= len(txt)


@given(WORDS, st.lists(st.tuples(st.integers(0, 1199), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_word_is_none_or_well_formed(word: Word, damage: list[tuple[int, int]]) -> None:
    try:
        txt = bytearray(encode(word))
    except StoreRefused:
        return
    for at, byte in damage:
        txt[at % len(txt)] = byte
    if found := decode(label(word.instance.id), bytes(txt)):
        assert found.instance.id == word.instance.id
        assert encode(found)


@pytest.mark.parametrize(
    "txt",
    [
        b"",
        said(txtvers=b"2"),
        said(stamp=b"-1"),
        said(stamp=b"9" * 19),
        said(stamp="٣".encode()),
        said(writer=b""),
        said(writer=b"no good"),
        said(group=b"UPPER"),
        said(id="B2"),
        said(d0=b"{"),
        said(d0=b"[1]"),
        said(d0=b"[" * 250),
        said(d0=b'{"id":"A1","role":"classify","host":"10.0.0.7","port":9001,"n":NaN}'),
        said(d0=b'{"id":"A1","role":"classify","host":"10.0.0.7","port":9001,"n":1e999}'),
        said(d0=b'{"id":"A1","role":"classify","port":9001}'),
        said(d0=b'{"id":"A1","role":"classify","host":"10.0.0.7"}'),
        said(d0=b'{"id":7,"role":"classify","host":"10.0.0.7","port":9001}'),
        said(d0=b'{"role":"classify","host":"10.0.0.7","port":9001}'),
        said(d0=b"\xff\xfe"),
        said(d0=b"[" * 250, d1=b"[" * 250, d2=b"[" * 250, d3=b"[" * 250, d4=b"[" * 50),
        said() + b"\x40torn",
    ],
)
def test_what_is_not_well_formed_is_nobodys_word(txt: bytes) -> None:
    if txt.endswith(b"torn"):  # all that counts stands before it
        assert decode("A1", txt)
        return
    assert decode("A1", txt) is None


def test_checks_come_with_no_word() -> None:
    document = {
        "id": "A1",
        "role": "classify",
        "host": "10.0.0.7",
        "port": 9001,
        "checks": [{"id": "c", "kind": "tcp"}],
    }
    word = decode("A1", said(d0=json.dumps(document).encode()))
    assert word
    assert word.instance == instance()


@given(st.lists(IDS, min_size=2, max_size=20, unique=True))
def test_every_id_has_a_name_that_dns_can_tell_apart(ids: list[str]) -> None:
    names = {label(id).lower() for id in ids}
    assert len(names) == len(ids)
    assert all(0 < len(name) <= 63 and name.isascii() and "." not in name for name in names)


def test_an_id_of_ours_is_the_name_itself() -> None:
    assert label("0123456789ABCDEF") == "0123456789ABCDEF"
    assert label("A1") != label("a1")


def test_a_string_has_its_bound() -> None:
    assert unpack(pack({"a": b"=x", "b": b""})) == {"a": b"=x", "b": b""}
    with pytest.raises(ValueError, match="255"):
        pack({"a": b"x" * MOST_STRING})


# -- the rows ----------------------------------------------------------------------------------------------------------


def word(stamp: int, writer: str = "W", id: str = "A1", **more: Any) -> Word:
    return Word(instance(id, **more), writer, stamp)


def test_the_latest_word_counts_whoever_said_it() -> None:
    rows = Rows()
    assert rows.hear(word(5), 0.0) == [Put(instance())]
    assert rows.hear(word(5), 1.0) == [], "again, nothing new"
    assert rows.hear(word(4, weight=9), 1.0) == [], "late"
    assert rows.hear(word(7, weight=2), 1.0) == [Put(instance(weight=2))]
    assert rows.hear(word(8, "X", weight=3), 1.0) == [Put(instance(weight=3))]
    assert rows.hear(word(7, weight=2), 1.0) == [], "it was taken over"
    assert rows.part(word(7, weight=2), 1.0) == [], "and it is not the former one's to end"
    assert rows.stamp("A1") == 8
    assert rows.part(word(8, "X", weight=3), 1.0) == [Gone(instance(weight=3))]
    assert rows.stamp("A1") == 8
    assert rows.hear(word(7, weight=2), 1.0) == [], "nor to bring back"


def test_an_end_is_not_undone_by_what_was_under_way() -> None:
    rows = Rows()
    rows.hear(word(5), 0.0)
    assert rows.part(word(5), 1.0)
    assert rows.hear(word(5), 1.1) == []
    assert rows.hear(word(4), 1.1) == []
    assert rows.part(word(4), 1.2) == []
    assert rows.hear(word(5), 1.3) == [], "nor by an end that came late itself"
    assert rows.hear(word(6), 1.4) == [Put(instance())]
    assert rows.part(word(5), 1.5) == [], "an end that came twice is not that of the next life"


def test_who_falls_silent_is_asked_and_gone_and_may_come_back() -> None:
    rows = Rows()
    rows.hear(word(5), 0.0)
    told = [(now / 2, *rows.due(now / 2)) for now in range(25)]
    assert [(now, [i.id for i in ask]) for now, ask, _ in told if ask] == [(7.0, ["A1"]), (8.5, ["A1"])]
    assert [(now, gone) for now, _, gone in told if gone] == [(10.0, [Gone(instance())])]
    assert rows.hear(word(5), 13.0) == [Put(instance())], "it was only stopped"


def test_rows_and_ends_are_bounded() -> None:
    rows = Rows(most=3)
    for number in range(10):
        rows.hear(word(1, id=f"A{number}"), 0.0)
    assert (len(rows), rows.refused) == (3, 7)
    assert rows.hear(word(2, id="A0", weight=5), 0.0), "who is known is not displaced"
    for number in range(MOST_ENDS + 500):
        rows.part(word(1, id=f"B{number}"), 0.0)
    assert repr(rows) == f"<Rows [3 of 3 | {MOST_ENDS} ended lately]>"
    rows.due(20.0)
    assert "0 ended lately" in repr(rows)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "end", "again", "wait"]),
        st.sampled_from(["A1", "B2"]),
        st.sampled_from(["W", "X"]),
        st.integers(0, 30),
    ),
    max_size=60,
)


@given(STEPS, st.data())
def test_whatever_comes_twice_or_late_the_copy_is_that_of_one_who_heard_all_in_order(
    steps: list[tuple[str, str, str, int]], data: st.DataObject
) -> None:
    """Two writers speak; each packet comes at once, and any old one may come again."""
    rows, now, stamp = Rows(), 0.0, 0
    truth: dict[str, Word] = {}
    copy: dict[str, Instance] = {}
    said: list[tuple[str, Word]] = []

    def follow(changes: list[Put | Gone]) -> None:
        for change in changes:
            if isinstance(change, Put):
                assert copy.get(change.instance.id) != change.instance, "no change"
                copy[change.instance.id] = change.instance
            else:
                assert copy.pop(change.instance.id) == change.instance

    for what, id, writer, number in steps:
        if what == "say":
            stamp += 1
            spoken = word(stamp, writer, id, weight=number)
            truth[id] = spoken
            said.append(("hear", spoken))
            follow(rows.hear(spoken, now))
        elif what == "end" and id in truth and truth[id].writer == writer:
            said.append(("part", truth[id]))
            follow(rows.part(truth.pop(id), now))
        elif what == "again" and said:
            kind, old = data.draw(st.sampled_from(said))
            follow(rows.hear(old, now) if kind == "hear" else rows.part(old, now))
        elif what == "wait":
            now += 0.1
            follow(rows.due(now)[1])
        assert copy == {id: spoken.instance for id, spoken in truth.items()}
