"""Tables, CSV, JSON and the picture, from levels that were never measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fairway.client.bench import report
from fairway.client.bench.config import LoadSettings
from fairway.client.bench.course import Level, Result
from fairway.client.bench.demand import Demand
from fairway.client.bench.plot import draw
from fairway.client.bench.tally import CUT_OFF, NOT_SENT, TIMEOUT, Reply, Tally
from fairway.client.bench.way import Way

WAYS = (Way("127.0.0.1:1", "address", 1.0), Way("127.0.0.1:1", "forward", 1.0))
SAID = "queue;dur=1, decode;dur=2, infer;dur=3, encode;dur=0.5"


def level(way: Way, demand: Demand, answers: int, latency: float, cpu: float = 0.1, late: float = 0.0) -> Level:
    tally = Tally(0.0, 10.0)
    for i in range(answers):
        due = i * 10.0 / answers
        tally.record(due, due + late, due + latency, Reply(timing=SAID, worker=f"w:{i % 2}", size=50_000))
    tally.client_cpu = cpu * 10
    tally.settle()
    return Level(way, demand, [tally])


@pytest.fixture
def result() -> Result:
    levels = [
        level(way, demand, n * (2 - i), 0.02 / (2 - i))
        for n, demand in ((100, Demand("closed", 1)), (200, Demand("closed", 8)), (50, Demand("open", 7.5)))
        for i, way in enumerate(WAYS)
    ]
    return Result(0.0, levels, pictures=3)


def test_columns_stand_under_each_other(result: Result) -> None:
    first, parts = report.text(result).split("\n\n")[0], report.text(result).split("\n\n")[2]
    for lines in (first.splitlines(), parts.splitlines()):
        assert len(lines) == 7
        assert len({len(line) for line in lines}) == 1  # numbers end at the right
    words = " ".join(first.splitlines()[1].split())
    assert words == "address 1 client 200 200 20.0 1.00 10.0 10.0 10.0 10.0 - 10.0 0 10%"
    words = " ".join(parts.splitlines()[1].split())
    assert words.endswith("client 0.00 (0.00) 3.50 (3.50) - 1.00 (1.00) 2.00 (2.01) 3.00 (3.01) 0.50 (0.50)")


@pytest.mark.parametrize(("answers", "shown"), [(999, "-"), (1000, "10.0")])
def test_one_of_a_thousand_is_told_of_a_thousand(answers: int, shown: str) -> None:
    line = report.text(Result(0.0, [level(WAYS[0], Demand("closed", 1), answers, 0.01)])).splitlines()[1]
    assert line.split()[-4:] == [shown, "10.0", "0", "10%"]


def test_both_loops_are_explained_only_where_they_are(result: Result) -> None:
    assert all(note in report.text(result) for note in report.NOTES.values())
    closed = Result(0.0, result.levels[:2])
    assert report.NOTES["open"] not in report.text(closed)


def test_errors_with_what_was_said(result: Result) -> None:
    tally = result.levels[0].windows[0]
    tally.record(1.0, 1.0, 2.5, Reply(TIMEOUT, "no answer"))
    for _ in range(3):
        tally.record(1.0, 1.0, 1.0, Reply("429", "http://w answered 429: full"))
    text = report.text(result)
    assert (
        "address  1 client  3  429      http://w answered 429: full\naddress  1 client  1  timeout  no answer\n" in text
    )
    assert "timeout: in the percentiles, with the time it waited\n" in text
    assert "not in the percentiles" not in text
    tally.record(1.0, 1.0, 1.0, Reply(NOT_SENT, "1 in flight"))
    assert "not sent: not in the percentiles, which would be worse" in report.text(result)


def test_what_the_user_cut_off_is_said_and_is_no_error(result: Result) -> None:
    tally = result.levels[0].windows[0]
    tally.record(1.0, 1.0, 2.5, Reply(CUT_OFF, "no answer"))
    tally.cut(5.0, wanted=True)
    text = report.text(result)
    assert "cut off: 1 under way at the interruption" in text
    assert "errors\n" not in text


def test_who_answered(result: Result) -> None:
    assert "answered by\naddress: w:0 50.0%, w:1 50.0%\nforward: w:0 50.0%, w:1 50.0%" in report.text(result)


@pytest.mark.parametrize(
    ("cpu", "late", "expected"),
    [
        (0.95, 0.0, "more than 90% of a core"),
        (0.2, 0.0125, "sent late, at address 4 clients by 12.5 ms"),
        (0.2, 0.0, ""),
    ],
)
def test_who_measures_himself_is_warned(cpu: float, late: float, expected: str) -> None:
    text = report.text(Result(0.0, [level(WAYS[0], Demand("closed", 4), 100, 0.02, cpu, late)]))
    assert ("warning" in text) is bool(expected)
    assert expected in text


def test_nothing_at_all() -> None:
    assert report.text(Result(0.0, ended="interrupted")) == (
        "nothing was measured\n\nwarning: ended before its time: interrupted\n"
    )


def test_many_pictures_that_were_not_sent(result: Result) -> None:
    result.set_aside = {f"{i}.jpg": f"it is {i}" for i in range(9)}
    assert (
        "not sent: 9 pictures: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 4 more; the first because it is 0"
        in report.text(result)
    )


def test_only_windows_that_agree_are_reported(result: Result) -> None:
    mine = result.levels[0]
    mine.windows = [level(WAYS[0], mine.demand, n, 0.01).windows[0] for n in (900, 100, 100, 102)]
    assert mine.figures().sent == 1202  # all, where stability was not asked for
    assert mine.judge()
    assert mine.figures().sent == 302
    mine.windows.append(level(WAYS[0], mine.demand, 200, 0.01).windows[0])
    assert not mine.judge()
    assert "not stable: address 1 client" in report.text(result)
    assert "no, of 5" in report.text(result)


def test_json_and_csv_hold_the_same(result: Result, tmp_path: Path) -> None:
    settings = LoadSettings(images=tmp_path)
    found = json.loads(json.dumps(report.document(settings, result)))
    rows = list(csv.DictReader(report.table(result).splitlines()))
    assert len(rows) == len(found["levels"]) == 6
    for row, one in zip(rows, found["levels"], strict=True):
        assert tuple(row) == report.COLUMNS
        assert (row["way"], float(row["rate"]), int(row["sent"])) == (one["way"], one["rate"], one["sent"])
        assert float(row["p99_ms"]) == one["latency_ms"]["p99"]
        assert float(row["infer_mean_ms"]) == one["parts_ms"]["infer"]["mean"] == pytest.approx(3)
        assert row["proxy_mean_ms"] == ""
        assert row["workers"] == f"w:0={one['workers']['w:0']} w:1={one['workers']['w:1']}"


@pytest.mark.parametrize("name", ["load.svg", "load.png"])
@pytest.mark.parametrize("number", [0, 1, 6])
def test_the_picture(result: Result, number: int, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    draw(result.levels[:number], file)
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    if name.endswith("svg") and number == 6:
        text = data.decode()
        for word in ("address, closed loop, p50", "forward, open loop, p99", "answers a second", "latency, ms"):
            assert f"<!-- {word} -->" in text
