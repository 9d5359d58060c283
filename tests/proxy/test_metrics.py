"""The proxy's numbers: counted right, read by a strict reader, bounded whatever comes, and added up over processes."""

from __future__ import annotations

import json
import os
import re
import timeit
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fairway.client.pool import Pool
from fairway.proxy.metrics import (
    BUCKETS,
    DEPARTED,
    METRICS,
    MOST_SERVICES,
    MOST_WORKERS,
    Metrics,
    Usage,
    ended,
    merge,
    text,
)
from fairway.proxy.standing import View, view
from fairway.proxy.usage import usage
from fairway.registry.instance import Address, Instance

from ..conftest import ROOT
from .exposition import Family, read

USED = Usage(1.5, 20_000_000, 12, 1.7e9)
P = "fairway_proxy_"


def seeing(*ids: str, service: str = "classify", connected: bool = True) -> View:
    pool = Pool()
    pool.update([Instance(id, service, Address("127.0.0.1", 9001 + i)) for i, id in enumerate(ids)], 0.0)
    return view("auto", connected, {service: pool} if ids else {}, 0.0)


def shown(metrics: Metrics, seen: View) -> dict[str, Family]:
    return read(text(metrics.snapshot(seen, USED), seen))


def requests(found: dict[str, Family], service: str, worker: str, code: str) -> float:
    return found[P + "requests_total"].value(service=service, worker=worker, code=code)


def test_requests_by_service_worker_and_code() -> None:
    metrics = Metrics("classify")
    for status in (200, 200, 413):
        metrics.answered("classify", "w1", status, 0.01)
    metrics.answered("classify", "", 503, 2.0)
    found = shown(metrics, seeing("w1"))
    assert requests(found, "classify", "w1", "200") == 2
    assert requests(found, "classify", "w1", "413") == 1
    assert requests(found, "classify", "", "503") == 1


def test_a_histogram_of_durations() -> None:
    metrics = Metrics("classify")
    for seconds in (0.0005, 0.001, 0.0011, 0.3, 60.0, 61.0):
        metrics.answered("classify", "w1", 200, seconds)
    family = shown(metrics, seeing("w1"))[P + "request_duration_seconds"]
    below = {bound: family.value("_bucket", service="classify", le=str(bound)) for bound in BUCKETS}
    assert (below[0.001], below[0.0025], below[0.25], below[0.5], below[60.0]) == (2, 3, 3, 4, 5), "bounds are within"
    assert family.value("_count", service="classify") == 6
    assert abs(family.value("_sum", service="classify") - 121.3026) < 1e-6


def test_everything_has_a_metric() -> None:
    metrics = Metrics("classify")
    plain = {metric.field for metric in METRICS if metric.field}
    for number, name in enumerate(sorted(plain), 1):
        setattr(metrics, name, number)
    metrics.answered("classify", "w1", 200, 0.01)
    metrics.retried("classify", "not sent")
    metrics.ejected("classify", "w1")
    found = shown(metrics, seeing("w1", "w2"))
    assert set(found) == {P + metric.name for metric in METRICS}
    for number, name in enumerate(sorted(plain), 1):
        [metric] = [metric for metric in METRICS if metric.field == name]
        assert found[P + metric.name].value() == number
    assert found[P + "retries_total"].value(service="classify", reason="not sent") == 1
    assert found[P + "ejections_total"].value(service="classify", worker="w1") == 1
    assert found[P + "workers"].value(service="classify", state="passing") == 2
    assert found[P + "worker_available"].value(service="classify", worker="w2") == 1
    assert found[P + "process_resident_memory_bytes"].value() == 20_000_000
    assert found[P + "processes"].value() == 1
    assert found[P + "registry_connected"].value() == 1
    assert shown(metrics, seeing(connected=False))[P + "registry_connected"].value() == 0


@given(st.text(), st.text(), st.integers(100, 999))
def test_names_are_texts_whatever_they_hold(service: str, worker: str, status: int) -> None:
    metrics = Metrics(service)
    metrics.answered(service, worker, status, 0.01)
    metrics.ejected(service, worker)
    read(text(metrics.snapshot(seeing(), USED), seeing()))


def test_halves_of_characters_do_not_stop_a_scrape() -> None:
    metrics = Metrics("\ud800")
    metrics.answered("\ud800", "w\udfff\n", 200, 0.01)
    assert requests(shown(metrics, seeing()), "?", "w?\n", "200") == 1


def test_services_that_nobody_knows_have_no_name() -> None:
    metrics = Metrics("classify")
    for i in range(5000):
        metrics.answered(f"made up {i}", "", 404, 0.001)
        metrics.retried(f"made up {i}", "not sent")
    assert shown(metrics, seeing())[P + "retries_total"].value(service="other", reason="not sent") == 5000
    found = shown(metrics, seeing("w1", service="embed"))
    assert requests(found, "other", "", "404") == 5000
    assert len(found[P + "requests_total"].samples) == 1
    metrics.answered("embed", "", 503, 0.001)
    assert requests(shown(metrics, seeing()), "embed", "", "503") == 1, "its worker was seen"
    metrics.answered("segment", "w2", 200, 0.001)
    metrics.answered("segment", "", 503, 0.001)
    assert requests(shown(metrics, seeing()), "segment", "", "503") == 1, "its worker answered"


def test_series_are_bounded() -> None:
    metrics = Metrics("classify")
    for i in range(MOST_WORKERS + 50):
        for status in range(100, 1000, 7):
            metrics.answered("classify", f"w{i}", status, 0.01)
    for i in range(MOST_SERVICES * 2):
        metrics.answered(f"service {i}", "w", 200, 0.01)
        metrics.ejected(f"service {i}", "w")
    found = metrics.snapshot(seeing(), USED)
    workers = {tuple(labels[:2]) for labels, _ in found["requests_total"]}
    assert len({worker for _, worker in workers}) <= MOST_WORKERS + 1
    assert len({service for service, _ in workers}) <= MOST_SERVICES + 1
    assert len({labels[2] for labels, _ in found["requests_total"]}) < 75
    assert sum(numbers[0] for _, numbers in found["requests_total"]) == (MOST_WORKERS + 50) * 129 + MOST_SERVICES * 2
    assert len(found["ejections_total"]) <= MOST_SERVICES + 1


def test_a_code_that_nobody_knows_counts_as_its_class() -> None:
    metrics = Metrics("classify")
    metrics.answered("classify", "w1", 599, 0.01)
    metrics.answered("classify", "w1", 599, 0.01)
    metrics.answered("classify", "", 499, 0.01)
    found = shown(metrics, seeing())
    assert requests(found, "classify", "w1", "500") == 2
    assert requests(found, "classify", "", "499") == 1, "the client went away"


def test_who_left_is_shown_for_a_while_and_then_forgotten() -> None:
    metrics = Metrics("classify")
    many = [f"w{i:03d}" for i in range(DEPARTED + 10)]
    for worker in many:
        metrics.answered("classify", worker, 200, 0.01)
        metrics.ejected("classify", worker)
    first = shown(metrics, seeing("w000"))
    assert len(first[P + "requests_total"].samples) == len(many), "their last numbers are read once more"
    assert list(first[P + "worker_in_flight"].samples) == [("", (("service", "classify"), ("worker", "w000")))]
    second = shown(metrics, seeing("w000"))
    assert requests(second, "classify", "w000", "200") == 1, "it is there, however long ago it came"
    kept = {dict(labels)["worker"] for _, labels in second[P + "requests_total"].samples}
    assert kept == {"w000", *many[-DEPARTED:]}
    assert {dict(labels)["worker"] for _, labels in second[P + "ejections_total"].samples} == kept
    assert second[P + "request_duration_seconds"].value("_count", service="classify") == len(many), "all are counted"


def test_processes_of_one_proxy_add_up() -> None:
    one, two = Metrics("classify"), Metrics("classify")
    one.answered("classify", "w1", 200, 0.01)
    two.answered("classify", "w1", 200, 7.0)
    two.answered("classify", "w2", 502, 0.01)
    one.in_flight, two.in_flight = 3, 4
    seen = seeing("w1", "w2")
    snapshots = [
        json.loads(json.dumps(metrics.snapshot(seen, Usage(1.5, 10, 5, started)))) | {"of another version": [[[], [1]]]}
        for metrics, started in ((one, 100.0), (two, 90.0))
    ]
    assert b"\nfairway_proxy_processes 2\n" in text(merge(snapshots), seen), "counts are whole, compiled or not"
    found = read(text(merge(snapshots), seen))
    assert requests(found, "classify", "w1", "200") == 2
    assert requests(found, "classify", "w2", "502") == 1
    durations = found[P + "request_duration_seconds"]
    assert durations.value("_count", service="classify") == 3
    assert durations.value("_bucket", service="classify", le="0.01") == 2
    assert found[P + "in_flight"].value() == 7
    assert found[P + "processes"].value() == 2
    assert found[P + "process_cpu_seconds_total"].value() == 3
    assert found[P + "process_start_time_seconds"].value() == 90
    left = read(text(merge([snapshots[0], ended(snapshots[1])]), seen))
    assert requests(left, "classify", "w1", "200") == 2, "what an ended process counted stays counted"
    assert left[P + "in_flight"].value() == 3
    assert left[P + "process_cpu_seconds_total"].value() == 3


def test_what_this_process_takes() -> None:
    before = usage()
    assert before.cpu_seconds > 0
    assert before.resident_bytes is not None
    assert before.open_files is not None
    assert before.started is not None
    assert before.resident_bytes > 1_000_000
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(7)]
    assert usage().open_files == before.open_files + 7
    for file in opened:
        os.close(file)
    assert usage(Path("/nowhere")).resident_bytes is None, "where there is no /proc"
    without = read(text(Metrics().snapshot(seeing(), usage(Path("/nowhere"))), seeing()))
    assert P + "process_open_fds" not in without
    assert P + "process_cpu_seconds_total" in without


def test_the_documentation_has_them_all() -> None:
    told = (ROOT / "docs/observing.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\|", told, re.MULTILINE)
    assert [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows] == [
        (metric.name, metric.kind, metric.labels) for metric in METRICS
    ]


def test_counting_is_cheap() -> None:
    metrics = Metrics("classify")
    metrics.answered("classify", "w1", 200, 0.0123)
    best = min(timeit.repeat(lambda: metrics.answered("classify", "w1", 200, 0.0123), number=20_000, repeat=5)) / 20_000
    assert best < 5e-6, "meant are 0.3 us; a slow machine may take ten times as long"
