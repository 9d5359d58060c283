"""Server-Timing, both ways."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.metrics import Counts
from fairway.worker.wire import timing


def test_what_remains_is_added_and_counted() -> None:
    counts = Counts()
    value = timing.timing(SimpleNamespace(queue=0.0001, decode=0.002, infer=0.03, counts=counts))
    assert value == "queue;dur=0.10, decode;dur=2.00, infer;dur=30.00"
    whole = timing.completed(value, 0.0331)
    assert whole == value + ", encode;dur=1.00"
    assert timing.completed(value, 0.01).endswith("encode;dur=0.00")  # clocks do not run backwards here
    assert counts.encode_seconds[-1] == pytest.approx(0.001)
    assert timing.decode(whole) == pytest.approx({"queue": 0.0001, "decode": 0.002, "infer": 0.03, "encode": 0.001})


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.floats(0, 1000)))
def test_it_comes_back(seconds: dict[str, float]) -> None:
    decoded = timing.decode(timing.encode(seconds)) if len(timing.encode(seconds)) <= timing.MAX_BYTES else seconds
    assert decoded == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('cache;desc="Cache, Read";dur=23.2, db;dur="5"', {"cache": 0.0232, "db": 0.005}),
        ("miss, total ; dur = 1", {"total": 0.001}),
        ("a;dur=-1, b;dur=x, c;dur=1e999, d;dur=1", {"d": 0.001}),
        ("", {}),
        ("a;dur=1" * 1000, {}),
    ],
)
def test_others_write_it_otherwise(value: str, expected: dict[str, float]) -> None:
    assert timing.decode(value) == pytest.approx(expected)


@given(st.text())
def test_nothing_makes_it_fail(value: str) -> None:
    timing.decode(value)
