"""The reads of Consul's HTTP API, and queries that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairway.registry import Hub
from fairway.registry.listeners import lookups

from .caller import Caller, calling
from .peers import connected
from .test_prober import durable, until


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with calling(hub) as caller:
        yield caller


# -- reads -------------------------------------------------------------------------------------------------------------


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


# -- queries that wait -------------------------------------------------------------------------------------------------


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
    await until(lambda: hub.waiting == 2)
    answer = await call("GET", path)
    assert (answer.status, "queries wait already" in answer.text) == (429, True)
    waiting[0].cancel()
    await until(lambda: hub.waiting == 1)
    third = asyncio.create_task(call("GET", path))
    await until(lambda: hub.waiting == 2)
    await call.register(ID="w2")
    assert (await third).status == (await waiting[1]).status == 200
