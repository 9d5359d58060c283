"""Windows and what is counted in them; against plain lists of the same numbers."""

from __future__ import annotations

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.client.bench import tally as module
from fairway.client.bench.tally import BUSY, CUT_OFF, NOT_SENT, PERCENTILES, TIMEOUT, Reply, Tally, figures

OK = Reply(size=1000)
latencies = st.lists(st.floats(0.0001, 60.0), min_size=1, max_size=300)


def ranked(values: list[float], percent: float) -> float:
    """As HdrHistogram has it: the smallest that so many are not above."""
    return sorted(values)[max(int(percent * len(values) / 100 + 0.5), 1) - 1]


@given(latencies)
def test_percentiles_are_right_to_a_thousandth(values: list[float]) -> None:
    tally = Tally(0.0, 1000.0)
    for i, value in enumerate(values):
        tally.record(i * 0.1, i * 0.1, i * 0.1 + value, OK)
    found = tally.figures()
    assert (found.sent, found.answered, found.failed) == (len(values), len(values), 0)
    for name, percent in PERCENTILES.items():
        assert found.latency[name] == pytest.approx(ranked(values, percent), rel=0.002, abs=2e-6)
    assert found.latency["max"] == pytest.approx(max(values))
    assert found.latency["mean"] == pytest.approx(sum(values) / len(values))
    assert all(found.latency[name] <= found.latency["max"] for name in PERCENTILES)


@settings(max_examples=30)  # adding up histograms is slow
@given(latencies, st.integers(0, 300))
def test_windows_together_are_one_long_window(values: list[float], cut: int) -> None:
    whole, parts = Tally(0.0, 200.0), [Tally(0.0, 100.0), Tally(50.0, 150.0)]
    for i, value in enumerate(values):
        reply = Reply(timing=f"queue;dur={value * 100:.2f}, infer;dur=1", worker=f"w:{i % 3}", size=10)
        parts[i >= cut].record(60.0, 60.0, 60.0 + value, reply)
        whole.record(60.0, 60.0, 60.0 + value, reply)
    together, alone = figures(parts), whole.figures()
    assert together.seconds == alone.seconds == 200
    assert together.latency == pytest.approx(alone.latency)
    assert together.workers == alone.workers
    assert together.histogram == alone.histogram
    for part, both in alone.parts.items():
        assert together.parts[part] == pytest.approx(both)


def test_the_histogram_can_be_read_by_others() -> None:
    tally = Tally(0.0, 10.0)
    for value in (0.001, 0.002, 0.5):
        tally.record(1.0, 1.0, 1.0 + value, OK)
    read = HdrHistogram.decode(tally.figures().histogram)
    assert read.get_total_count() == 3
    assert read.get_max_value() == pytest.approx(500_000, rel=0.001)


def test_latency_counts_from_when_it_was_due() -> None:
    tally = Tally(0.0, 10.0)
    tally.record(1.0, 3.0, 3.5, OK)  # this program itself was late
    found = tally.figures()
    assert found.latency["max"] == pytest.approx(2.5)
    assert found.parts["client"][0] == pytest.approx(2.0)


def test_what_is_due_in_the_window_counts_whenever_it_is_answered() -> None:
    tally = Tally(10.0, 20.0)
    tally.record(9.9, 9.9, 11.0, OK)  # of the warm-up: its answer is throughput, its latency is not ours
    tally.record(19.9, 19.9, 25.0, OK)  # the other way round
    tally.record(20.0, 20.0, 20.1, OK)
    found = tally.figures()
    assert (found.sent, found.answered) == (1, 1)
    assert found.latency["max"] == pytest.approx(5.1)
    assert found.rate == pytest.approx(0.1)
    assert found.bytes_per_second == pytest.approx(100)


def test_a_timeout_is_late_and_other_failures_are_not_quick_answers() -> None:
    tally = Tally(0.0, 10.0)
    tally.record(1.0, 1.0, 1.01, OK)
    tally.record(1.0, 1.0, 4.0, Reply(TIMEOUT, "no answer"))
    tally.record(1.0, 1.0, 1.0001, Reply("429", "full"))
    tally.record(1.0, 1.0, 1.0, Reply(NOT_SENT, "1 in flight"))
    found = tally.figures()
    assert (found.sent, found.answered) == (3, 1)  # the last one was not sent, and is not lost either
    assert found.errors == {TIMEOUT: 1, "429": 1, NOT_SENT: 1}
    assert found.latency["max"] == pytest.approx(3.0)
    assert found.latency["p50"] == pytest.approx(0.01, rel=0.002)
    assert found.examples == {TIMEOUT: "no answer", "429": "full", NOT_SENT: "1 in flight"}


def test_where_the_time_went() -> None:
    tally = Tally(0.0, 10.0)
    said = "queue;dur=1.0, decode;dur=2, infer;dur=3.00, encode;dur=0.5, proxy;dur=0.25, miss, db;dur=7"
    tally.record(1.0, 1.001, 1.010, Reply(timing=said))
    parts = {part: mean for part, (mean, _) in tally.figures().parts.items()}
    assert parts == pytest.approx(
        {"client": 0.001, "network": 0.00225, "proxy": 0.00025, "queue": 0.001, "decode": 0.002, "infer": 0.003}
        | {"encode": 0.0005}
    )
    assert sum(parts.values()) == pytest.approx(0.010)


def test_who_says_nothing_is_not_split() -> None:
    tally = Tally(0.0, 10.0)
    tally.record(1.0, 1.0, 1.5, OK)
    assert tally.figures().parts.keys() == {"client"}
    tally.record(1.0, 1.0, 1.5, Reply(timing="proxy;dur=3"))  # the rest may be the worker's
    assert tally.figures().parts.keys() == {"client", "proxy"}


def test_nobody_there_is_counted_in_a_row() -> None:
    tally = Tally(0.0, 10.0)
    for kind in ("connect", "broken", "503"):
        tally.record(1.0, 1.0, 1.0, Reply(kind))
    assert tally.failures == 3
    for kind in BUSY:
        tally.failures = 3
        tally.record(1.0, 1.0, 1.0, Reply(kind))
        assert tally.failures == 0


def test_what_was_not_sent_says_nothing_of_who_is_there() -> None:
    """A host that drops packets: connecting takes its time, meanwhile more are due than may be under way."""
    tally = Tally(0.0, 10.0)
    for number in range(5):
        tally.record(1.0, 1.0, 3.0, Reply("connect", f"cannot reach {number}"))
        tally.record(1.0, 1.0, 1.0, Reply(NOT_SENT, "1 in flight"))
    assert (tally.failures, tally.failure) == (5, "cannot reach 4")


@pytest.mark.parametrize("wanted", [True, False])
def test_what_was_cut_off_has_waited_and_is_an_error_unless_it_was_wanted(wanted: bool) -> None:
    tally = Tally(0.0, 10.0)
    tally.record(1.0, 1.0, 1.01, OK)
    tally.record(1.0, 1.0, 5.0, Reply(CUT_OFF, "no answer"))
    tally.cut(5.0, wanted)
    found = figures([tally])
    assert (found.sent, found.answered) == (2, 1)
    assert found.latency["max"] == pytest.approx(4.0)
    assert (found.cut_off, found.errors) == ((1, {}) if wanted else (0, {CUT_OFF: 1}))


def test_cut_short() -> None:
    tally = Tally(10.0, 20.0)
    tally.record(10.0, 10.0, 11.0, OK)
    tally.cut(12.0)
    assert tally.figures().rate == pytest.approx(0.5)
    before = Tally(10.0, 20.0)
    before.cut(5.0)  # still in its warm-up
    assert (before.figures().rate, before.figures().latency) == (0.0, {})


def test_nothing_is_held_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD", 10)
    tally = Tally(0.0, 10.0)
    for i in range(50):
        tally.record(1.0, 1.0, 1.0 + i / 100, OK)
        assert len(tally._held) <= 10
    assert tally.figures().latency["max"] == pytest.approx(0.49)


def test_longer_than_can_be_told() -> None:
    tally = Tally(0.0, 10.0)
    tally.record(1.0, 1.0, 10_000.0, OK)
    assert tally.figures().latency["p50"] == pytest.approx(3600, rel=0.002)
