"""The journal's codec: what is written is read, what a crash cut is cut, and what is damaged is found and said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.check import Check
from fairway.registry.errors import StoreRefused
from fairway.registry.instance import Address, Instance
from fairway.registry.journal import (
    JOURNAL,
    MAX_RECORD_BYTES,
    SNAPSHOT,
    Reading,
    Recovered,
    State,
    aside,
    epoch_record,
    frame,
    is_due,
    parse,
    record,
    recover,
    useless,
)

ids = st.sampled_from("ABCD") | st.text(min_size=1, max_size=128)
words = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
instances = st.builds(
    Instance,
    ids,
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.builds(Address, st.sampled_from(["127.0.0.1", "::1", "worker-3.lan"]), st.integers(1, 65535)),
    st.sampled_from(["", "1.2.3", "v2"]),
    st.sampled_from(["starting", "passing", "draining", "critical"]),
    st.lists(words, max_size=3).map(tuple),
    st.dictionaries(words.map(lambda word: "x" + word), values, max_size=3),
    st.lists(words, max_size=3).map(tuple),
    st.integers(0, 65535),
    st.booleans(),
    st.booleans(),
    st.just(()) | st.just((Check("c", "http", "http://127.0.0.1/", header={"X": ("a", "b")}),)),
)
changes = (
    st.builds(Put, instances, words)
    | st.builds(Gone, instances, words)
    | st.builds(Mark, ids, st.booleans(), st.text(max_size=50))
)


def row(id: str, port: int = 9001, **more: Any) -> Put:
    return Put(Instance(id, "classify", Address("127.0.0.1", port), **more))


def gone(id: str) -> Gone:
    return Gone(row(id).instance)


def journal(*said: Change) -> bytes:
    return JOURNAL + b"".join(record(change).line for change in said)


def snapshot(*said: Change) -> bytes:
    state = State()
    for change in said:
        state.absorb(record(change))
    return b"".join(state.snapshot())


def model(said: Sequence[Change]) -> dict[str, Put | Mark]:
    """What is so after all of it, by the plainest means."""
    after: dict[str, Put | Mark] = {}
    for change in said:
        match change:
            case Put(instance):
                after[f"row {instance.id}"] = change
            case Gone(instance):
                after.pop(f"row {instance.id}", None)
            case Mark(id, True):
                after.pop(f"mark {id}", None)
            case Mark(id):
                after[f"mark {id}"] = change
    return after


def recovered(**files: bytes | OSError) -> Recovered:
    """`snapshot_1=…, journal_1=…`."""
    named = {name.replace("_", "-"): data for name, data in files.items()}

    def read(name: str) -> bytes:
        data = named[name]
        if isinstance(data, OSError):
            raise data
        return data

    return recover(["lock", "journal-x", "snapshot-1.tmp", "journal-1.corrupt-1", *named], read)


# -- records -----------------------------------------------------------------------------------------------------------


@given(changes)
def test_what_is_written_is_read(change: Change) -> None:
    wrote = record(change)
    read = parse(wrote.line)
    assert (read.key, read.removes, read.line) == (wrote.key, wrote.removes, wrote.line)
    assert read.change == (None if isinstance(change, Gone) else change)
    assert wrote.line.count(b"\n") == 1
    assert wrote.line.isascii()


@given(st.integers(0, 2**53))
def test_an_epoch_is_read(number: int) -> None:
    assert parse(epoch_record(number).line).number == number


@given(st.lists(changes, max_size=20))
def test_the_last_word_about_each_counts(said: list[Change]) -> None:
    left = recovered(journal_1=journal(*said))
    assert left.changes == model(said)
    assert (left.damaged, left.remarks) == ({}, [])


@given(st.lists(changes, max_size=20), st.lists(changes, max_size=10))
def test_a_snapshot_says_what_its_journals_said(before: list[Change], after: list[Change]) -> None:
    left = recovered(snapshot_2=snapshot(*before), journal_2=journal(*after))
    assert left.changes == model([*before, *after])
    assert (left.damaged, left.remarks) == ({}, [])
    again = recovered(snapshot_3=b"".join(left.state.snapshot()), journal_3=JOURNAL)
    assert again.changes == left.changes


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(StoreRefused, match="cannot be kept"):
        record(row("A", meta={"x": object()}))
    with pytest.raises(StoreRefused, match="at most 65536"):
        record(row("A", meta={"x": "y" * MAX_RECORD_BYTES}))
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(StoreRefused):
        record(row("A", meta={"x": deep}))


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    for magic in (JOURNAL, SNAPSHOT):
        for prefix in (b"", magic):
            list(reading := Reading(prefix + data, magic))
            assert reading.kept == 0, "nobody hits a checksum by chance"
            assert not reading.whole


# -- crashes -----------------------------------------------------------------------------------------------------------

STORY: tuple[Change, ...] = (
    row("A"),
    row("B", 2, tags=("ü",)),
    Mark("A", False, "it smells"),
    gone("A"),
    Mark("A", True),
    row("A", 3),
)


def test_every_prefix_of_a_journal_is_the_state_of_its_last_whole_record() -> None:
    data = journal(*STORY)
    ends = [len(journal(*STORY[:n])) for n in range(len(STORY) + 1)]
    for cut in range(len(data) + 1):
        for filled in (b"", b"\0" * 5):
            left = recovered(journal_1=data[:cut] + filled)
            whole = max((n for n, end in enumerate(ends) if end - 1 <= cut), default=0)  # a newline may be missing
            assert left.changes == model(STORY[:whole]), cut
            assert left.damaged == {}, "a torn tail is no damage"
            between = cut and (cut < len(JOURNAL) or cut not in {*ends, *(end - 1 for end in ends)})
            assert bool(left.remarks) == bool(between or (filled and cut in {0, *ends})), (cut, left.remarks)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_found(data: st.DataObject) -> None:
    """Whichever byte, whatever it becomes: what is lost is said, and is one record; with the newline between, two."""
    sound = journal(*STORY)
    ends = [len(journal(*STORY[:n])) for n in range(len(STORY) + 1)]
    flip = data.draw(st.integers(1, 255))
    for at in range(len(sound)):
        broken = bytearray(sound)
        broken[at] ^= flip
        left = recovered(journal_1=bytes(broken))
        hit = {n for n in range(len(STORY)) if ends[n] <= at < ends[n + 1]}
        if at < len(JOURNAL):
            hit = set(range(len(STORY)))
        elif at + 1 in ends:
            hit |= {n + 1 for n in hit}
        if at == len(sound) - 1 and broken[at] == 0:
            hit = set()  # the record is whole: only its newline is missing
        assert left.changes == model([change for n, change in enumerate(STORY) if n not in hit]), at
        assert list(left.damaged) == (["journal-1"] if hit else []), at


def test_what_is_lost_is_said() -> None:
    broken = bytearray(journal(*STORY))
    at = len(journal(STORY[0])) + 30
    broken[at] ^= 1
    said = recovered(journal_1=bytes(broken)).damaged["journal-1"]
    start = len(journal(STORY[0]))
    assert said == (
        f"1 of its records cannot be read, the first at byte {start}: its length or checksum is wrong; 5 were kept"
    )


def test_a_sound_record_that_is_none_of_ours() -> None:
    strange = [
        "[]",
        "{}",
        "nonsense",
        '{"put":{}}',
        '{"put":{"id":"A","role":"/","host":"h","port":1}}',
        '{"mark":"A"}',
        "[" * 30_000,
    ]
    data = journal(row("A")) + b"".join(map(frame, strange)) + record(row("B")).line
    left = recovered(journal_1=data)
    assert left.changes == model([row("A"), row("B")])
    assert left.damaged["journal-1"].startswith(f"{len(strange)} of its records cannot be read")


def test_a_record_too_large_is_not_read() -> None:
    with pytest.raises(ValueError, match="at most 65536"):
        parse(b"%08x %08x %b\n" % (MAX_RECORD_BYTES + 1, 0, b"x" * (MAX_RECORD_BYTES + 1)))


# -- generations -------------------------------------------------------------------------------------------------------


def test_nothing_at_all() -> None:
    left = recovered()
    assert (left.changes, left.generation, left.damaged, left.remarks) == ({}, 0, {}, [])


def test_the_highest_whole_snapshot_counts() -> None:
    left = recovered(
        snapshot_1=snapshot(row("A", 1)), journal_1=journal(row("B", 1)),
        snapshot_2=snapshot(row("A", 2), row("B", 1)), journal_2=journal(row("C", 2)),
    )  # fmt: skip
    assert left.changes == model([row("A", 2), row("B", 1), row("C", 2)])
    assert (left.base, left.generation) == (2, 2)


def test_a_crash_before_the_new_snapshot_had_its_name() -> None:
    left = recovered(snapshot_1=snapshot(row("A", 1)), journal_1=journal(row("B", 1)), journal_2=JOURNAL)
    assert left.changes == model([row("A", 1), row("B", 1)])
    assert (left.base, left.generation) == (1, 2), "a new generation does not write into an old file"


@pytest.mark.parametrize("damage", [b"", b"fairway snapshot 1\n", b"\0" * 100, b"fairway snapshot 2\n", None])
def test_a_damaged_snapshot_costs_nothing_while_the_one_before_is_there(damage: bytes | None) -> None:
    now = snapshot(row("A", 1), row("B", 1), row("C", 2))
    left = recovered(
        snapshot_1=snapshot(row("A", 1)), journal_1=journal(row("B", 1), row("C", 2)),
        snapshot_2=now[:-20] if damage is None else damage, journal_2=journal(row("D", 4)),
    )  # fmt: skip
    assert left.changes == model([row("A", 1), row("B", 1), row("C", 2), row("D", 4)])
    assert list(left.damaged) == ["snapshot-2"]
    assert (left.base, left.generation) == (1, 2)


def test_a_damaged_snapshot_alone_gives_what_can_be_read() -> None:
    broken = bytearray(snapshot(row("A"), row("B"), row("C")))
    broken[len(snapshot(row("A"))) + 10] ^= 1
    left = recovered(snapshot_7=bytes(broken), journal_7=journal(row("D")))
    assert left.changes == model([row("A"), row("C"), row("D")])
    assert "2 were kept" in left.damaged["snapshot-7"]


def test_a_snapshot_that_says_more_than_it_ends_with_is_not_whole() -> None:
    left = recovered(snapshot_1=snapshot(row("A")) + record(row("B")).line, journal_1=JOURNAL)
    assert list(left.damaged) == ["snapshot-1"]


def test_a_missing_journal_is_remarked() -> None:
    left = recovered(snapshot_1=snapshot(row("A")), snapshot_2=b"", journal_2=journal(row("B")))
    assert left.changes == model([row("A"), row("B")])
    assert left.remarks == ["journal-1 is missing, and with it what was changed in its time"]


def test_a_file_that_the_disk_does_not_give() -> None:
    left = recovered(
        snapshot_1=snapshot(row("A")), journal_1=journal(row("B")),
        snapshot_2=OSError(5, "Input/output error"), journal_2=OSError(5, "Input/output error"),
    )  # fmt: skip
    assert left.changes == model([row("A"), row("B")])
    assert left.damaged["journal-2"] == "it cannot be read (Input/output error); nothing of it was kept"
    assert set(left.damaged) == {"journal-2", "snapshot-2"}


def test_the_largest_epoch_counts() -> None:
    left = recovered(journal_1=JOURNAL + epoch_record(7).line + epoch_record(8).line + record(row("A")).line)
    assert left.epoch == 8
    assert recovered(snapshot_2=b"".join(left.state.snapshot()), journal_2=JOURNAL).epoch == 8


# -- the state ---------------------------------------------------------------------------------------------------------


@given(st.lists(changes | st.none(), max_size=30))
def test_what_is_owed_is_what_the_disk_lacks(said: list[Change | None]) -> None:
    """None: the disk took it."""
    state, disk = State(), bytearray(JOURNAL)
    for change in said:
        if change:
            state.absorb(record(change))
        else:
            disk += state.owed()
            state.settle()
            assert not state.owes
    disk += state.owed()
    assert recovered(journal_1=bytes(disk)).changes == model([change for change in said if change])


def test_what_comes_and_goes_while_the_disk_is_full_is_not_kept_for_ever() -> None:
    state = State()
    state.absorb(record(row("A")))
    state.settle()
    for n in range(1000):
        state.absorb(record(row(f"B{n}")))
        state.absorb(record(gone(f"B{n}")))
        state.absorb(record(gone("A")))
        state.absorb(record(row("A", 1 + n)))
    assert state.owed().count(b"\n") == 1


def test_nothing_new_is_nothing_to_write() -> None:
    state = State()
    state.absorb(record(row("A")))
    state.settle()
    for change in (row("A"), gone("B"), Mark("A", True)):
        state.absorb(record(change))
    assert not state.owes
    for _ in range(2):
        state.absorb(record(gone("A")))
        assert state.owed() == record(gone("A")).line
    state.settle()
    state.absorb(record(gone("A")))
    assert not state.owes


# -- files -------------------------------------------------------------------------------------------------------------


def test_names() -> None:
    names = ["lock", "snapshot-1", "journal-1", "snapshot-2", "journal-2", "snapshot-3.tmp", "journal-1.corrupt-1", "x"]
    assert useless(names, 2) == ["snapshot-1", "journal-1", "snapshot-3.tmp"]
    assert aside("journal-1", names) == "journal-1.corrupt-2"
    assert aside("journal-2", names) == "journal-2.corrupt-1"


def test_when_a_new_snapshot_is_due() -> None:
    assert not is_due(1000, 10, least=1000, factor=4)
    assert is_due(1001, 10, least=1000, factor=4)
    assert not is_due(2000, 500, least=1000, factor=4)
    assert is_due(2001, 500, least=1000, factor=4)
