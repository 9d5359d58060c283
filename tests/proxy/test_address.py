"""Manual DNS: the forms of its answer."""

from __future__ import annotations

import json

import pytest

from fairway.proxy.address import answer, wanted
from fairway.proxy.config import AddressFormat
from fairway.proxy.errors import BadRequest
from fairway.registry import lookup
from fairway.registry.instance import Address, Instance
from fairway.registry.lookup import Lookup

FOUND = Lookup(
    "classify",
    tuple(Instance(f"id{i}", "classify", Address("127.0.0.1", 9000 + i), "1.2.0") for i in range(1, 6)),
    5.0,
)
JSON = "application/json"


@pytest.mark.parametrize(
    ("accept", "asked", "default", "body"),
    [
        ("", None, "host:port", b"127.0.0.1:9001\n"),
        ("*/*", None, "host:port", b"127.0.0.1:9001\n"),
        ("*/*", None, "port", b"9001\n"),
        ("*/*", None, "url", b"http://127.0.0.1:9001/\n"),
        ("*/*", "port", "host:port", b"9001\n"),
        ("*/*", "url", "port", b"http://127.0.0.1:9001/\n"),
        ("*/*", "host:port", "port", b"127.0.0.1:9001\n"),
        (JSON, "port", "host:port", b"9001\n"),  # the query wins over Accept
        (JSON, None, "port", None),  # Accept wins over the setting
        ("text/html, application/json;q=0.9", None, "host:port", None),
        ("*/*", "json", "host:port", None),
    ],
)
def test_forms(accept: str, asked: str | None, default: AddressFormat, body: bytes | None) -> None:
    said = answer(FOUND, wanted("" if asked is None else f"x=1&format={asked}", accept.encode(), default))
    assert said.status == 200
    assert ("Cache-Control", "no-store") in said.headers
    if body is not None:
        assert (said.body, said.content_type) == (body, "text/plain")
        return
    assert said.content_type == JSON
    assert isinstance(said.body, bytes)
    raw = json.loads(said.body)
    assert raw["service"] == "classify"
    assert raw["ttl_seconds"] == 5.0
    assert raw["instances"][0] == {
        "id": "id1", "host": "127.0.0.1", "port": 9001, "url": "http://127.0.0.1:9001/", "version": "1.2.0"
    }  # fmt: skip
    assert [row["port"] for row in raw["instances"]] == [9001, 9002, 9003]
    assert [i.address for i in lookup.decode(said.body).instances] == [i.address for i in FOUND.instances[:3]]


@pytest.mark.parametrize("asked", ["", "ports", "JSON", "host"])
def test_an_unknown_form_is_refused_with_the_known_ones(asked: str) -> None:
    with pytest.raises(BadRequest, match="port, url, json or host:port"):
        wanted(f"format={asked}", b"*/*", "host:port")
