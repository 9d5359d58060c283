"""Heads on their way through: what passes, what is dropped, what is refused."""

from __future__ import annotations

import pytest

from fairway.proxy.errors import BadRequest, ProxyError, UnsupportedFraming, UnsupportedVersion
from fairway.proxy.head import (
    HOP_BY_HOP,
    NEVER_LISTED,
    Fields,
    check_framing,
    connection_listed,
    downstream_fields,
    upstream_fields,
)

HTTP10, HTTP11 = (1, 0), (1, 1)
H = ("Host", "door")


def names(fields: Fields) -> list[str]:
    return [name.lower() for name, _ in fields]


@pytest.mark.parametrize(
    ("fields", "version", "error"),
    [
        ([H], HTTP11, None),
        ([H, ("Content-Length", "0")], HTTP11, None),
        ([H, ("content-length", "12")], HTTP10, None),
        ([H, ("Transfer-Encoding", "chunked")], HTTP11, None),
        ([H, ("Transfer-Encoding", " Chunked ")], HTTP11, None),
        ([], HTTP10, None),
        ([], HTTP11, BadRequest),
        ([H, H], HTTP11, BadRequest),
        ([H, ("host", "other")], HTTP10, BadRequest),
        ([H, ("Content-Length", "3"), ("Content-Length", "3")], HTTP11, BadRequest),
        ([H, ("Content-Length", "3, 3")], HTTP11, BadRequest),
        ([H, ("Content-Length", "+3")], HTTP11, BadRequest),
        ([H, ("Content-Length", "-3")], HTTP11, BadRequest),
        ([H, ("Content-Length", "")], HTTP11, BadRequest),
        ([H, ("Content-Length", "0x3")], HTTP11, BadRequest),
        ([H, ("Content-Length", "٣")], HTTP11, BadRequest),  # a digit to Python, not to HTTP
        ([H, ("Content-Length", "3"), ("Transfer-Encoding", "chunked")], HTTP11, BadRequest),
        ([H, ("Transfer-Encoding", "chunked")], HTTP10, BadRequest),
        ([H, ("Transfer-Encoding", "gzip, chunked")], HTTP11, UnsupportedFraming),
        ([H, ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], HTTP11, UnsupportedFraming),
        ([H, ("Transfer-Encoding", "identity")], HTTP11, UnsupportedFraming),
        ([H, ("Transfer-Encoding", "xchunked")], HTTP11, UnsupportedFraming),
        ([H], (0, 9), UnsupportedVersion),
        ([H], (2, 0), UnsupportedVersion),
    ],
)
def test_framing_that_two_parsers_could_read_in_two_ways(
    fields: Fields, version: tuple[int, int], error: type[ProxyError] | None
) -> None:
    if error is None:
        check_framing(fields, version)
        return
    with pytest.raises(error):
        check_framing(fields, version)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_fields_end_here_in_both_directions(name: str) -> None:
    fields: Fields = [H, (name.title(), "keep-alive"), ("X-Kept", "yes")]
    assert name not in names(upstream_fields(fields, "192.0.2.1", "http", 0))
    assert name not in names(downstream_fields(fields))
    assert "x-kept" in names(upstream_fields(fields, "192.0.2.1", "http", 0))
    assert "x-kept" in names(downstream_fields(fields))


@pytest.mark.parametrize("value", ["X-Secret", "close, x-secret", "keep-alive,X-SECRET ,", "x-other,,x-secret"])
def test_what_connection_lists_ends_here_too(value: str) -> None:
    fields: Fields = [H, ("Connection", value), ("X-Secret", "1"), ("X-Kept", "2")]
    for passed in (upstream_fields(fields, "192.0.2.1", "http", 0), downstream_fields(fields)):
        assert "x-secret" not in names(passed)
        assert ("X-Kept", "2") in passed


def test_several_connection_fields_are_one_list() -> None:
    assert connection_listed([("Connection", "a"), ("connection", "close, B")]) == {"a", "b"}


@pytest.mark.parametrize("name", sorted(NEVER_LISTED))
def test_a_client_may_not_strip_what_workers_rely_on(name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        upstream_fields([H, ("Connection", f"close, {name.title()}")], "192.0.2.1", "http", 0)


def test_a_worker_that_lists_such_a_name_is_no_mistake_of_the_client() -> None:
    said: Fields = [("Connection", "Content-Type, X-Mine"), ("Content-Type", "text/plain"), ("X-Mine", "1")]
    assert downstream_fields(said) == [("Content-Type", "text/plain"), ("Via", "1.1 fairway")]


def test_forwarded_fields_are_written_anew() -> None:
    lies: Fields = [H, ("X-Forwarded-For", "10.0.0.1"), ("x-forwarded-proto", "https"), ("X-FORWARDED-HOST", "bank")]
    passed = upstream_fields(lies, "192.0.2.1", "http", 0)
    assert [pair for pair in passed if pair[0].lower().startswith("x-forwarded")] == [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "door"),
    ]


def test_the_choice_of_a_service_is_between_client_and_proxy() -> None:
    assert "x-fairway-service" not in names(upstream_fields([H, ("X-Fairway-Service", "pets")], "::1", "http", 0))


@pytest.mark.parametrize(
    ("length", "framing"),
    [
        (0, []),
        (7, [("Content-Length", "7")]),
        (None, [("Transfer-Encoding", "chunked")]),
    ],
)
@pytest.mark.parametrize("said", [("Content-Length", "99"), ("Transfer-Encoding", "chunked"), ("X-None", "")])
def test_exactly_one_framing_leaves(length: int | None, framing: Fields, said: tuple[str, str]) -> None:
    passed = upstream_fields([H, said], "192.0.2.1", "http", length)
    assert [pair for pair in passed if pair[0].lower() in ("content-length", "transfer-encoding")] == framing


def test_order_case_and_repetition_of_the_rest_stay() -> None:
    rest: Fields = [("Accept", "a"), ("X-B", "2"), ("accept", "b"), ("Content-Type", "image/jpeg"), ("Cookie", "c=d")]
    assert [pair for pair in upstream_fields([H, *rest], "192.0.2.1", "http", 0) if pair in rest] == rest
    answer: Fields = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("ETag", '"x"')]
    assert downstream_fields([*answer, ("Content-Length", "3")]) == [*answer, ("Via", "1.1 fairway")]
