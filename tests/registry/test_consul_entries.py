"""Consul's shapes: what readers are told, and what a client makes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.check import Check
from fairway.registry.consul import Look, catalog_services, read_entry
from fairway.registry.consul.entries import agent_entry, catalog_entry, health_entry
from fairway.registry.errors import InvalidInstance
from fairway.registry.health import Result
from fairway.registry.instance import Address, Instance, State

from .test_consul import INSTANCES


def instance(id: str, version: str = "", state: State = "passing", **meta: object) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", 9001), version, state, meta=meta)


def test_services_and_their_tags() -> None:
    services = {
        "zebra": [instance("1")],
        "classify": [instance("2", "2.0.0"), replace(instance("3", "1.0.0"), tags=("b", "a")), instance("4", "2.0.0")],
    }
    found = catalog_services(services)
    assert found == {"classify": ["2.0.0", "a", "b"], "zebra": []}, "a version is a tag where there is no other"
    assert list(found) == ["classify", "zebra"]


INDEXES = {"CreateIndex": 1, "ModifyIndex": 7}


def test_one_entry_in_full() -> None:
    entry = health_entry(Look(instance("A1", "1.2.3", pid=7, note="hi", gpu=None)), 7)
    assert entry == {
        "Node": {
            "ID": "a1b1ff22-3a83-5406-b1e7-1314633c7afb",
            "Node": "127.0.0.1",
            "Address": "127.0.0.1",
            "Datacenter": "fairway",
            "TaggedAddresses": {"lan": "127.0.0.1", "wan": "127.0.0.1"},
            "Meta": {},
            **INDEXES,
        },
        "Service": {
            "ID": "A1",
            "Service": "classify",
            "Tags": ["1.2.3"],
            "Address": "127.0.0.1",
            "TaggedAddresses": {},
            "Port": 9001,
            "Meta": {"pid": "7", "note": "hi", "gpu": "null", "version": "1.2.3"},  # Consul's metadata are texts
            "Weights": {"Passing": 1, "Warning": 1},
            "EnableTagOverride": False,
            "Datacenter": "fairway",
            **INDEXES,
        },
        "Checks": [
            {
                "Node": "127.0.0.1",
                "CheckID": "service:A1",
                "Name": "connection",
                "Status": "passing",
                "Notes": "",
                "Output": "passing",
                "ServiceID": "A1",
                "ServiceName": "classify",
                "ServiceTags": ["1.2.3"],
                "Type": "connection",
                "Definition": {},
                **INDEXES,
            }
        ],
    }
    assert json.loads(json.dumps(entry)) == entry


def test_an_entry_of_the_catalog_is_flat() -> None:
    found = catalog_entry(replace(instance("A1"), tags=("blue",), weight=3), 7)
    expected = {
        "ID": "a1b1ff22-3a83-5406-b1e7-1314633c7afb",
        "Node": "127.0.0.1",
        "Address": "127.0.0.1",
        "Datacenter": "fairway",
        "ServiceID": "A1",
        "ServiceName": "classify",
        "ServiceAddress": "127.0.0.1",
        "ServicePort": 9001,
        "ServiceTags": ["blue"],
        "ServiceMeta": {},
        "ServiceWeights": {"Passing": 3, "Warning": 1},
        **INDEXES,
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("state", "status"),
    [("starting", "critical"), ("passing", "passing"), ("draining", "critical"), ("critical", "critical")],
)
def test_states_are_consuls_and_only_passing_ones_pass(state: State, status: str) -> None:
    look = Look(instance("A1", state=state))
    [check] = health_entry(look, 1)["Checks"]
    assert (check["Status"], check["Output"]) == (status, state)
    assert look.passing is (status == "passing")


def test_the_worst_check_counts() -> None:
    checks = (Check("a", "ttl", ttl_seconds=1.0, status="passing"), Check("b", "tcp", "127.0.0.1:1", status="passing"))
    row = replace(instance("A1"), checks=checks)
    assert Look(row).status == "passing", "before anything came of it, what the definition says"
    look = Look(row, {"b": Result("warning", "slow")})
    assert (look.status, look.passing) == ("warning", False)
    assert Look(row, {"a": Result("critical"), "b": Result("warning")}).status == "critical"
    shown = health_entry(look, 1)["Checks"]
    assert [(c["CheckID"], c["Status"], c["Output"], c["Interval"]) for c in shown] == [
        ("a", "passing", "", ""),
        ("b", "warning", "slow", "10s"),
    ]


def test_maintenance_is_a_check_of_its_own() -> None:
    look = Look(replace(instance("A1"), enabled=False), reason="new disks")
    entry = agent_entry(look, 1)
    assert entry["AggregatedStatus"] == "maintenance"
    assert not look.passing
    connection, maintenance = entry["Checks"]
    assert connection["Status"] == "passing"
    assert {key: maintenance[key] for key in ("CheckID", "Name", "Status", "Notes")} == {
        "CheckID": "_service_maintenance:A1",
        "Name": "Service Maintenance Mode",
        "Status": "critical",
        "Notes": "new disks",
    }


def test_tags_are_compared_in_any_case() -> None:
    look = Look(replace(instance("A1"), tags=("Blue", "gpu")))
    assert look.has(())
    assert look.has(("blue", "GPU"))
    assert not look.has(("blue", "red"))


@given(INSTANCES, st.booleans(), st.sampled_from(("passing", "critical")))
def test_an_entry_is_read_by_a_client(written: Instance, enabled: bool, state: State) -> None:
    shown = replace(written, enabled=enabled, state=state, checks=())
    read = read_entry(json.loads(json.dumps(health_entry(Look(shown), 1))))
    assert read == (replace(shown, tags=()) if shown.tags == (shown.version,) else shown)


def test_a_clients_view_of_others_entries() -> None:
    entry = health_entry(Look(instance("A1")), 1)
    entry["Service"]["Address"] = ""
    entry["Node"]["Address"] = "10.0.0.7"
    entry["Checks"].append({"CheckID": "serfHealth", "Status": "critical"})
    found = read_entry(entry)
    assert (found.address, found.state) == (Address("10.0.0.7", 9001), "critical")
    wrong: list[object] = [
        None,
        [],
        {},
        {"Node": {}, "Service": {}},
        {"Node": 1, "Service": {"Service": 1}, "Checks": []},
    ]
    for broken in wrong:
        with pytest.raises(InvalidInstance):
            read_entry(broken)
