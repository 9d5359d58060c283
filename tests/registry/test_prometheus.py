"""What Prometheus reads: http_sd and the text format, pure and over HTTP."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fairway.registry import Hub
from fairway.registry.instance import Address, Instance
from fairway.registry.prometheus import METRICS, metrics, targets
from fairway.registry.wire import Hello, Register

from .caller import calling
from .peers import greeted, row

ROW = Instance(
    "A1",
    "classify",
    Address("::1", 9001),
    "1.2.3",
    "draining",
    models=("flowers", "birds"),
    tags=("blue", "gpu"),
)


def test_one_group_an_instance() -> None:
    [group] = json.loads(targets([ROW]))
    assert group == {
        "targets": ["[::1]:9001"],
        "labels": {
            "__meta_fairway_service": "classify",
            "__meta_fairway_version": "1.2.3",
            "__meta_fairway_id": "A1",
            "__meta_fairway_model": "flowers,birds",
            "__meta_fairway_state": "draining",
            "__meta_fairway_tags": ",blue,gpu,",
        },
    }
    [group] = json.loads(targets([replace(ROW, enabled=False)]))
    assert group["labels"]["__meta_fairway_state"] == "disabled"


@given(st.text(), st.text(), st.lists(st.text()))
def test_labels_are_texts_whatever_they_hold(id: str, version: str, tags: list[str]) -> None:
    [group] = json.loads(targets([Instance(id, "classify", Address("127.0.0.1", 1), version, tags=tuple(tags))]))
    assert all(isinstance(value, str) for value in group["labels"].values())
    assert group["labels"]["__meta_fairway_id"] == id


SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z]+="(?:[^"\\\n]|\\.)*"(?:,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? (\d+)'
)


def samples(text: str) -> dict[str, int]:
    """As strict as a scraper: each family has its HELP and TYPE before its samples."""
    assert text.endswith("\n")
    found: dict[str, int] = {}
    known: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, what = line.split(" ", 3)
            if word == "TYPE":
                assert name not in known
                assert what in ("gauge", "counter")
                known[name] = what
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] in known
        assert match[1].endswith("_total") is (known[match[1]] == "counter")
        assert match[1] + (match[2] or "") not in found
        found[match[1] + (match[2] or "")] = int(match[3])
    return found


def test_the_registrys_own_numbers() -> None:
    rows = [ROW, replace(ROW, id="A2", state="passing"), replace(ROW, id="A3", state="passing"), replace(ROW, id="A4")]
    found = samples(metrics([*rows, replace(ROW, id="A5", enabled=False)], 7, {"peers": 3, "refused": 2}).decode())
    assert found['fairway_registry_instances{service="classify",state="passing"}'] == 2
    assert found['fairway_registry_instances{service="classify",state="draining"}'] == 2
    assert found['fairway_registry_instances{service="classify",state="disabled"}'] == 1
    assert found["fairway_registry_index"] == 7
    assert (found["fairway_registry_peers"], found["fairway_registry_refused_total"]) == (3, 2)
    assert len(found) == 3 + 1 + len(METRICS)


async def test_over_http(hub: Hub) -> None:
    hub.catalog.uncertain = False
    async with calling(hub) as call, greeted(hub.port) as worker, greeted(hub.port, Hello()) as other:
        answer = await call("GET", "/v1/sd/prometheus", headers={"X-Prometheus-Refresh-Interval-Seconds": "60"})
        assert (answer.status, answer.body) == (200, b"[]"), "nobody is registered, and that is sure"
        worker.say(row("A1"), row("A2", 9002, role="zebra"))
        await other.until(lambda message: isinstance(message, Register) and message.id == "A2")
        found = await call.get("/v1/sd/prometheus")
        assert [group["targets"] for group in found] == [["127.0.0.1:9001"], ["127.0.0.1:9002"]]
        assert [g["targets"] for g in await call.get("/v1/sd/prometheus?service=zebra")] == [["127.0.0.1:9002"]]
        assert await call.get("/v1/sd/prometheus?service=nobody") == []
        answer = await call("GET", "/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        numbers = samples(answer.text)
        assert numbers['fairway_registry_instances{service="zebra",state="passing"}'] == 1
        assert numbers["fairway_registry_peers"] == 2
        assert numbers["fairway_registry_http_requests_total"] == 5
        assert numbers["fairway_registry_index"] == hub.catalog.index_of()


async def test_never_an_empty_list_while_unsure(hub: Hub) -> None:
    """Prometheus deletes all targets for `[]`, and keeps what it has on an error."""
    hub.catalog.uncertain = True
    async with calling(hub) as call:
        answer = await call("GET", "/v1/sd/prometheus")
        assert answer.status == 503
        assert "may be incomplete" in answer.json["error"]
