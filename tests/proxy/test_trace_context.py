"""traceparent by the letter of W3C Trace Context, its own test suite's cases among these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proxy.server_timing import line
from fairway.proxy.trace_context import SAMPLED, TraceContext, decode

TRACE, PARENT = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
GOOD = b"00-" + TRACE + b"-" + PARENT + b"-01"


def test_the_example_of_the_specification() -> None:
    context = decode(GOOD)
    assert context == TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, SAMPLED)
    assert context.sampled
    assert context.encode() == GOOD


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"",
        b"00",
        GOOD.upper(),
        b"0" + GOOD,
        GOOD[:-1],
        GOOD + b"0",
        GOOD + b"-",
        GOOD + b"-00",
        b" " + GOOD,
        GOOD + b"\n",
        GOOD + b"," + GOOD,
        b"ff" + GOOD[2:],
        b"0x" + GOOD[2:],
        b".0" + GOOD[2:],
        b"00-" + b"0" * 32 + b"-" + PARENT + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE[:-1] + b".-" + PARENT + b"-01",
        b"00-" + TRACE + b"-" + PARENT[:-1] + b"g-01",
        b"00-" + TRACE + b"-" + PARENT + b"-0x",
        b"00-" + TRACE + b"-" + PARENT + b"-.0",
        b"00_" + TRACE + b"_" + PARENT + b"_01",
        b"01" + GOOD[2:] + b".what-the-future-will-be-like",
        GOOD.replace(b"0", "\N{ARABIC-INDIC DIGIT ZERO}".encode()),
    ],
)
def test_what_is_none(bad: bytes | None) -> None:
    assert decode(bad) is None


def test_later_versions_may_say_more() -> None:
    for later in (b"01" + GOOD[2:], b"cc" + GOOD[2:] + b"-what-the-future-will-be-like", b"fe" + GOOD[2:] + b"-"):
        context = decode(later)
        assert context is not None
        assert context.encode() == GOOD, "we write the version that we know"


@pytest.mark.parametrize(
    ("flags", "passed"), [(b"00", b"00"), (b"01", b"01"), (b"03", b"03"), (b"fe", b"02"), (b"09", b"01")]
)
def test_flags_that_mean_nothing_are_not_passed_on(flags: bytes, passed: bytes) -> None:
    context = decode(GOOD[:-2] + flags)
    assert context is not None
    assert context.encode()[-2:] == passed
    assert context.sampled is (passed in (b"01", b"03"))


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_both_directions_agree(trace_id: int, parent_id: int, flags: int) -> None:
    context = TraceContext(trace_id, parent_id, flags)
    assert decode(context.encode()) == context


@given(st.binary(max_size=80))
def test_anything_else_is_survived(value: bytes) -> None:
    context = decode(value)
    assert context is None or decode(context.encode()) == context


def test_server_timing() -> None:
    assert line(0.000412) == b"Server-Timing: proxy;dur=0.412\r\n"
    assert line(12.5) == b"Server-Timing: proxy;dur=12500.000\r\n"
    assert line(0.0) == b"Server-Timing: proxy;dur=0.000\r\n"
