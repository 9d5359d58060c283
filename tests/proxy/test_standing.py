"""How workers stand: one word for each, and several processes' views as one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fairway.client.pool import Pool
from fairway.client.upstream import Outcome, Upstream
from fairway.proxy.standing import View, merge, view, word
from fairway.registry.instance import Address, Instance

ONE = Instance("w1", "classify", Address("::1", 9001), "1.2.3")
TWO = Instance("w2", "classify", Address("127.0.0.1", 9002), weight=3)


def pool(*instances: Instance) -> Pool:
    made = Pool()
    made.update(instances, 0.0)
    return made


def look(made: Pool, now: float = 0.0) -> View:
    return view("auto", True, {"classify": made}, now)


def fail(made: Pool, upstream: Upstream, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        made.started(upstream, now)
        made.finished(upstream, Outcome.CONNECTION, now)


def test_a_view_is_json_with_all_there_is_to_know() -> None:
    made = pool(ONE, TWO)
    first, second = made.upstreams
    made.started(first, 1.0)
    made.started(second, 1.0)
    made.finished(second, Outcome.ANSWERED, 1.0, 0.25)
    fail(made, second, 1, 1.0)
    made.busy(second, 4.0)
    seen = look(made, 1.0)
    assert json.loads(json.dumps(seen)) == seen
    assert (seen["mode"], seen["registry_connected"]) == ("auto", True)
    assert seen["services"]["classify"][0] == {
        "id": "w1",
        "host": "::1",
        "port": 9001,
        "url": "http://[::1]:9001/",
        "version": "1.2.3",
        "state": "passing",
        "available": True,
        "in_flight": 1,
        "enabled": True,
        "suspect": False,
        "weight": 1,
        "failures": {},
        "ejections": 0,
        "ejected_for": 0.0,
        "busy_for": 0.0,
        "latency": 0.0,
    }
    other = seen["services"]["classify"][1]
    assert (other["weight"], other["failures"], other["busy_for"]) == (3, {"connection": 1}, 3.0)
    assert other["latency"] > 0


def test_an_ejection_is_counted_down() -> None:
    made = pool(ONE, TWO)
    fail(made, made.upstreams[0], 3, 10.0)
    for now, left in ((10.0, 5.0), (12.5, 2.5), (15.0, 0.0), (100.0, 0.0)):
        row = look(made, now)["services"]["classify"][0]
        assert (row["ejected_for"], row["ejections"]) == (left, 1)
        assert word(row) == ("ejected" if left else "passing")
    made.started(made.upstreams[0], 20.0)
    assert word(look(made, 20.0)["services"]["classify"][0]) == "trial"


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        (ONE, "passing"),
        (replace(ONE, state="draining"), "draining"),
        (replace(ONE, state="critical", suspect=True), "critical"),
        (replace(ONE, state="draining", enabled=False), "disabled"),
        (replace(ONE, suspect=True), "suspect"),
        (replace(ONE, weight=0), "resting"),
    ],
)
def test_one_word(instance: Instance, expected: str) -> None:
    assert word(look(pool(instance))["services"]["classify"][0]) == expected


def test_the_stronger_word_wins() -> None:
    made = pool(ONE, TWO)
    made.busy(made.upstreams[0], 9.0)
    assert word(look(made, 1.0)["services"]["classify"][0]) == "busy"
    fail(made, made.upstreams[0], 3, 1.0)
    assert word(look(made, 1.0)["services"]["classify"][0]) == "ejected"
    made.update([replace(ONE, state="draining"), TWO], 1.0)
    assert word(look(made, 1.0)["services"]["classify"][0]) == "draining"


def test_processes_see_together() -> None:
    one, two = pool(ONE, TWO), pool(ONE, replace(TWO, id="w3"))
    one.started(one.upstreams[0], 0.0)
    one.started(one.upstreams[0], 0.0)
    fail(two, two.upstreams[0], 3)
    two.started(two.upstreams[0], 6.0)
    views = [look(one), look(two), view("auto", False, {"embed": pool(replace(ONE, service="embed"))}, 0.0)]
    before = json.dumps(views)
    seen = merge(views)
    assert json.dumps(views) == before, "those given are left as they are"
    assert list(seen["services"]) == ["classify", "embed"]
    assert [row["id"] for row in seen["services"]["classify"]] == ["w1", "w2", "w3"]
    row = seen["services"]["classify"][0]
    assert (row["in_flight"], row["available"], row["ejected_for"]) == (3, False, 5.0)
    assert (row["ejections"], row["failures"]) == (1, {"connection": 3})
    assert seen["registry_connected"] is False, "one of them has lost it"
    assert merge(views[:1]) == views[0]
