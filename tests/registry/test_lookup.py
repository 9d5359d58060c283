"""Manual-DNS answers, written and read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry.errors import WireError
from fairway.registry.instance import Address, Instance
from fairway.registry.lookup import AT_MOST, Format, Lookup, decode, encode


def instances(count: int, host: str = "127.0.0.1") -> tuple[Instance, ...]:
    return tuple(Instance(f"A{n}", "classify", Address(host, 9000 + n), "1.2.3") for n in range(count))


@pytest.mark.parametrize(
    ("format", "host", "body"),
    [
        ("port", "127.0.0.1", b"9000\n"),  # the line the article's client reads
        ("host:port", "127.0.0.1", b"127.0.0.1:9000\n"),
        ("host:port", "::1", b"[::1]:9000\n"),
        ("url", "worker.lan", b"http://worker.lan:9000/\n"),
        ("url", "::1", b"http://[::1]:9000/\n"),
    ],
)
def test_plain_answers(format: Format, host: str, body: bytes) -> None:
    assert encode(Lookup("classify", instances(2, host), 5), format) == (body, "text/plain")


def test_a_plain_answer_is_an_address_again() -> None:
    body, _ = encode(Lookup("classify", instances(1, "::1"), 5), "host:port")
    assert Address.parse(body.decode()) == Address("::1", 9000)


def test_json_shape() -> None:
    body, kind = encode(Lookup("classify", instances(1), 5), "json")
    assert kind == "application/json"
    assert body.endswith(b"\n")
    assert json.loads(body) == {
        "service": "classify",
        "instances": [
            {"id": "A0", "host": "127.0.0.1", "port": 9000, "url": "http://127.0.0.1:9000/", "version": "1.2.3"}
        ],
        "ttl_seconds": 5,
    }


@pytest.mark.parametrize("count", [0, 1, AT_MOST, AT_MOST + 1])
def test_json_and_back_with_at_most_three(count: int) -> None:
    body, _ = encode(Lookup("classify", instances(count), 2.5), "json")
    assert decode(body) == Lookup("classify", instances(count)[:AT_MOST], 2.5)


GOOD: dict[str, Any] = {
    "service": "classify",
    "instances": [{"id": "A", "host": "127.0.0.1", "port": 9}],
    "ttl_seconds": 5,
}


BAD: list[dict[str, Any]] = [
    {"service": 7},
    {"instances": None},
    {"instances": "A"},
    {"instances": [[]]},
    {"instances": [{"host": "127.0.0.1", "port": 9}]},
    {"instances": [{"id": 1, "host": "127.0.0.1", "port": 9}]},
    {"instances": [{"id": "A", "host": "127.0.0.1", "port": "9"}]},
    {"instances": [{"id": "A", "host": "a b", "port": 9}]},
    {"instances": [{"id": "A", "host": None, "port": 9}]},
    {"instances": [{"id": "A", "host": "h", "port": 9, "version": []}]},
    {"ttl_seconds": "soon"},
    {"ttl_seconds": -1},
    {"ttl_seconds": float("nan")},
    {"ttl_seconds": float("inf")},
    {"ttl_seconds": 10**400},
]


def test_the_version_may_be_absent() -> None:
    assert decode(json.dumps(GOOD).encode()).instances == (Instance("A", "classify", Address("127.0.0.1", 9)),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"9001\n",
        b"[]",
        b"null",
        b"<html>502 Bad Gateway</html>",
        b"[" * 100_000,
        b"\xff\xfe",
        *(json.dumps(GOOD | change).encode() for change in BAD),
        *(json.dumps({k: v for k, v in GOOD.items() if k != missing}).encode() for missing in GOOD),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(WireError, match=r"^not an address answer: b"):
        decode(body)


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {"service": st.just("a"), "instances": st.lists(st.just({}) | st.integers()), "ttl_seconds": st.floats()}
    ).map(lambda raw: json.dumps(raw).encode())
)
@settings(deadline=None)
def test_nothing_else_is_raised(body: bytes) -> None:
    try:
        lookup = decode(body)
    except WireError:
        return
    assert 0 <= lookup.ttl_seconds < float("inf")
