"""Who may what over HTTP, and the manners of the face: what is not supported, what is hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.registry import Hub
from fairway.registry.listeners import lookups
from fairway.registry.rights import principal_of
from fairway.registry.wire import Hello

from .caller import TTL, Caller, calling
from .peers import connected, greeted, row, running_hub
from .test_prober import until


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with calling(hub) as caller:
        yield caller


# -- who may -----------------------------------------------------------------------------------------------------------


READER, OWNER, OTHER, ADMIN = ("reader-0123456789", "owner-0123456789", "other-0123456789", "admin-0123456789")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Hub]:
    file = tmp_path / "tokens"
    file.write_text(
        f"{READER} read\n{OWNER} read,register:cl\n{OTHER} read,register:cl,register:zebra\n{ADMIN} admin\n"
    )
    file.chmod(0o600)
    async with running_hub(token_file=file) as hub:
        yield hub


def shown(token: str) -> dict[str, str]:
    return {"X-Consul-Token": token}


async def test_nobody_reads_without_a_right(guarded: Hub) -> None:
    async with calling(guarded) as call:
        for path in ("/v1/catalog/services", "/v1/health/service/a", "/v1/agent/self", "/metrics", "/v1/sd/prometheus"):
            for headers in ({}, shown("stranger-0123456789"), {"Authorization": f"Basic {READER}"}):
                answer = await call("GET", path, headers=headers)
                assert (answer.status, answer.text.startswith("Permission denied")) == (403, True), path
        for how in (
            {"headers": shown(READER)},
            {"headers": {"Authorization": f"Bearer {READER}"}},
            {"headers": {"authorization": f"bearer {READER}"}},
            {"params": {"token": READER}},
        ):
            assert await call.get("/v1/catalog/services", **how) == {}
        assert await call.get("/healthz") == {"status": "ok"}
        assert (await call("GET", "/v1/status/leader")).status == 200


async def test_who_writes_what(guarded: Hub) -> None:
    async with calling(guarded) as call:
        body = {"Name": "classify", "Port": 9001, "Check": TTL}

        async def status(path: str, token: str, said: object = None) -> int:
            answer = await call("PUT", path, said, headers=shown(token))
            assert answer.status == 200 or answer.text.startswith("Permission denied: "), answer.text
            assert token not in answer.text
            return answer.status

        register = "/v1/agent/service/register"
        assert await status(register, READER, body) == 403
        assert await status(register, OWNER, body | {"Name": "zebra"}) == 403
        assert await status(register, OWNER, body) == 200
        assert guarded.catalog.principal_of("classify") == principal_of(OWNER)
        writes = [
            (register, body),
            ("/v1/agent/service/maintenance/classify?enable=true", None),
            ("/v1/agent/check/pass/service:classify", None),
            ("/v1/agent/check/update/service:classify", {"Status": "passing"}),
            ("/v1/agent/check/register", {"Name": "c", "TTL": "1s", "ServiceID": "classify"}),
            ("/v1/agent/check/deregister/service:classify", None),
            ("/v1/agent/service/deregister/classify", None),
        ]
        for path, said in writes:
            assert await status(path, OTHER, said) == 403, path
            assert await status(path, READER, said) == 403, path
        for path, said in writes:
            assert await status(path, OWNER, said) == 200, path
        assert await status(register, OWNER, body) == 200
        assert await status(register, ADMIN, body | {"Tags": ["x"]}) == 200
        assert guarded.catalog.principal_of("classify") == principal_of(OWNER), "an admin takes nothing over"
        assert await status("/v1/agent/service/deregister/classify", ADMIN) == 200


async def test_a_workers_row_is_an_admins_to_take_out_of_service(guarded: Hub) -> None:
    async with calling(guarded) as call, greeted(guarded.port, Hello(ADMIN)) as worker:
        worker.say(row("A1"))
        await until(lambda: guarded.catalog.get("A1") is not None)
        for token, expected in ((OWNER, 403), (ADMIN, 200)):
            answer = await call("PUT", "/v1/agent/service/maintenance/A1?enable=true", headers=shown(token))
            assert answer.status == expected, token


async def test_web_pages_do_not_write(call: Caller) -> None:
    await call.register()
    for origin in ("http://evil.example", "null"):
        answer = await call("PUT", "/v1/agent/service/deregister/classify", headers={"Origin": origin})
        assert (answer.status, answer.text.startswith("Permission denied")) == (403, True)
    assert await call.ids("/v1/health/service/classify") == ["classify"]


# -- manners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/kv/key", 404),
        ("PUT", "/v1/session/create", 404),
        ("PUT", "/v1/catalog/register", 404),
        ("GET", "/v1/event/list", 404),
        ("GET", "/", 404),
        ("GET", "/v1/agent/service/register", 404),  # a service of that id
        ("POST", "/v1/agent/service/register", 405),
        ("GET", "/v1/agent/check/pass/x", 405),
        ("PUT", "/v1/health/service/classify", 405),
        ("DELETE", "/healthz", 405),
    ],
)
async def test_what_is_not_supported_says_what_is(call: Caller, method: str, path: str, status: int) -> None:
    answer = await call(method, path)
    assert answer.status == status
    if "register" in path and method == "GET":
        return
    assert answer.json["error"].startswith(f"{method} {path}: ")
    assert ("Allow" in answer.headers) is (status == 405)
    for words in ("/v1/health/service/NAME", "/v1/agent/service/{register", "/v1/sd/prometheus", "seaport rows"):
        assert words in answer.json["error"]


async def test_a_body_is_made_once_per_change(hub: Hub, call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await call.register(ID="w1")
    await call.register(ID="w2")
    made: list[str] = []
    plain = lookups.PIECES["health"]

    def health(look: Any, index: int) -> object:
        made.append(look.instance.id)
        return plain(look, index)

    monkeypatch.setitem(lookups.PIECES, "health", health)
    for _ in range(3):
        assert await call.ids("/v1/health/service/classify") == ["w1", "w2"]
    assert made == ["w1", "w2"]
    await call.put("/v1/agent/check/pass/service:w2?note=other")
    assert await call.ids("/v1/health/service/classify") == ["w1", "w2"]
    assert made == ["w1", "w2", "w2"], "only what changed is written anew"
    await call.register(ID="z1", Name="zebra")
    await call.ids("/v1/health/service/classify")
    assert made == ["w1", "w2", "w2"]


async def test_what_is_kept_is_bounded(hub: Hub, call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MAX_BODIES", 5)
    face = lookups.Lookups(hub)
    await call.register(Tags=["a"])
    for n in range(50):
        assert face.health("classify", False, ("a", *("A" for _ in range(n))))[1] != b"[]"
        face.health(f"nobody{n}", False, ())
        assert len(face._bodies) <= 5
    assert face._body_bytes == sum(len(kept[2]) for kept in face._bodies.values())
    await call.put("/v1/agent/service/deregister/classify")
    assert not any(face._pieces.values())


BYTES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda method, path, tail: f"{method} {path} HTTP/1.1\r\nHost: a\r\n{tail}\r\n".encode("utf-8", "replace"),
        st.sampled_from(("GET", "PUT", "POST", "X")),
        st.builds(
            lambda head, tail: head + tail,
            st.sampled_from(("/v1/health/service/", "/v1/agent/check/pass/", "/v1/catalog/service/a?", "/v1/")),
            st.text(st.characters(exclude_characters=" \r\n", exclude_categories=["Cs"]), max_size=30),
        ),
        st.sampled_from(("", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "X-Consul-Token: \xff\r\n")),
    ),
)


@given(st.lists(BYTES, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_do_no_harm(hub: Hub, chunks: list[bytes]) -> None:
    async with connected(hub.port) as vandal:
        vandal.writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + b"".join(chunks))
        vandal.writer.write(b"\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        try:
            async with asyncio.timeout(0.05):
                while more := await vandal.reader.read(65536):
                    answer += more
        except (TimeoutError, ConnectionError):  # it may have announced a body that does not come
            pass
        assert b" 500 " not in answer
    async with calling(hub) as call:
        assert await call.get("/healthz") == {"status": "ok"}
