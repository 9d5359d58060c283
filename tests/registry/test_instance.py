"""Address, Instance and Query: what is accepted, and what the errors say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry.errors import InvalidInstance
from fairway.registry.instance import Address, Instance, Query, State, satisfies


@pytest.mark.parametrize(
    ("text", "host", "port", "again"),
    [
        ("9001", "127.0.0.1", 9001, "127.0.0.1:9001"),
        ("9001\n", "127.0.0.1", 9001, "127.0.0.1:9001"),
        (":9001", "127.0.0.1", 9001, "127.0.0.1:9001"),
        (" worker-3.lan:1 ", "worker-3.lan", 1, "worker-3.lan:1"),
        ("10.0.0.7:65535", "10.0.0.7", 65535, "10.0.0.7:65535"),
        ("[::1]:9001", "::1", 9001, "[::1]:9001"),
        ("[fe80::1%eth0]:9001", "fe80::1%eth0", 9001, "[fe80::1%eth0]:9001"),
        ("::1:9001", "::1", 9001, "[::1]:9001"),
    ],
)
def test_parse_and_back(text: str, host: str, port: int, again: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == again
    assert Address.parse(again) == address


def test_the_given_host_stands_in_for_a_bare_port() -> None:
    assert Address.parse("9001", host="10.0.0.7") == Address("10.0.0.7", 9001)


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", "host:http", "host:-1", "host:0", "host:65536", "9" * 5000, "host:٣", "1.5",
     "a b:9001", "http://host:9001", "host:9001/", "[::1]", "x" * 254 + ":1", "hö:1"],
)  # fmt: skip
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InvalidInstance, match="is not a"):
        Address.parse(text)


@pytest.mark.parametrize("port", [True, 9001.0, "9001", None, 0, -1, 65536])
def test_bad_ports(port: Any) -> None:
    with pytest.raises(InvalidInstance, match="expected a whole number from 1 to 65535"):
        Address("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("10.0.0.7", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert Address(host, 1).loopback is expected


STATES: tuple[State, ...] = ("starting", "passing", "draining", "critical")
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
INSTANCES = st.builds(
    Instance,
    id=st.text(min_size=1, max_size=40),
    service=NAMES,
    address=st.builds(Address, st.sampled_from(["127.0.0.1", "::1", "worker.lan"]), st.integers(1, 65535)),
    version=st.sampled_from(["", "1", "1.2.3", "2.0.0-rc.1"]),
    state=st.sampled_from(STATES),
    models=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    meta=st.dictionaries(st.sampled_from(["pid", "note", "ttl_seconds"]), st.integers() | st.text(max_size=9)),
)


@given(INSTANCES)
@settings(deadline=None)
def test_meta_and_back(instance: Instance) -> None:
    assert Instance.from_meta(instance.id, instance.as_meta(), "9.9.9.9") == instance


def test_the_row_says_only_what_is_new() -> None:
    plain = Instance("A1", "classify", Address("127.0.0.1", 9001))
    assert plain.as_meta() == {"role": "classify", "host": "127.0.0.1", "port": 9001, "id": "A1"}
    full = Instance("A1", "classify", Address("::1", 1), "1.2.3", "draining", ("flowers",), {"pid": 7})
    assert full.as_meta() == {
        "role": "classify", "host": "::1", "port": 1, "id": "A1",
        "version": "1.2.3", "state": "draining", "models": ["flowers"], "pid": 7,
    }  # fmt: skip
    assert (plain.role, full.role) == ("classify", "classify@1.2.3")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"role": "a@1.2.3", "port": 9}, Instance("I", "a", Address("10.0.0.7", 9), "1.2.3")),
        ({"role": "a", "version": "1.2.3", "port": 9}, Instance("I", "a", Address("10.0.0.7", 9), "1.2.3")),
        ({"role": "a", "port": "9001"}, Instance("I", "a", Address("10.0.0.7", 9001))),
        ({"role": "a", "port": 9, "host": None}, Instance("I", "a", Address("10.0.0.7", 9))),
        ({"role": "a", "port": 9, "host": "w.lan"}, Instance("I", "a", Address("w.lan", 9))),
        ({"role": "a", "port": 9, "version": 7}, Instance("I", "a", Address("10.0.0.7", 9))),
        ({"role": "a", "port": 9, "id": "other"}, Instance("I", "a", Address("10.0.0.7", 9))),
        ({"role": "a", "port": 9, "pid": 4}, Instance("I", "a", Address("10.0.0.7", 9), meta={"pid": 4})),
    ],
)
def test_rows_of_other_clients(meta: dict[str, Any], expected: Instance) -> None:
    assert Instance.from_meta("I", meta, host="10.0.0.7") == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": None}, "None is not a service name"),
        ({"role": ""}, "'' is not a service name"),
        ({"role": "a/b"}, "'a/b' is not a service name: letters, digits"),
        ({"role": "-a"}, "is not a service name"),
        ({"role": "a" * 129}, "at most 128"),
        ({"role": "a@1", "version": "2"}, "'a@1' is not a service name"),
        ({"role": ["a"]}, "is not a service name"),
        ({"port": None}, "None is not a port"),
        ({"port": 0}, "0 is not a port"),
        ({"port": "nine"}, "'nine' is not a port"),
        ({"port": "999999"}, "'999999' is not a port"),
        ({"port": True}, "True is not a port"),
        ({"host": 7}, "7 is not a host name"),
        ({"host": "a b"}, "'a b' is not a host name"),
        ({"state": "asleep"}, "expected one of starting, passing, draining, critical"),
        ({"state": []}, "is not a state"),
        ({"models": "flowers"}, "expected a list of names"),
        ({"models": [1]}, "expected a list of names"),
    ],
)
def test_bad_meta(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInstance, match=words):
        Instance.from_meta("I", {"role": "a", "port": 9} | change, host="10.0.0.7")


@pytest.mark.parametrize("id", ["", "x" * 129])
def test_bad_ids(id: str) -> None:
    with pytest.raises(InvalidInstance, match="expected a text of 1 to 128 characters"):
        Instance.from_meta(id, {"role": "a", "port": 9}, host="10.0.0.7")


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("1.2.3", "", True), ("", "", True), ("nonsense", "", True),
        ("", "*", False), ("nonsense", "*", False), ("1.2", "1.x", False),
        ("1.2.3", "*", True), ("1.2.3", "1.2.3", True), ("v1.2.3", "1.2.3", True), ("1.2.3", "=1.2.3", True),
        ("1.2.3", "1.2.x", True), ("1.3.0", "1.2.x", False), ("1.9.9", "1", True), ("2.0.0", "1", False),
        ("1.2.3", ">1.2.0", True), ("1.2.0", ">1.2.0", False), ("1.2.3", ">= 1.2.0", True), ("1.2.3", "> 1.3", False),
        ("1.2.9", "~1.2.3", True), ("1.3.0", "~1.2.3", False), ("1.2.2", "~ 1.2.3", False), ("1.2.4", "~ 1.2.3", True),
        ("1.9.0", "^1.2", True), ("2.0.0", "^1.2", False), ("0.2.5", "^0.2", True), ("0.3.0", "^0.2", False),
        ("1.5.0", ">=1 <2", True), ("2.0.0", ">=1 <2", False),
        ("1.3.4", "1.2.0 - 1.3", True), ("1.4.0", "1.2.0 - 1.3", False),
        ("3.0.0", "1 || 3", True), ("2.0.0", "1 || 3", False),
        ("1.2.3-rc.1", "^1.2", False), ("1.2.3-rc.1", ">=1.2.3-rc.0", True),
        ("1.2.3-rc.1", "1.2.3-rc.1", True), ("1.2.3", "1.2.3-rc.1", False), ("1.2.3", "=1.2.3-rc.1 || 2", False),
        ("1.2.3", "=v1.2.3", True), ("1.2.3-rc.1", "1.2.3", False),
        ("1.2.3+build", "1.2.3", True),
        ("1.2.3", "latest", False), ("1.2.3", ">>1", False), ("1.2.3", "a1 - b2", False), ("1.2.3", "1 - - 2", False),
    ],
)  # fmt: skip
def test_ranges_as_npm_reads_them(version: str, wanted: str, expected: bool) -> None:
    assert satisfies(version, wanted) is expected


@given(st.text(alphabet="0123456789.xX*^~<>=|- vab+", max_size=20), st.text(alphabet="0123.-+av ", max_size=10))
@settings(max_examples=300, deadline=None)
def test_no_range_and_no_version_raise(wanted: str, version: str) -> None:
    assert satisfies(version, wanted) in (True, False)


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("", ["a", "a@1.2.3", "b@2.0.0"]),
        ("a", ["a", "a@1.2.3"]),
        (" a@ ^1 ", ["a@1.2.3"]),
        ("a@>= 2", []),
        ("@2.x", ["b@2.0.0"]),
        ("A", []),
    ],
)
def test_queries(text: str, matched: list[str]) -> None:
    here = Address("127.0.0.1", 9)
    rows = [Instance("1", "a", here), Instance("2", "a", here, "1.2.3"), Instance("3", "b", here, "2.0.0")]
    assert [row.role for row in rows if Query.parse(text).matches(row)] == matched
