"""Our documents come back from Consul as they went there, whatever its Meta has no room for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.changes import Mark, Put
from fairway.registry.check import Check
from fairway.registry.errors import StoreRefused
from fairway.registry.instance import Address, Instance
from fairway.registry.stores.consul_rows import entries, next_index, registration

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.text(max_size=900),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
WORDS = {"id", "role", "version", "host", "port", "state", "models", "tags", "weight", "enabled", "suspect", "checks"}
INSTANCES = st.builds(
    Instance,
    id=st.from_regex(r"[A-Za-z0-9:/_-]{1,40}", fullmatch=True),
    service=NAMES,
    address=st.builds(Address, st.sampled_from(["127.0.0.1", "::1", "worker-7.example"]), st.integers(1, 65535)),
    version=st.sampled_from(["", "1.2.3", "v" * 600]),
    state=st.sampled_from(["starting", "passing", "draining", "critical"]),
    models=st.lists(TEXTS, max_size=3).map(tuple),
    meta=st.dictionaries(TEXTS | st.sampled_from(["gpu", "fairway-x", "fairway-writer", "consul-x"]), VALUES, max_size=70)
    .map(lambda meta: {key: value for key, value in meta.items() if key not in WORDS and key != "consul_meta"}),
    tags=st.lists(st.sampled_from(["a", "b", "1.2.3", "ü"]), max_size=3, unique=True).map(tuple),
    weight=st.integers(0, 65535),
)  # fmt: skip


def listed(body: dict[str, Any], *more: dict[str, Any], status: str = "", output: str = "", index: int = 7) -> Any:
    """What /v1/health/service says of what was registered with `body`, its checks having `status`."""
    checks = [
        {"CheckID": check["CheckID"], "Status": status or check["Status"], "Output": output, "Notes": ""}
        for check in body["Checks"]
    ]
    service = {
        "ID": body["ID"],
        "Service": body["Name"],
        "Address": body["Address"],
        "Port": body["Port"],
        "Tags": body["Tags"],
        "Meta": body["Meta"],
        "Weights": body["Weights"],
        "ModifyIndex": index,
    }
    node = {"Node": "n1", "Address": "10.9.8.7"}
    # A node's own check is in every listing.
    healthy = {"CheckID": "serfHealth", "Status": "passing", "Output": "Agent alive and reachable"}
    return {"Node": node, "Service": service, "Checks": [healthy, *checks, *more]}


def only(listing: Any) -> Any:
    found = entries(json.loads(json.dumps([listing])))
    assert len(found) == 1, listing
    return next(iter(found.values()))


WORKER = Instance("w1", "classify", Address("127.0.0.1", 9001), "1.0.0", models=("flowers",), meta={"gpu": "a100"})
EXPIRED = {"status": "critical", "output": "TTL expired (last output before timeout follows): passing"}


@given(INSTANCES, st.sampled_from(["", "token:0123456789ab"]))
def test_what_is_registered_is_read(instance: Instance, principal: str) -> None:
    put = Put(instance, principal)
    try:
        body = registration(put, "WRITER", 10.0)
    except StoreRefused:
        assert len(json.dumps(instance.as_meta())) > 15_000  # far more than the 8 KiB of a row
        return
    assert len(body["Meta"]) <= 64
    for key, value in body["Meta"].items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key)
        assert not key.startswith("consul-")
        assert isinstance(value, str)
        assert len(value.encode()) <= 512
    assert 1 <= body["Weights"]["Passing"] <= 65535
    entry = only(listed(body))
    assert entry.put == put
    assert (entry.writer, entry.alive, entry.mark) == ("WRITER", True, None)


def test_what_people_look_for_stands_where_they_look() -> None:
    body = registration(Put(WORKER), "WRITER", 10.0)
    assert body["Meta"] == {"fairway-writer": "WRITER", "gpu": "a100", "version": "1.0.0", "models": "flowers"}
    assert body["Checks"] == [
        {
            "CheckID": "service:w1",
            "Name": "heartbeat",
            "Status": "passing",
            "TTL": "10s",
            "DeregisterCriticalServiceAfter": "1m0s",
        }
    ]


def test_the_checks_of_a_durable_row_are_consuls_and_come_back_whole() -> None:
    http = Check("http", "http", "http://127.0.0.1:9001/healthz", interval_seconds=5, header={"X-A": ("b",)})
    ttl = Check("ttl", "ttl", ttl_seconds=30, status="passing")
    put = Put(Instance("d1", "classify", Address("127.0.0.1", 9001), checks=(http, ttl)), "token:0123456789ab")
    body = registration(put, "WRITER", 10.0)
    assert [check["CheckID"] for check in body["Checks"]] == ["http"]  # its owner passes the other one elsewhere
    assert only(listed(body, status="passing")).put == put
    assert only(listed(body, status="critical")).put.instance.state == "critical"


@pytest.mark.parametrize(
    ("state", "checked", "alive", "read"),
    [
        ("passing", {"status": "passing"}, True, "passing"),
        ("passing", {"status": "warning"}, True, "passing"),
        ("passing", EXPIRED, False, "passing"),
        ("passing", {"status": "critical", "output": "somebody said so"}, True, "critical"),
        ("passing", {"status": "critical", "output": "draining"}, True, "passing"),  # its check is passed in a moment
        ("passing", {"status": "critical", "output": ""}, True, "passing"),  # the same, of what began as starting
        ("draining", {"status": "critical", "output": ""}, True, "draining"),
        ("draining", {"status": "critical", "output": "draining"}, True, "draining"),
        ("draining", EXPIRED, False, "draining"),
    ],
)
def test_silence_is_told_from_sickness(state: Any, checked: Any, alive: bool, read: str) -> None:
    instance = Instance("w1", "classify", Address("127.0.0.1", 9001), state=state)
    entry = only(listed(registration(Put(instance), "WRITER", 10.0), **checked))
    assert (entry.alive, entry.put.instance.state) == (alive, read)


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        ("a new disk", "a new disk"),
        ("Maintenance mode is enabled for this service, but no reason was provided. This is a default message.", ""),
    ],
)
@pytest.mark.parametrize("id", ["_service_maintenance:w1", "_node_maintenance"])
def test_maintenance_is_a_mark_and_no_sickness(id: str, notes: str, reason: str) -> None:
    check = {"CheckID": id, "Status": "critical", "Notes": notes, "Output": ""}
    entry = only(listed(registration(Put(WORKER), "WRITER", 10.0), check))
    assert entry.put == Put(WORKER)
    assert entry.mark == Mark("w1", False, reason)


def test_a_dead_node_makes_its_services_critical() -> None:
    dead = {"CheckID": "serfHealth", "Status": "critical", "Output": "Agent not live or unreachable"}
    assert only(listed(registration(Put(WORKER), "WRITER", 10.0), dead)).put.instance.state == "critical"


def test_what_others_registered_is_durable_and_theirs() -> None:
    body = {"ID": "web1", "Name": "web", "Address": "", "Port": 80, "Tags": ["blue"], "Checks": []}
    body |= {"Meta": {"state": "of the art", "version": "2", "role": "web"}, "Weights": {"Passing": 3, "Warning": 1}}
    entry = only(listed(body))
    assert entry.writer == ""
    assert entry.put.principal == "consul"
    read = entry.put.instance
    assert (str(read.address), read.version, read.tags, read.weight) == ("10.9.8.7:80", "2", ("blue",), 3)
    assert (read.state, read.service) == ("passing", "web")


def test_of_two_with_one_id_the_living_counts_then_the_newer() -> None:
    body = registration(Put(WORKER), "OLD", 10.0)
    newer = registration(Put(WORKER), "NEW", 10.0)
    dead, living = listed(newer, index=9, **EXPIRED), listed(body, index=7)
    for listing in ([dead, living], [living, dead]):
        assert entries(listing)["w1"].writer == "OLD"
    for listing in ([listed(newer, index=9), living], [living, listed(newer, index=9)]):
        assert entries(listing)["w1"].writer == "NEW"


def test_a_document_that_does_not_fit_is_refused_by_name() -> None:
    large = Instance("w1", "classify", Address("127.0.0.1", 9001), meta={"blob": "x" * 40_000})
    with pytest.raises(StoreRefused, match="w1"):
        registration(Put(large), "WRITER", 10.0)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Service", "Node", "Checks", "ID", "Meta", "Port", "Address", "CheckID", "Status", "Tags"])
            | st.sampled_from(["fairway--0", "fairway-state", "fairway-writer", "fairway-x"]),
            inner,
        )
    ),
)


@given(JUNK)
def test_what_is_no_listing_says_nothing(body: object) -> None:
    assert isinstance(entries(body), dict)
    assert isinstance(entries([body]), dict)


@given(
    st.dictionaries(st.sampled_from(["fairway--0", "fairway-state", "fairway-models", "fairway-checks", "x"]), TEXTS)
)
def test_meta_that_others_spoiled_spoils_one_entry_only(meta: dict[str, str]) -> None:
    good, bad = listed(registration(Put(WORKER), "WRITER", 10.0)), listed(registration(Put(WORKER), "WRITER", 10.0))
    bad["Service"] |= {"ID": "w2", "Meta": meta}
    assert "w1" in entries([bad, good])


@pytest.mark.parametrize(
    ("before", "told", "expected"),
    [(0, "5", 5), (5, "5", 5), (5, "9", 9), (9, "5", 0), (0, "0", 1), (0, None, 1), (3, "x", 0)],
)
def test_the_index_follows_consuls_rules(before: int, told: str | None, expected: int) -> None:
    assert next_index(before, told) == expected
