"""seaport's rows, in both directions."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry.errors import WireError
from fairway.registry.wire import MAX_ROW, Free, Heartbeat, Helo, Message, Register, RowReader, Synced, decode, encode

META = {"role": "classify", "port": 9001, "deep": {"list": [1, 2.5, None, True, "ü\n\U0001f33b"]}}

ROWS: list[tuple[bytes, Message]] = [
    (b'["helo","127.0.0.1"]\n', Helo("127.0.0.1")),
    (b'["register","A1",{"role":"classify","port":9001}]\n', Register("A1", {"role": "classify", "port": 9001})),
    (b'["register","",{}]\n', Register("", {})),
    (b'["free","A1"]\n', Free("A1")),
    (b'["synced"]\n', Synced()),
    (b'["heartbeat"]\n', Heartbeat()),
    (b'["free","\\u00fc"]\n', Free("ü")),
]


@pytest.mark.parametrize(("line", "message"), ROWS)
def test_both_directions(line: bytes, message: Message) -> None:
    assert encode(message) == line
    assert decode(line) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Helo, st.text(max_size=40)),
    st.builds(Register, st.text(max_size=40), st.dictionaries(st.text(max_size=9), JSON, max_size=5)),
    st.builds(Free, st.text(max_size=40)),
    st.just(Synced()),
    st.just(Heartbeat()),
)


@given(MESSAGES)
@settings(max_examples=200, deadline=None)
def test_whatever_is_said_is_heard(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1, "a line break inside a row would cut it in two"
    assert RowReader().feed(line) == [message]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'["synced","and","more"]', Synced()),  # a longer row is a newer peer's
        (b'[ "free" , "A1" , 7 ]\r', Free("A1")),
        (b"", None),
        (b" \r", None),
        (b'["endpoint",{"a":1}]', None),  # seaport skips what it does not know, so do we
    ],
)
def test_generous_to_other_peers(line: bytes, message: Message | None) -> None:
    assert decode(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b'{"register": 1}',
        b'"synced"',
        b"[]",
        b"[7]",
        b'[["synced"]]',
        b'["register"]',
        b'["register","A1"]',
        b'["register","A1",[]]',
        b'["register",1,{}]',
        b'["free"]',
        b'["free",null]',
        b'["helo",4]',
        b'["synced"] ["synced"]',
        b'["synced"',
        b'["\xff"]',
        b"[" * 4000,
        b'["free",' + b"9" * 5000 + b"]",
        # Python reads and writes these; relayed, they would end every JavaScript peer.
        b'["register","A1",{"load":NaN}]',
        b'["register","A1",{"load":-Infinity}]',
        b'["register","A1",{"load":1e999}]',
    ],
)
def test_bad_rows(line: bytes) -> None:
    with pytest.raises(WireError, match=r"^not a"):
        decode(line)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_is_not_json_is_not_sent(value: object) -> None:
    with pytest.raises(WireError, match="JSON"):
        encode(Register("A1", {"load": value}))


def test_the_longest_row_passes_and_one_byte_more_does_not() -> None:
    room = MAX_ROW - len(encode(Register("A1", {"words": ""})))
    longest = encode(Register("A1", {"words": "x" * room}))
    assert len(longest) == MAX_ROW
    assert len(RowReader().feed(longest)) == 1
    with pytest.raises(WireError, match=rf"^the row has {MAX_ROW + 1} bytes; at most {MAX_ROW}"):
        encode(Register("A1", {"words": "x" * (room + 1)}))
    with pytest.raises(WireError, match=f"longer than {MAX_ROW} bytes"):
        RowReader().feed(longest.replace(b"xx", b"xxx", 1))


def test_a_row_that_never_ends_is_refused_as_soon_as_it_is_too_long() -> None:
    reader = RowReader()
    reader.feed(b"[" + b" " * (MAX_ROW - 2))
    with pytest.raises(WireError):
        reader.feed(b" ")


def test_rows_split_at_every_byte() -> None:
    said = [message for _, message in ROWS] + [Register("A2", META)]
    stream = b"\n\r\n".join(encode(message).rstrip() for message in said) + b"\n"
    for cut in range(len(stream) + 1):
        reader = RowReader()
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == said
    reader = RowReader()
    assert [message for i in range(len(stream)) for message in reader.feed(stream[i : i + 1])] == said


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([line for line, _ in ROWS]),
        st.sampled_from([b"[", b'["register","A",{', b"\n", b"\\ud800", b" " * 4000, b"x" * (MAX_ROW + 1)]),
        MESSAGES.map(encode),
    ),
    max_size=12,
)


@given(PIECES)
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_but_wire_error(pieces: list[bytes]) -> None:
    reader = RowReader()
    for piece in pieces:
        try:
            messages = reader.feed(piece)
        except WireError:
            assert len(reader._rest) <= MAX_ROW
            return
        assert len(reader._rest) <= MAX_ROW
        for message in messages:
            assert decode(encode(message)) == message, "what was heard can be said again"


def test_errors_show_only_the_beginning() -> None:
    with pytest.raises(WireError) as caught:
        decode(json.dumps("x" * 5000).encode())
    assert len(str(caught.value)) < 200
    assert re.search('expected e.g. \\["register", id', str(caught.value))
