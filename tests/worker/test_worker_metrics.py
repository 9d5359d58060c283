"""What a worker counts, as Prometheus reads it."""

from __future__ import annotations

import re

import pytest

from fairway.worker.metrics import BACKEND, DEPARTED, ITEMS, REASONS, SECONDS, Metrics

LINE = re.compile(r'(fairway_worker_[a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')


def read(text: str) -> dict[str, float]:
    """`name{labels}` -> value; every line is one that Prometheus understands, every family has its help and type."""
    found: dict[str, float] = {}
    types: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match, line
            name = match[1]
            assert name in types or re.sub("_(bucket|sum|count)$", "", name) in types, line
            key = f"{name.removeprefix('fairway_worker_')}{{{match[2]}}}"
            assert key not in found
            found[key] = float(match[3])
    return found


def test_what_was_counted_is_shown() -> None:
    metrics = Metrics()
    counts = metrics.of("flowers", 3)
    counts.called(1)
    counts.called(5)
    counts.answered(0.0002, 0.0011, 0.003)
    counts.answered(0.02, 0.0, 100.0)
    counts.failed(BACKEND)
    counts.pending = 7
    metrics.encoded("flowers", 3, 0.00005)
    metrics.encoded("never heard of", 1, 1.0)
    found = read(metrics.text())
    labels = 'model="flowers",version="3"'
    assert {key: value for key, value in found.items() if value and "bucket" not in key} == {
        f"request_success{{{labels}}}": 2,
        f'request_failure{{{labels},reason="BACKEND"}}': 1,
        f"inference_count{{{labels}}}": 6,
        f"exec_count{{{labels}}}": 2,
        f"pending{{{labels}}}": 7,
        f"batch_size_sum{{{labels}}}": 6,
        f"batch_size_count{{{labels}}}": 2,
        f"queue_seconds_sum{{{labels}}}": pytest.approx(0.0202),
        f"queue_seconds_count{{{labels}}}": 2,
        f"decode_seconds_sum{{{labels}}}": 0.0011,
        f"decode_seconds_count{{{labels}}}": 1,  # the other had nothing to decode
        f"infer_seconds_sum{{{labels}}}": 100.003,
        f"infer_seconds_count{{{labels}}}": 2,
        f"encode_seconds_sum{{{labels}}}": 0.00005,
        f"encode_seconds_count{{{labels}}}": 1,
    }
    sizes = [found[f'batch_size_bucket{{{labels},le="{bound}"}}'] for bound in (*ITEMS, "+Inf")]
    assert sizes == [1, 1, 1, *[2] * 9]
    infer = [found[f'infer_seconds_bucket{{{labels},le="{bound}"}}'] for bound in (*SECONDS, "+Inf")]
    assert infer == [*[0] * 5, *[1] * 12, 2]
    assert repr(metrics) == "<Metrics [2 answered, 1 failed | 6 items in 2 calls]>"


def test_every_reason_has_its_line_from_the_start() -> None:
    """A rate needs a zero to begin with."""
    metrics = Metrics()
    metrics.of('odd "name"\n\\', 1)
    found = read(metrics.text())
    assert sum(value == 0 and key.startswith("request_failure") for key, value in found.items()) == len(REASONS)
    assert all(r'model="odd \"name\"\n\\"' in key for key in found)


def test_versions_that_left_are_forgotten_in_the_end() -> None:
    metrics = Metrics()
    for version in range(DEPARTED + 10):
        metrics.of("m", version).called(1)
        metrics.left("m", version)
    stays = metrics.of("m", 1000)
    metrics.left("m", 1000)
    assert metrics.of("m", 1000) is stays  # it came back
    for version in range(DEPARTED):
        metrics.of("n", version)
        metrics.left("n", version)
    found = {key for key in read(metrics.text()) if key.startswith("inference_count")}
    assert len(found) == DEPARTED + 1
    assert 'inference_count{model="m",version="1000"}' in found
