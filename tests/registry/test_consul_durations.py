"""Durations as Go writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.consul import (
    format_duration,
    parse_duration,
)
from fairway.registry.errors import InvalidInstance


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1h0m0s", 3600.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("0", 0.0),
        ("0s", 0.0),
        (10_000_000_000, 10.0),
        (0, 0.0),
    ],
)
def test_durations_are_go_s(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "-1s", "1s ", "1 s", "1d", "ten", "1e3s", "9" * 70 + "s", "2562048h", "\u0661s", None, [], 1e300, -1],
)  # fmt: skip
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(InvalidInstance, match=r"is not a duration: expected e\.g\. 10s, 1m30s or 500ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (10, "10s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (0.5, "500ms"),
        (1.5, "1.5s"),
        (0.0015, "1.5ms"),
        (2e-6, "2µs"),
        (7e-9, "7ns"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15))
def test_a_duration_written_is_read_again(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds / 1e9)) == pytest.approx(nanoseconds / 1e9, abs=1e-9)


@given(st.one_of(st.text(max_size=80), st.integers(), st.floats(), st.from_regex(r"[0-9.]{0,9}(s|m|h|ms){0,3}")))
def test_no_duration_does_harm(value: object) -> None:
    try:
        assert 0 <= parse_duration(value) < 1e10
    except InvalidInstance:
        pass
