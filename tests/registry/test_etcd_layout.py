"""Keys and documents: whatever is written is read again as it was, and whatever a stranger wrote raises nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.changes import Mark, Put
from fairway.registry.errors import InvalidInstance, StoreRefused
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.etcd_layout import (
    Layout,
    Row,
    delete,
    document,
    if_absent,
    if_ours,
    mark_document,
    outcome,
)

LAYOUT = Layout("fairway")
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
OURS = {"role", "host", "port", "id", "version", "state", "models", "tags", "weight", "enabled", "suspect", "checks"}
INSTANCES = st.builds(
    Instance,
    st.text(min_size=1, max_size=128),
    NAMES,
    st.builds(Address, st.just("127.0.0.1"), st.integers(1, 65535)),
    version=st.sampled_from(["", "1.2.3"]),
    meta=st.dictionaries(
        st.text(max_size=8).filter(lambda k: k not in OURS | {"writer", "principal"}), JSON, max_size=4
    ),
    weight=st.integers(0, 65535),
)


@given(INSTANCES, st.sampled_from(["", "ops"]))
def test_a_row_is_read_as_it_was_written(instance: Instance, principal: str) -> None:
    put = Put(instance, principal)
    assert LAYOUT.read(LAYOUT.row(instance), document(put, "W")) == Row("W", put)
    assert LAYOUT.id_of(LAYOUT.row(instance)) == instance.id
    assert LAYOUT.marked_by(LAYOUT.row(instance)) is None


@given(st.text(min_size=1, max_size=128), st.text(max_size=50))
def test_a_mark_is_read_as_it_was_written(id: str, reason: str) -> None:
    mark = Mark(id, False, reason)
    assert LAYOUT.read(LAYOUT.mark(id), mark_document(mark, "W")) == mark
    assert LAYOUT.marked_by(LAYOUT.mark(id)) == id
    assert LAYOUT.id_of(LAYOUT.mark(id)) is None


@given(
    st.sampled_from(["/fairway/v1/", "/fairway/marks/", "/fairway/", ""]),
    st.text(max_size=20),
    st.binary(max_size=60) | JSON.map(lambda v: str(v).replace("'", '"').encode("utf-8", "replace")),
)
def test_what_strangers_write_is_read_or_refused(place: str, name: str, value: bytes) -> None:
    try:
        LAYOUT.read(place + name, value)
    except InvalidInstance:
        pass


def test_nobody_passes_for_another_writer() -> None:
    put = Put(Instance("A", "s", Address("h", 1), meta={"writer": "somebody else", "principal": "root"}))
    row = LAYOUT.read("/fairway/v1/s/A", document(put, "W"))
    assert isinstance(row, Row)
    assert (row.writer, row.put.principal) == ("W", "")


def test_the_size_that_counts_is_the_instances_own() -> None:
    def sized(words: int) -> Put:
        return Put(Instance("A", "s", Address("h", 1), meta={"words": "x" * words}), "ops")

    most = 8192 - len(b'{"words":"","role":"s","host":"h","port":1,"id":"A"}')
    assert len(document(sized(most), "W")) > 8192
    with pytest.raises(StoreRefused, match="8193 bytes; at most 8192"):
        document(sized(most + 1), "W")


def test_the_range_holds_the_prefix_and_no_neighbour() -> None:
    begin, end = (base64.b64decode(LAYOUT.everything[name]) for name in ("key", "range_end"))
    assert begin <= b"/fairway/" < b"/fairway/\xff\xff" < end
    assert not begin <= b"/fairway" < end
    assert not begin <= b"/fairway2/v1" < end


def test_conditions_and_what_is_answered_to_them() -> None:
    ours = if_ours("k", "77", 5, delete("k"))
    targets = []
    while ours:
        (compare,) = ours["request_txn"]["compare"]
        targets.append(compare["target"])
        ours = next(iter(ours["request_txn"]["failure"]), {})
    assert targets == ["LEASE", "MOD", "CREATE"], "bound to our lease, or else written by us last, or else not there"
    assert if_absent("k", delete("k"))["request_txn"]["compare"][0]["target"] == "CREATE"
    done = {"response_delete_range": {"deleted": "1"}}
    assert outcome([done]) == [done]
    assert outcome([{"response_txn": {"succeeded": True, "responses": [done]}}]) == [done]
    within = {"response_txn": {"responses": [{"response_txn": {"succeeded": True, "responses": [done]}}]}}
    assert outcome([within]) == [done]
    assert outcome([{"response_txn": {"responses": [{"response_range": {}}]}}]) is None
    assert outcome([{"response_txn": {"responses": [{"response_txn": {}}]}}]) is None
