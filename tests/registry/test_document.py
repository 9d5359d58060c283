"""Documents under paths: what a stranger may have left there ends nothing, whatever its name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.changes import Gone, Mark, Put
from fairway.registry.errors import InvalidInstance
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.document import Layout, Row
from fairway.registry.stores.outbox import Entry

LAYOUT = Layout("a/b")
ROW = Instance("A1", "classify", Address("127.0.0.1", 9001))
VALUE = json.dumps({"writer": "W", "principal": "", **ROW.as_meta()}).encode()
SEGMENTS = st.text("%/.aF0", max_size=8) | st.binary(max_size=6).map(lambda b: "".join(f"%{byte:02X}" for byte in b))


def test_where_things_lie() -> None:
    assert LAYOUT.row(ROW) == "/a/b/v1/classify/A1"
    assert LAYOUT.mark("x/y") == "/a/b/marks/x%2Fy"
    assert LAYOUT.read("/a/b/v1/classify/A1", VALUE) == Row("W", Put(ROW))
    assert LAYOUT.read("/a/b/v2/classify/A1", VALUE) is None


@given(
    st.sampled_from([LAYOUT.rows, LAYOUT.marks, LAYOUT.rows + "/classify"]), SEGMENTS, st.sampled_from([VALUE, b"{}"])
)
def test_a_strangers_name_is_read_or_refused(folder: str, name: str, value: bytes) -> None:
    path = f"{folder}/{name}"
    LAYOUT.id_of(path)
    LAYOUT.marked_by(path)
    try:
        LAYOUT.read(path, value)
    except InvalidInstance:
        pass


@pytest.mark.parametrize("path", ["/a/b/v1/classify/%FF", "/a/b/v1/%FF/A1", "/a/b/marks/%FF"])
def test_what_is_no_utf_8_is_refused_and_nobodys(path: str) -> None:
    with pytest.raises(InvalidInstance, match=r"'%FF' is not percent-encoded UTF-8"):
        LAYOUT.read(path, VALUE)
    assert LAYOUT.marked_by(path) is None


def test_what_a_change_touches() -> None:
    there = {"A1": "/a/b/v1/other/A1"}
    row, mark = "/a/b/v1/classify/A1", "/a/b/marks/A1"
    assert LAYOUT.touched(Entry(Put(ROW)), {}) == {row}
    assert LAYOUT.touched(Entry(Put(ROW)), there) == {row, there["A1"]}
    assert LAYOUT.touched(Entry(Gone(ROW)), there) == {row, there["A1"], mark}
    assert LAYOUT.touched(Entry(Mark("A1", False)), there) == {mark}
