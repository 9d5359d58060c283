"""The catalog in Consul's shapes."""

from __future__ import annotations

import json

import pytest

from fairway.registry.consul import catalog_services, health_service
from fairway.registry.instance import Address, Instance, State


def instance(id: str, version: str = "", state: State = "passing", **meta: object) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", 9001), version, state, meta=meta)


def test_services_and_their_versions() -> None:
    services = {
        "zebra": [instance("1")],
        "classify": [instance("2", "2.0.0"), instance("3", "1.0.0"), instance("4", "2.0.0"), instance("5")],
    }
    found = catalog_services(services)
    assert found == {"classify": ["1.0.0", "2.0.0"], "zebra": []}
    assert list(found) == ["classify", "zebra"]


def test_nobody() -> None:
    assert catalog_services({}) == {}
    assert health_service([], passing=False) == []


def test_one_entry_in_full() -> None:
    [entry] = health_service([instance("A1", "1.2.3", pid=7, note="hi", gpu=None)], passing=True)
    assert entry == {
        "Node": {"Node": "127.0.0.1", "Address": "127.0.0.1", "Datacenter": "fairway", "Meta": {}},
        "Service": {
            "ID": "A1",
            "Service": "classify",
            "Tags": ["1.2.3"],
            "Address": "127.0.0.1",
            "Port": 9001,
            "Meta": {"pid": "7", "note": "hi", "gpu": "null"},  # Consul's metadata are texts
            "Weights": {"Passing": 1, "Warning": 1},
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
            }
        ],
    }
    assert json.loads(json.dumps(entry)) == entry


@pytest.mark.parametrize(
    ("state", "status"),
    [("starting", "critical"), ("passing", "passing"), ("draining", "critical"), ("critical", "critical")],
)
def test_states_are_consuls_and_only_passing_ones_pass(state: State, status: str) -> None:
    row = instance("A1", state=state)
    [entry] = health_service([row], passing=False)
    assert (entry["Checks"][0]["Status"], entry["Checks"][0]["Output"]) == (status, state)
    assert bool(health_service([row], passing=True)) is (status == "passing")
