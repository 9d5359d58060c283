"""Consul's HTTP API and its manners, over real sockets on a real hub."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from fairway.registry import Hub
from fairway.registry.listeners import lookups
from fairway.registry.ports import free_port
from fairway.registry.rights import principal_of
from fairway.registry.wire import Free, Hello, Register

from .peers import PATIENCE, connected, greeted, row, running_hub
from .test_prober import durable, listening, until

TTL = {"TTL": "60s", "Status": "passing"}


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self.body
        return json.loads(self.body)

    @property
    def index(self) -> int:
        return int(self.headers["X-Consul-Index"])


class Caller:
    """One HTTP client of one hub."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http, self._base = http, f"http://127.0.0.1:{port}"

    async def __call__(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self._http.request(method, self._base + path, data=data, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **more: Any) -> Any:
        answer = await self("GET", path, **more)
        assert answer.status == 200, answer.body
        return answer.json

    async def put(self, path: str, body: object = None, **more: Any) -> None:
        answer = await self("PUT", path, body, **more)
        assert (answer.status, answer.body) == (200, b""), answer.body

    async def register(self, **said: object) -> None:
        await self.put("/v1/agent/service/register", {"Name": "classify", "Port": 9001, "Check": TTL} | said)

    async def ids(self, path: str) -> list[str]:
        return [entry["Service"]["ID"] for entry in await self.get(path)]


@asynccontextmanager
async def calling(hub: Hub) -> AsyncIterator[Caller]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        yield Caller(http, hub.port)


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with calling(hub) as caller:
        yield caller


# -- join, be found, leave -----------------------------------------------------------------------------------------


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
        # Here everybody is an admin, as with a local agent of Consul's: an operator may take it out, and away.
        await call.put("/v1/agent/service/maintenance/A1?enable=true")
        assert await call.ids("/v1/health/service/classify?passing") == []
        await call.put("/v1/agent/service/deregister/A1")
        assert await call.ids("/v1/health/service/classify") == []


# -- registering again ---------------------------------------------------------------------------------------------


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


# -- checks --------------------------------------------------------------------------------------------------------


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


# -- reads ---------------------------------------------------------------------------------------------------------


async def test_the_reads(hub: Hub, call: Caller) -> None:
    await call.register(ID="w1", Tags=["blue", "gpu"], Meta={"rack": "7"}, Weights={"Passing": 3})
    await call.register(ID="w2", Tags=["blue"], Check={"TTL": "60s"})
    await call.register(ID="z1", Name="zebra")
    assert await call.get("/v1/catalog/services") == {"classify": ["blue", "gpu"], "zebra": []}
    assert [e["ServiceID"] for e in await call.get("/v1/catalog/service/classify")] == ["w1", "w2"]
    assert [e["ServiceID"] for e in await call.get("/v1/catalog/service/classify?tag=gpu")] == ["w1"]
    assert await call.get("/v1/catalog/service/nobody") == []
    [node] = await call.get("/v1/catalog/nodes")
    assert (node["Node"], node["Address"], node["Datacenter"]) == ("127.0.0.1", "127.0.0.1", "fairway")
    assert set((await call.get("/v1/catalog/node/127.0.0.1"))["Services"]) == {"w1", "w2", "z1"}
    assert await call.get("/v1/catalog/node/nobody") is None
    assert await call.get("/v1/catalog/datacenters") == ["fairway"]
    assert await call.ids("/v1/health/service/classify?tag=BLUE&tag=gpu&near=_agent&dc=fairway&stale&cached") == ["w1"]
    assert await call.ids("/v1/health/service/classify?passing=false") == ["w1", "w2"]
    assert await call.ids("/v1/health/service/classify?passing=1") == ["w1"]
    assert [c["ServiceID"] for c in await call.get("/v1/health/checks/classify")] == ["w1", "w2"]
    assert await call.get("/v1/health/checks/nobody") == []
    assert [c["ServiceID"] for c in await call.get("/v1/health/state/critical")] == ["w2"]
    assert len(await call.get("/v1/health/state/any")) == 3
    assert await call.get("/v1/health/state/unknown") == []
    assert (await call("GET", "/v1/health/state/fine")).status == 400
    assert len(await call.get("/v1/health/node/127.0.0.1")) == 3
    services = await call.get("/v1/agent/services")
    assert set(services) == {"w1", "w2", "z1"}
    assert services["w1"] == await call.get("/v1/agent/service/w1")
    expected = {"Service": "classify", "Port": 9001, "Tags": ["blue", "gpu"], "Meta": {"rack": "7"}}
    assert services["w1"] | expected | {"Weights": {"Passing": 3, "Warning": 1}} == services["w1"]
    assert (await call("GET", "/v1/agent/service/nobody")).status == 404
    assert (await call.get("/v1/agent/self"))["Config"]["Datacenter"] == "fairway"
    assert [m["Status"] for m in await call.get("/v1/agent/members")] == [1]
    assert await call.get("/v1/status/leader") == f"127.0.0.1:{hub.port}"
    assert await call.get("/v1/status/peers") == [f"127.0.0.1:{hub.port}"]
    assert await call.get("/healthz") == {"status": "ok"}


async def test_health_as_one_status(call: Caller) -> None:
    await call.register(ID="w1")
    await call.register(ID="w2")

    async def statuses() -> list[tuple[int, str]]:
        found = []
        for path in ("name/classify", "id/w1", "id/w2"):
            answer = await call("GET", f"/v1/agent/health/service/{path}")
            text = (await call("GET", f"/v1/agent/health/service/{path}?format=text")).text
            said = answer.json[0] if "name" in path else answer.json
            assert text == said["AggregatedStatus"] or "name" in path
            found.append((answer.status, text))
        return found

    assert await statuses() == [(200, "passing")] * 3
    await call.put("/v1/agent/check/warn/service:w1")
    assert await statuses() == [(429, "warning"), (429, "warning"), (200, "passing")]
    await call.put("/v1/agent/check/fail/service:w2")
    assert await statuses() == [(503, "critical"), (429, "warning"), (503, "critical")]
    await call.put("/v1/agent/service/maintenance/w1?enable=true")
    assert await statuses() == [(503, "maintenance"), (503, "maintenance"), (503, "critical")]
    for path in ("name/nobody", "id/nobody"):
        assert (await call("GET", f"/v1/agent/health/service/{path}")).status == 404


async def test_maintenance(hub: Hub, call: Caller) -> None:
    await call.register()
    await call.put("/v1/agent/service/maintenance/classify?enable=true&reason=new+disks")
    assert await call.ids("/v1/health/service/classify?passing") == []
    [entry] = await call.get("/v1/health/service/classify")
    check = entry["Checks"][1]
    assert (check["CheckID"], check["Status"], check["Notes"]) == (
        "_service_maintenance:classify",
        "critical",
        "new disks",
    )
    await call.register()
    assert not hub.catalog.instances("classify")[0].enabled, "registering again ends no maintenance"
    await call.put("/v1/agent/service/maintenance/classify?enable=false")
    assert await call.ids("/v1/health/service/classify?passing") == ["classify"]


async def test_headers_of_a_read(hub: Hub, call: Caller) -> None:
    hub.catalog.uncertain = False
    for path in ("/v1/health/service/nobody", "/v1/catalog/services", "/v1/agent/services", "/v1/health/state/any"):
        answer = await call("GET", path)
        assert answer.index >= 1
        assert (answer.headers["X-Consul-KnownLeader"], answer.headers["X-Consul-LastContact"]) == ("true", "0")
    hub.catalog.uncertain = True
    assert (await call("GET", "/v1/catalog/services")).headers["X-Consul-KnownLeader"] == "false"


async def test_what_would_change_the_answer_is_not_ignored(call: Caller) -> None:
    for query in ("filter=Service.Port==1", "node-meta=a:b", "peer=other"):
        answer = await call("GET", f"/v1/health/service/classify?{query}")
        assert (answer.status, "is not supported" in answer.text) == (400, True)


async def test_a_long_list_arrives_whole(hub: Hub, call: Caller) -> None:
    events: list[Any] = []
    for n in range(1000):
        events += hub.catalog.register("anonymous", durable(1, id=f"w{n}"), "127.0.0.1", hub.now())
    await hub.commit(events)
    answer = await call("GET", "/v1/health/service/classify")
    assert len(answer.body) > 2 * lookups.AT_ONCE
    assert len(answer.json) == 1000
    assert (await call("HEAD", "/v1/health/service/classify")).headers["Content-Length"] == str(len(answer.body))


async def test_a_reader_that_does_not_read_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(lookups, "AT_ONCE", 1024)
    events: list[Any] = []
    for n in range(3000):
        row = durable(1, id=f"w{n}")
        events += hub.catalog.register("anonymous", row, "127.0.0.1", hub.now())
    await hub.commit(events)
    async with connected(hub.port) as deaf:
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        deaf.writer.write(30 * b"GET /v1/health/service/classify HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: hub.counters["http_requests"] > 0)
        assert hub.connections == 1
        await until(lambda: hub.connections == 0)


# -- queries that wait ---------------------------------------------------------------------------------------------


async def test_a_query_waits_for_a_change_of_its_service_only(call: Caller) -> None:
    await call.register(ID="w1")
    await call.register(ID="z1", Name="zebra")
    index = (await call("GET", "/v1/health/service/classify")).index
    waiting = asyncio.create_task(call("GET", f"/v1/health/service/classify?index={index}&wait=60s"))
    names = asyncio.create_task(call("GET", f"/v1/catalog/services?index={index}&wait=60s"))
    await call.register(ID="z2", Name="zebra")
    answer = await names
    assert answer.index > index
    assert not waiting.done(), "other services' changes wake nobody"
    await call.register(ID="w2")
    answer = await waiting
    assert answer.index > index
    assert [entry["Service"]["ID"] for entry in answer.json] == ["w1", "w2"]


async def test_a_query_that_waits_in_vain_is_answered_with_what_there_is(call: Caller) -> None:
    await call.register()
    index = (await call("GET", "/v1/health/service/classify")).index
    begin = asyncio.get_running_loop().time()
    answer = await call("GET", f"/v1/health/service/classify?index={index}&wait=200ms")
    assert 0.2 <= asyncio.get_running_loop().time() - begin < 5
    assert (answer.index, len(answer.json)) == (index, 1)


async def test_an_index_of_another_life_is_answered_at_once(call: Caller) -> None:
    await call.register()
    index = (await call("GET", "/v1/health/service/classify")).index
    for other in (1, index - (1 << 30), index + 1000, 10**19):
        assert (await call("GET", f"/v1/health/service/classify?index={other}&wait=60s")).index == index
    assert (await call("GET", "/v1/health/service/classify?index=0&wait=60s")).index == index


async def test_a_service_that_went_and_came_back_wakes_its_watchers(call: Caller) -> None:
    await call.register()
    index = (await call("GET", "/v1/health/service/classify")).index
    await call.put("/v1/agent/service/deregister/classify")
    answer = await call("GET", f"/v1/health/service/classify?index={index}&wait=60s")
    assert (answer.json, answer.index > index) == ([], True)
    waiting = asyncio.create_task(call("GET", f"/v1/health/service/classify?index={answer.index}&wait=60s"))
    await call.register()
    assert len((await waiting).json) == 1


async def test_waits_that_cannot_be_read(call: Caller) -> None:
    for query in ("index=x", "index=-1", "index=1&wait=10", "index=1&wait=soon", f"index={'9' * 30}", "index=\u0661"):
        answer = await call("GET", f"/v1/health/service/classify?{query}")
        assert answer.status == 400, query


async def test_how_many_wait_is_bounded_and_who_hangs_up_waits_no_more(
    hub: Hub, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "MAX_WAITERS", 2)
    await call.register()
    index = (await call("GET", "/v1/health/service/classify")).index
    path = f"/v1/health/service/classify?index={index}&wait=60s"
    waiting = [asyncio.create_task(call("GET", path)) for _ in range(2)]
    await until(lambda: hub.counters["watchers"] == 2)
    answer = await call("GET", path)
    assert (answer.status, "queries wait already" in answer.text) == (429, True)
    waiting[0].cancel()
    await until(lambda: hub.counters["watchers"] == 1)
    third = asyncio.create_task(call("GET", path))
    await until(lambda: hub.counters["watchers"] == 2)
    await call.register(ID="w2")
    assert (await third).status == (await waiting[1]).status == 200


# -- who may -------------------------------------------------------------------------------------------------------

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


async def test_a_workers_connection_is_an_admins_to_cut_off(guarded: Hub) -> None:
    async with calling(guarded) as call, greeted(guarded.port, Hello(ADMIN)) as worker:
        worker.say(row("A1"))
        await until(lambda: guarded.catalog.get("A1") is not None)
        for token, expected in ((OWNER, 403), (ADMIN, 200)):
            for path in ("maintenance/A1?enable=true", "deregister/A1"):
                answer = await call("PUT", f"/v1/agent/service/{path}", headers=shown(token))
                assert answer.status == expected, (token, path)


async def test_web_pages_do_not_write(call: Caller) -> None:
    await call.register()
    for origin in ("http://evil.example", "null"):
        answer = await call("PUT", "/v1/agent/service/deregister/classify", headers={"Origin": origin})
        assert (answer.status, answer.text.startswith("Permission denied")) == (403, True)
    assert await call.ids("/v1/health/service/classify") == ["classify"]


# -- manners -------------------------------------------------------------------------------------------------------


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
