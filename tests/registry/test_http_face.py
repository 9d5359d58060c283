"""Consul's HTTP API over real sockets on a real hub: join, be found, leave."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from fairway.registry import Hub
from fairway.registry.ports import free_port
from fairway.registry.wire import Free, Hello, Register

from .caller import TTL, Caller, calling
from .peers import PATIENCE, connected, greeted, listening, row
from .test_prober import until


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with calling(hub) as caller:
        yield caller


# -- join, be found, leave ---------------------------------------------------------------------------------------------


async def test_the_life_of_a_worker_in_any_language(hub: Hub, call: Caller) -> None:
    async with listening() as port:
        await call.put("/v1/agent/service/register", {"Name": "classify", "Port": port})
        await until(lambda: hub.catalog.instances("classify")[0].serving)
        [entry] = await call.get("/v1/health/service/classify?passing")
        assert (entry["Service"]["Address"], entry["Service"]["Port"]) == ("127.0.0.1", port)
        [check] = entry["Checks"]
        assert (check["CheckID"], check["Name"], check["Status"]) == ("service:classify", "Fairway dials it", "passing")
    await call.put("/v1/agent/service/deregister/classify")
    assert await call.get("/v1/health/service/classify") == []
    gone = await call("PUT", "/v1/agent/service/deregister/classify")
    assert gone.status == 404
    assert gone.text.startswith('Unknown service ID "classify".')


async def test_a_dead_address_is_not_served(hub: Hub, call: Caller) -> None:
    """Although its owner gave no check."""
    await call.put("/v1/agent/service/register", {"Name": "classify", "Port": free_port()})
    assert await call.ids("/v1/health/service/classify?passing") == []
    await until(lambda: "refused" in str(hub.prober.health.results("classify")))
    assert await call.ids("/v1/health/service/classify?passing") == []
    assert await call.ids("/v1/health/service/classify") == ["classify"]


async def test_an_answer_means_that_it_is_so(call: Caller) -> None:
    """Register, say that it is well, and read: no waiting in between."""
    for n in range(20):
        id = f"w{n}"
        await call.register(ID=id, Check={"TTL": "10s"})
        assert id not in await call.ids("/v1/health/service/classify?passing")
        await call.put(f"/v1/agent/check/pass/service:{id}?note=hi")
        assert id in await call.ids("/v1/health/service/classify?passing")
        await call.put(f"/v1/agent/service/deregister/{id}")
        assert await call.ids("/v1/health/service/classify") == []


async def test_ids_with_odd_characters(call: Caller) -> None:
    for id, path in (("a/b c", "a%2Fb%20c"), ("ü%2F", "%C3%BC%252F"), ("a?b#c", "a%3Fb%23c")):
        await call.register(ID=id)
        at = f"/v1/agent/service/{path}"
        async with aiohttp.ClientSession() as http, http.get(URL(call._base + at, encoded=True)) as answer:
            assert (await answer.json())["ID"] == id
        where = URL(f"{call._base}/v1/agent/service/deregister/{path}", encoded=True)
        async with aiohttp.ClientSession() as http, http.put(where) as answer:
            assert answer.status == 200


async def test_rows_of_seaport_and_registrations_are_one_catalog(hub: Hub, call: Caller) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port, Hello()) as watcher:
        worker.say(row("A1", version="1.2.3"))
        heard = await watcher.until(lambda message: isinstance(message, Register))
        assert isinstance(heard, Register)
        await call.register(ID="w1", Tags=["blue"], Meta={"version": "2.0.0"})
        heard = await watcher.until(lambda message: isinstance(message, Register))
        assert isinstance(heard, Register)
        assert (heard.id, heard.meta["version"], heard.meta["tags"]) == ("w1", "2.0.0", ["blue"])
        assert await call.ids("/v1/health/service/classify") == ["A1", "w1"]
        assert await call.ids("/v1/health/service/classify@2.x") == ["w1"]
        assert await call.get("/v1/catalog/services") == {"classify": ["1.2.3", "blue"]}
        checks = await call.get("/v1/agent/checks")
        assert (checks["service:A1"]["Name"], checks["service:A1"]["Status"]) == ("connection", "passing")
        await call.put("/v1/agent/service/deregister/w1")
        assert await watcher.until(lambda message: isinstance(message, Free)) == Free("w1")


async def test_what_lives_by_a_connection_is_not_the_callers(hub: Hub, call: Caller, tmp_path: Path) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port) as other:
        worker.say(row("A1"))
        await other.until(lambda message: isinstance(message, Register))
        taken = await call("PUT", "/v1/agent/service/register", {"Name": "classify", "Port": 9001, "ID": "A1"})
        assert (taken.status, "lives by the connection" in taken.text) == (403, True)
        check = await call("PUT", "/v1/agent/check/register", {"Name": "c", "TTL": "1s", "ServiceID": "A1"})
        assert check.status == 403
        assert (await call("PUT", "/v1/agent/check/pass/service:A1")).status == 404
        # Here everybody is an admin, as with a local agent of Consul's: an operator may take it out of service.
        await call.put("/v1/agent/service/maintenance/A1?enable=true")
        assert await call.ids("/v1/health/service/classify?passing") == []
        # Not away: its worker would go on, unlisted, and not know.
        removed = await call("PUT", "/v1/agent/service/deregister/A1")
        assert (removed.status, "maintenance" in removed.text) == (403, True)
        assert await call.ids("/v1/health/service/classify") == ["A1"]


# -- registering again -------------------------------------------------------------------------------------------------


async def test_registering_again_keeps_what_was_known(call: Caller) -> None:
    await call.register(Check={"TTL": "60s"})
    await call.put("/v1/agent/check/warn/service:classify?note=hot")
    await call.register(Check={"TTL": "90s", "Status": "critical"}, Tags=["new"])
    [entry] = await call.get("/v1/health/service/classify")
    assert (entry["Checks"][0]["Status"], entry["Checks"][0]["Output"]) == ("warning", "hot")
    assert entry["Service"]["Tags"] == ["new"]


async def test_checks_that_are_not_repeated_stay_unless_replaced(call: Caller) -> None:
    body = {"Name": "classify", "Port": 9001}
    await call.register(Check={"CheckID": "one"} | TTL)
    await call.register(Check={"CheckID": "two"} | TTL)
    assert set(await call.get("/v1/agent/checks")) == {"one", "two"}
    await call.put(
        "/v1/agent/service/register?replace-existing-checks=true", body | {"Check": {"CheckID": "two"} | TTL}
    )
    assert set(await call.get("/v1/agent/checks")) == {"two"}
    await call.put("/v1/agent/service/register?replace-existing-checks=false", body)
    assert set(await call.get("/v1/agent/checks")) == {"two"}
    await call.put("/v1/agent/service/register?replace-existing-checks=1", body)
    assert set(await call.get("/v1/agent/checks")) == {"service:classify"}, "nobody is without one"


async def test_another_service_and_address_under_the_same_id(call: Caller) -> None:
    await call.register(ID="w1")
    await call.register(ID="w1", Name="other", Port=9002)
    assert await call.ids("/v1/health/service/classify") == []
    [entry] = await call.get("/v1/health/service/other")
    assert entry["Service"]["Port"] == 9002


# -- checks ------------------------------------------------------------------------------------------------------------


async def test_the_owners_words(call: Caller) -> None:
    await call.register(Check={"TTL": "60s"})
    for path, expected in (
        ("pass/service:classify?note=n1", ("passing", "n1")),
        ("warn/service:classify?note=n2", ("warning", "n2")),
        ("fail/service:classify?note=n3", ("critical", "n3")),
        ("pass/service:classify", ("passing", "")),
    ):
        await call.put(f"/v1/agent/check/{path}")
        check = (await call.get("/v1/agent/checks"))["service:classify"]
        assert (check["Status"], check["Output"]) == expected
    for status, output in (("warning", "o1"), ("passing", "x" * 5000)):
        await call.put("/v1/agent/check/update/service:classify", {"Status": status, "Output": output})
        check = (await call.get("/v1/agent/checks"))["service:classify"]
        assert (check["Status"], check["Output"]) == (status, output[:4096])


async def test_passing_means_that_all_is_well_and_a_warning_is_still_served(hub: Hub, call: Caller) -> None:
    await call.register()
    await call.put("/v1/agent/check/warn/service:classify")
    assert await call.ids("/v1/health/service/classify?passing") == []
    assert hub.catalog.instances("classify")[0].serving, "DNS and Fairway's own clients go on sending to it"


async def test_checks_of_a_service_come_and_go(call: Caller) -> None:
    await call.put("/v1/agent/service/register", {"Name": "classify", "Port": 9001})
    await call.put("/v1/agent/check/register", {"Name": "alive", "ServiceID": "classify"} | TTL)
    assert set(await call.get("/v1/agent/checks")) == {"alive"}, "ours has yielded"
    assert await call.ids("/v1/health/service/classify?passing") == ["classify"]
    await call.put("/v1/agent/check/register", {"Name": "more", "ID": "m", "ServiceID": "classify", "TTL": "9s"})
    assert await call.ids("/v1/health/service/classify?passing") == [], "the worst counts"
    await call.put("/v1/agent/check/deregister/m")
    assert await call.ids("/v1/health/service/classify?passing") == ["classify"]
    await call.put("/v1/agent/check/deregister/alive")
    assert (await call.get("/v1/agent/checks"))["service:classify"]["Name"] == "Fairway dials it"


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/agent/check/register", {"Name": "c", "TTL": "1s"}, 400, "ServiceID is missing"),
        ("/v1/agent/check/register", {"Name": "c", "TTL": "1s", "ServiceID": "x"}, 400, "does not exist"),
        ("/v1/agent/check/register", {"Name": "theirs", "TTL": "1s", "ServiceID": "w1"}, 400, "belongs to the service"),
        ("/v1/agent/check/deregister/nobody", None, 404, 'Unknown check ID "nobody"'),
        ("/v1/agent/check/pass/nobody", None, 404, 'Unknown check ID "nobody"'),
        ("/v1/agent/check/pass/tcp", None, 404, "does not have associated TTL"),
        ("/v1/agent/check/update/theirs", {"Status": "fine"}, 400, "Invalid check status: 'fine'"),
        ("/v1/agent/check/update/theirs", {"Status": "passing", "Output": 7}, 400, "Output is 7"),
        ("/v1/agent/check/update/theirs", [], 400, "expected a JSON object"),
        ("/v1/agent/service/maintenance/w1", None, 400, "Missing value for enable"),
        ("/v1/agent/service/maintenance/w1?enable=perhaps", None, 400, "true or false"),
        ("/v1/agent/service/maintenance/nobody?enable=true", None, 404, 'Unknown service ID "nobody"'),
        ("/v1/agent/service/register", {"Name": "classify"}, 400, "Port is missing"),
        ("/v1/agent/service/register", {"Name": "c", "Port": 1, "Address": "10.0.0.7"}, 400, "not on the registry's"),
        (
            "/v1/agent/service/register",
            {"Name": "c", "Port": 1, "Address": "models.example"},
            400,
            "not the peer's own",
        ),
        (
            "/v1/agent/service/register",
            {"Name": "c", "Port": 1, "Check": {"HTTP": "http://10.0.0.7/", "Interval": "1s"}},
            400,
            "would ask elsewhere: 10.0.0.7",
        ),
        (
            "/v1/agent/service/register",
            {"Name": "c", "Port": 1, "Check": {"HTTP": "http://metadata.internal/", "Interval": "1s"}},
            400,
            "names are not looked up",
        ),
        ("/v1/agent/service/register", {"Name": "c", "Port": 1, "Meta": {"a": "x" * 9000}}, 413, "at most 8192"),
        ("/v1/agent/service/register", b"x" * 70_000, 413, ""),
        ("/v1/agent/service/register", b"[" * 60_000, 400, "the body is not JSON"),
        ("/v1/agent/service/register", b'{"Port": NaN}', 400, "NaN is no number"),
        ("/v1/agent/service/register", b'{"Port": ' + b"9" * 5000 + b"}", 400, "the body is not JSON"),
        ("/v1/agent/service/register", b'{"Name": "\\ud800"}', 400, "the body is not JSON"),
        ("/v1/agent/service/register", b"\xff\xfe", 400, "the body is not JSON"),
        ("/v1/agent/service/register", b"", 400, "the body is not JSON"),
    ],
)
async def test_what_is_refused_says_why(call: Caller, path: str, body: object, status: int, reason: str) -> None:
    await call.register(ID="w2", Check={"CheckID": "theirs"} | TTL)
    tcp = {"CheckID": "tcp", "TCP": "127.0.0.1:9001", "Interval": "60s"}
    await call.register(ID="w1", Checks=[tcp, TTL], Check=None)
    before = await call.get("/v1/agent/services")
    answer = await call("PUT", path, body)
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert reason in answer.text
    assert await call.get("/v1/agent/services") == before


async def test_a_bomb_is_not_unpacked(call: Caller) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(b" " * 50_000_000) + packer.flush()
    assert len(bomb) < 64 * 1024
    answer = await call("PUT", "/v1/agent/service/register", bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status in (400, 413)


async def test_a_body_that_does_not_come(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.listeners.registrations.BODY_SECONDS", 0.1)
    async with connected(hub.port) as slow:
        slow.writer.write(b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
        async with asyncio.timeout(PATIENCE):
            answer = await slow.reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
