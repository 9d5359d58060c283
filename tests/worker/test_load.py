"""How busy a worker says it is: what is written, what is read, what is made of junk."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.wire.load import FIELD, MAX_BYTES, NOTHING, Load, decode, encode

from .door import PATIENCE, RED, Door, answer, head


def test_it_is_the_text_form_of_orca() -> None:
    assert FIELD == "endpoint-load-metrics"
    assert encode(3, 2, 0.5) == "TEXT named_metrics.in_flight=3, named_metrics.queue=2, application_utilization=0.50"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 4))
def test_what_is_written_is_read(in_flight: int, queue: int, utilisation: float) -> None:
    read = decode(encode(in_flight, queue, utilisation).encode())
    assert (read.in_flight, read.queue) == (in_flight, queue)
    assert read.utilisation == pytest.approx(utilisation, abs=0.005)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"TEXT named_metrics.in_flight=3", Load(3)),
        (b"  TEXT  named_metrics.queue = 2 ,application_utilization=1.5 ", Load(None, 2, 1.5)),
        (b"TEXT cpu_utilization=0.3,rps_fractional=10,named_metrics.in_flight=1,named_metrics.x=9", Load(1)),
        (b"TEXT named_metrics.in_flight=1,named_metrics.in_flight=2", Load(2)),
        (b"TEXT named_metrics.in_flight=1e99", Load(1e9)),  # bounded
        (b"TEXT named_metrics.in_flight=7, named_metrics.queue=x, application_utilization=", Load(7)),
        (b"TEXT named_metrics.in_flight=-1", NOTHING),
        (b"TEXT named_metrics.in_flight=nan, named_metrics.queue=inf", NOTHING),
        (b"TEXT in_flight=3", NOTHING),
        (b'JSON {"named_metrics": {"in_flight": 3}}', NOTHING),
        (b"BIN AAAA", NOTHING),
        (b"text named_metrics.in_flight=3", NOTHING),
        (b"TEXT", NOTHING),
        (b"", NOTHING),
        (b"TEXT ,,==,=", NOTHING),
        (b"TEXT \xff\xfe=\x00, named_metrics.in_flight=3", Load(3)),
        (b"TEXT named_metrics.in_flight=3" + b" " * MAX_BYTES, NOTHING),
    ],
)
def test_as_much_is_read_as_can_be(value: bytes, expected: Load) -> None:
    assert decode(value) == expected


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda junk: b"TEXT named_metrics.in_flight=" + junk))
def test_junk_never_raises_and_never_counts_for_much(value: bytes) -> None:
    read = decode(value)
    assert all(each is None or 0 <= each <= 1e9 for each in (read.in_flight, read.queue, read.utilisation))


async def told(door: Door, request: bytes) -> tuple[int, Load]:
    reader, writer = await door.raw(request)
    status, headers, _ = await answer(reader)
    writer.close()
    return status, decode(headers[FIELD].encode())


async def test_every_answer_tells_what_is_left_to_do_besides(warm: Door) -> None:
    """`max_waiting` is 1: with one picture in the model it is full."""
    upload = head(Content_Length=len(RED)) + RED
    expecting = head(Content_Length=len(RED), Expect="100-continue")
    assert await told(warm, upload) == (200, Load(0, 0, 0))
    assert await told(warm, head("GET", "/readyz")) == (200, Load(0, 0, 0))
    assert await told(warm, head("GET", "/nothing")) == (404, Load(0, 0, 0))
    warm.model.gate.clear()
    warm.model.entered.clear()
    held = asyncio.create_task(told(warm, upload))
    assert await asyncio.to_thread(warm.model.entered.wait, PATIENCE)
    assert await told(warm, head("GET", "/healthz")) == (200, Load(1, 0, 1))
    assert await told(warm, upload) == (429, Load(1, 0, 1))
    assert await told(warm, expecting) == (429, Load(1, 0, 1))  # refused before the body
    warm.model.gate.set()
    assert await held == (200, Load(0, 0, 0))
    await warm.is_well()
