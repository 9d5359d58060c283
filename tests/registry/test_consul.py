"""Consul's shapes: what workers say about themselves, and what becomes of their checks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry.check import Check
from fairway.registry.consul import (
    Look,
    as_check,
    as_registration,
    destination,
    joined,
    path_of,
    read_check_registration,
    read_registration,
)
from fairway.registry.consul.entries import health_entry
from fairway.registry.consul.registration import DIALLED, MAX_CHECKS, OURS
from fairway.registry.errors import InvalidInstance
from fairway.registry.instance import Address, Instance

PEER = "127.0.0.1"


FULL = {
    "Name": "classify",
    "ID": "w1",
    "Address": "127.0.0.1",
    "Port": 9001,
    "Tags": ["blue", "gpu"],
    "Meta": {"version": "1.2.3", "models": "flowers, birds", "rack": "7"},
    "Weights": {"Passing": 3, "Warning": 1},
    "EnableTagOverride": False,
    "Check": {
        "HTTP": "http://127.0.0.1:9001/readyz?full=1",
        "Method": "head",
        "Header": {"X-Who": ["registry"]},
        "Interval": "5s",
        "Timeout": "500ms",
        "Notes": "asks whether it is ready",
        "DeregisterCriticalServiceAfter": "10m",
        "SuccessBeforePassing": 2,
        "FailuresBeforeCritical": 3,
        "TLSSkipVerify": True,
    },
}


def test_a_registration_in_full() -> None:
    assert read_registration(FULL, PEER) == Instance(
        "w1",
        "classify",
        Address("127.0.0.1", 9001),
        "1.2.3",
        models=("flowers", "birds"),
        meta={"rack": "7"},
        tags=("blue", "gpu"),
        weight=3,
        checks=(
            Check(
                "service:w1",
                "http",
                "http://127.0.0.1:9001/readyz?full=1",
                interval_seconds=5.0,
                timeout_seconds=0.5,
                notes="asks whether it is ready",
                method="HEAD",
                header={"X-Who": ("registry",)},
                tls_skip_verify=True,
                deregister_after_seconds=600.0,
                successes_before_passing=2,
                failures_before_critical=3,
            ),
        ),
    )


def snake(raw: Any) -> Any:
    """FULL's keys as people write them who dislike capitals."""
    words = {"ServiceID": "service_id", "TLSSkipVerify": "tls_skip_verify", "HTTP": "http", "ID": "id"}
    words["DeregisterCriticalServiceAfter"] = "deregister_critical_service_after"
    if not isinstance(raw, dict):
        return raw
    return {
        words.get(key) or "".join(f"_{c.lower()}" if c.isupper() else c for c in key).lstrip("_"): (
            value if key in ("Meta", "Header") else snake(value)
        )
        for key, value in raw.items()
    }


def test_keys_in_any_case() -> None:
    assert "deregister_critical_service_after" in snake(FULL)["check"]
    assert read_registration(snake(FULL), PEER) == read_registration(FULL, PEER)
    assert read_registration({key.lower(): value for key, value in FULL.items()}, PEER) == read_registration(FULL, PEER)


def test_the_least_there_is_to_say() -> None:
    found = read_registration({"Name": "classify", "Port": 9001, "Tags": None, "Check": None}, "10.0.0.7")
    assert found == Instance("classify", "classify", Address("10.0.0.7", 9001)), "id and address are given"


def test_ids_of_checks() -> None:
    two = [{"TTL": "10s"}, {"TCP": "127.0.0.1:9001", "Interval": "1s"}, {"TTL": "1s", "CheckID": "mine"}]
    found = read_registration({"Name": "classify", "Port": 9001, "Checks": two}, PEER)
    assert [check.id for check in found.checks] == ["service:classify:1", "service:classify:2", "mine"]
    assert [check.kind for check in found.checks] == ["ttl", "tcp", "ttl"]


def test_limits_of_times() -> None:
    check = {"TCP": "127.0.0.1:9001", "Interval": "1ms", "Timeout": "1h", "DeregisterCriticalServiceAfter": "1s"}
    [found] = read_registration({"Name": "classify", "Port": 9001, "Check": check}, PEER).checks
    assert (found.interval_seconds, found.timeout_seconds, found.deregister_after_seconds) == (1.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"Name": ""}, "Name is ''"),
        ({"Name": "a b"}, "Name is 'a b'"),
        ({"Name": 7}, "Name is 7"),
        ({"ID": "x" * 129}, "ID is 'xxx"),
        ({"ID": "a\nb"}, r"ID is 'a\\nb'"),
        ({"ID": "\ud800"}, "ID is"),
        ({"Port": None}, "Port is missing"),
        ({"Port": 65536}, "65536 is not a port"),
        ({"Port": True}, "True is not a port"),
        ({"Port": "9001"}, "'9001' is not a port"),
        ({"Address": 7}, "Address is 7"),
        ({"Address": "a b"}, "'a b' is not a host"),
        ({"Tags": "blue"}, "Tags is 'blue'"),
        ({"Tags": [1]}, "Tags is"),
        ({"Meta": {"a": 1}}, "Meta is"),
        ({"Meta": []}, "Meta is"),
        ({"Weights": {"Passing": 0}}, "Weights.Passing is 0"),
        ({"Weights": 1}, "1 is not Weights"),
        ({"Connect": {"Native": True}}, "connect is not supported"),
        ({"Kind": "connect-proxy"}, "Kind is 'connect-proxy'"),
        ({"Namespace": "mine"}, "namespace is 'mine'"),
        ({"Checks": {}}, "Checks is"),
        ({"Checks": [{"TTL": "1s"}] * (MAX_CHECKS + 1)}, "at most 16"),
        ({"Checks": [{"TTL": "1s", "CheckID": "a"}, {"TTL": "1s", "CheckID": "a"}]}, "two checks have the id 'a'"),
        ({"Check": {"Interval": "1s"}}, "expected exactly one of TTL, HTTP and TCP, found none"),
        ({"Check": {"TTL": "1s", "TCP": "a:1"}}, "found ttl, tcp"),
        ({"Check": {"Args": ["sh"], "Interval": "1s"}}, "args is not supported: expected TTL, HTTP or TCP"),
        ({"Check": {"GRPC": "127.0.0.1:1", "Interval": "1s"}}, "grpc is not supported"),
        ({"Check": {"TCP": "127.0.0.1:1"}}, "Interval is missing"),
        ({"Check": {"TCP": "127.0.0.1", "Interval": "1s"}}, "'127.0.0.1' is not an address"),
        ({"Check": {"TTL": "soon"}}, "'soon' is not a duration"),
        ({"Check": {"TTL": "1s", "Status": "fine"}}, "Status is 'fine'"),
        ({"Check": {"TTL": "1s", "FailuresBeforeCritical": -1}}, "failuresbeforecritical is -1"),
        ({"Check": {"HTTP": "ftp://127.0.0.1/", "Interval": "1s"}}, "is no URL to ask"),
        ({"Check": {"HTTP": "http://me@127.0.0.1/", "Interval": "1s"}}, "is no URL to ask"),
        ({"Check": {"HTTP": "http://127.0.0.1\\@evil/", "Interval": "1s"}}, "is no URL to ask"),
        ({"Check": {"HTTP": "http://127.0.0.1:1/a b", "Interval": "1s"}}, "is no URL to ask"),
        ({"Check": {"HTTP": "http://127.0.0.1:1/\r\nX: y", "Interval": "1s"}}, "is no URL to ask"),
        ({"Check": {"HTTP": "http://127.0.0.1:99999/", "Interval": "1s"}}, "99999 is not a port"),
        ({"Check": {"HTTP": "http://a/", "Interval": "1s", "Header": {"A": ["b\r\nc"]}}}, "Header A is"),
        ({"Check": {"HTTP": "http://a/", "Interval": "1s", "Header": {"A\r\n": []}}}, "is not a header"),
        ({"Check": {"HTTP": "http://a/", "Interval": "1s", "Header": {"Transfer-Encoding": ["x"]}}}, "is not a header"),
        ({"Check": {"HTTP": "http://a/", "Interval": "1s", "Method": "GET /"}}, "Method is"),
    ],
)
def test_what_cannot_be_registered_says_why(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidInstance, match=reason):
        read_registration({"Name": "classify", "Port": 9001} | wrong, PEER)


@pytest.mark.parametrize("raw", [None, [], "classify", 7])
def test_what_is_no_object(raw: object) -> None:
    with pytest.raises(InvalidInstance, match="expected a JSON object"):
        read_registration(raw, PEER)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.one_of(
    st.sampled_from(("Name", "ID", "Port", "Address", "Tags", "Meta", "Weights", "Check", "Checks")),
    st.sampled_from(("TTL", "HTTP", "TCP", "Interval", "Status", "Header", "CheckID")),
)


@given(st.dictionaries(KEYS, st.one_of(JSON, st.dictionaries(KEYS, JSON), st.lists(st.dictionaries(KEYS, JSON)))))
def test_any_json_is_read_or_refused(raw: dict[str, object]) -> None:
    for body in (raw, {"Name": "classify", "Port": 9001} | raw):
        try:
            found = read_registration(body, PEER)
        except InvalidInstance:
            continue
        assert Instance.from_meta(found.id, found.as_meta(), PEER) == found, "an engine gives back what it was given"


TEXT = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
WORDS = st.dictionaries(st.one_of(TEXT, st.sampled_from(("state", "port", "checks", "consul_meta", "token"))), TEXT)
INSTANCES = st.builds(
    Instance,
    id=TEXT,
    service=TEXT,
    address=st.just(Address("127.0.0.1", 9001)),
    version=st.one_of(st.just(""), TEXT),
    models=st.lists(st.one_of(TEXT, st.just("a,b"), st.just(" c"), st.just("[d]"))).map(tuple),
    meta=st.dictionaries(TEXT.filter(lambda key: key not in OURS), TEXT),
    tags=st.lists(TEXT).map(tuple),
    weight=st.integers(1, 65535),
    checks=st.lists(
        st.builds(
            Check,
            id=TEXT,
            kind=st.just("ttl"),
            ttl_seconds=st.integers(1, 10**6).map(lambda ms: ms / 1000),
            name=TEXT,
            notes=TEXT,
            status=st.sampled_from(("passing", "warning", "critical")),
            deregister_after_seconds=st.sampled_from((0.0, 60.0, 5400.0)),
        ),
        max_size=3,
        unique_by=lambda check: check.id,
    ).map(tuple),
)


@given(INSTANCES)
def test_a_registration_written_is_read_again(written: Instance) -> None:
    body = json.loads(json.dumps(as_registration(written)))
    assert read_registration(body, "10.0.0.1") == written


@given(WORDS)
def test_metadata_are_shown_as_they_came(meta: dict[str, str]) -> None:
    """Words of ours among them: `state`, `port` and the like are somebody's metadata, and no state or port."""
    found = read_registration({"Name": "classify", "Port": 9001, "Meta": meta}, PEER)
    assert found.state == "passing"
    assert health_entry(Look(found), 1)["Service"]["Meta"] == meta
    stored = Instance.from_meta(found.id, json.loads(json.dumps(found.as_meta())), PEER)
    assert health_entry(Look(stored), 1)["Service"]["Meta"] == meta


@pytest.mark.parametrize(
    "check",
    [
        Check("a", "http", "https://127.0.0.1:1/x?y=1", name="n", method="PUT", header={"A": ("b",)}, body="{}"),
        Check("a", "http", "http://[::1]", name="n", tls_skip_verify=True, failures_before_critical=2),
        Check("a", "tcp", "[::1]:80", name="n", interval_seconds=3.0, successes_before_passing=1, status="passing"),
    ],
)
def test_a_check_written_is_read_again(check: Check) -> None:
    assert read_check_registration(as_check(check) | {"ServiceID": "w1"}) == ("w1", check)


def test_where_checks_go() -> None:
    assert destination(Check("a", "tcp", "[::1]:80")) == Address("::1", 80)
    assert destination(Check("a", "http", "http://[::1]")) == Address("::1", 80)
    assert destination(Check("a", "http", "https://10.0.0.7/x")) == Address("10.0.0.7", 443)
    assert path_of(Check("a", "http", "https://10.0.0.7:1/x?y#"[:-1])) == "/x?y"
    assert path_of(Check("a", "http", "https://10.0.0.7")) == "/"


def test_a_check_of_its_own() -> None:
    raw = {"name": "alive", "serviceid": "w1", "ttl": "10s", "notes": "as py-consul writes it"}
    check = Check("alive", "ttl", ttl_seconds=10.0, name="alive", notes="as py-consul writes it")
    assert read_check_registration(raw) == ("w1", check)
    assert read_check_registration(raw | {"id": "other"})[1].id == "other"
    with pytest.raises(InvalidInstance, match="ServiceID is missing: here every check belongs to a service"):
        read_check_registration({"name": "alive", "ttl": "10s"})
    with pytest.raises(InvalidInstance, match="CheckID is None"):
        read_check_registration({"serviceid": "w1", "ttl": "10s"})


# -- what becomes of checks --------------------------------------------------------------------------------------------


BARE = Instance("w1", "classify", Address("127.0.0.1", 9001))
TTL = Check("service:w1", "ttl", ttl_seconds=10.0)


def test_who_has_no_check_is_dialled() -> None:
    [check] = joined(BARE, None, {}).checks
    assert (check.id, check.kind, check.target, check.name) == ("service:w1", "tcp", "127.0.0.1:9001", DIALLED)
    assert (check.interval_seconds, check.timeout_seconds, check.deregister_after_seconds) == (5.0, 2.0, 600.0)
    assert check.status == "critical"


def test_our_check_yields_to_the_first_given_and_comes_back_after_the_last() -> None:
    dialled = joined(BARE, None, {})
    other = Check("mine", "ttl", ttl_seconds=1.0)
    given = joined(replace(BARE, checks=(other,)), dialled, {})
    assert given.checks == (other,)
    assert joined(BARE, given, {}, replace_checks=True).checks == dialled.checks


def test_a_moved_instance_is_dialled_where_it_is() -> None:
    moved = replace(BARE, address=Address("127.0.0.1", 9002))
    assert joined(moved, joined(BARE, None, {}), {}).checks[0].target == "127.0.0.1:9002"


def test_checks_stay_unless_replaced_and_keep_their_status() -> None:
    before = replace(BARE, checks=(TTL, Check("old", "ttl", ttl_seconds=5.0)))
    again = replace(BARE, checks=(replace(TTL, ttl_seconds=20.0),))
    known = joined(again, before, {"service:w1": "passing", "old": "warning"})
    assert [(check.id, check.ttl_seconds, check.status) for check in known.checks] == [
        ("service:w1", 20.0, "passing"),
        ("old", 5.0, "warning"),
    ]
    assert [check.id for check in joined(again, before, {}, replace_checks=True).checks] == ["service:w1"]


def test_not_too_many_checks_bit_by_bit() -> None:
    before = replace(BARE, checks=tuple(Check(str(n), "ttl", ttl_seconds=1.0) for n in range(MAX_CHECKS)))
    with pytest.raises(InvalidInstance, match="17 checks: at most 16"):
        joined(replace(BARE, checks=(TTL,)), before, {})
