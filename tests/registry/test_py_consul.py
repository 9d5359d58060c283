"""py-consul, sync and aio, as it is: what its users call, with its own classes of checks and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.registry import Hub

from .peers import listening, running_hub
from .test_prober import serving, until

consul = pytest.importorskip("consul", reason="py-consul is not installed")
aio = pytest.importorskip("consul.aio", reason="py-consul is not installed")


async def of(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The sync client blocks; the hub is on this thread's loop."""
    return await asyncio.to_thread(call, *arguments, **more)


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[Any]:
    client = consul.Consul("127.0.0.1", hub.port)
    yield client
    client.http.close()


@pytest.fixture
async def other(hub: Hub) -> AsyncIterator[Any]:
    with pytest.warns(DeprecationWarning, match="deprecated"):  # it hands aiohttp an argument of old
        client = aio.Consul(host="127.0.0.1", port=hub.port)
    yield client
    await client.close()


async def test_a_ping(hub: Hub, client: Any) -> None:
    address = f"127.0.0.1:{hub.port}"
    assert await of(client.status.leader) == address
    assert await of(client.status.peers) == [address]
    assert (await of(client.agent.self))["Config"]["Datacenter"] == "fairway"
    assert [member["Name"] for member in await of(client.agent.members)] == ["127.0.0.1"]
    assert await of(client.catalog.datacenters) == ["fairway"]


async def test_a_service_with_a_ttl_check(client: Any) -> None:
    registered = await of(
        client.agent.service.register,
        "classify",
        service_id="w1",
        address="127.0.0.1",
        port=9001,
        tags=["blue"],
        meta={"version": "1.2.3"},
        weights={"Passing": 3, "Warning": 1},
        check=consul.Check.ttl("10s"),
    )
    assert registered is True
    index, found = await of(client.health.service, "classify", passing=True)
    assert (int(index) >= 1, found) == (True, [])
    assert await of(client.agent.check.ttl_pass, "service:w1", notes="well") is True
    index, [entry] = await of(client.health.service, "classify", passing=True, tag=["blue"])
    assert entry["Service"]["Weights"] == {"Passing": 3, "Warning": 1}
    assert entry["Service"]["Meta"] == {"version": "1.2.3"}
    assert entry["Checks"][0]["Output"] == "well"
    assert (await of(client.agent.services))["w1"]["Port"] == 9001
    assert (await of(client.agent.service_definition, "w1"))["Service"] == "classify"
    assert (await of(client.agent.checks))["service:w1"]["Status"] == "passing"
    assert (await of(client.catalog.services))[1] == {"classify": ["blue"]}
    assert (await of(client.catalog.service, "classify", tag="blue"))[1][0]["ServiceAddress"] == "127.0.0.1"
    assert (await of(client.catalog.nodes, consistency="stale"))[1][0]["Node"] == "127.0.0.1"
    assert set((await of(client.catalog.node, "127.0.0.1"))[1]["Services"]) == {"w1"}
    assert len((await of(client.health.checks, "classify"))[1]) == 1
    assert len((await of(client.health.node, "127.0.0.1"))[1]) == 1
    assert await of(client.agent.check.ttl_warn, "service:w1") is True
    assert (await of(client.health.service, "classify", passing=True))[1] == []
    assert [c["CheckID"] for c in (await of(client.health.state, "warning"))[1]] == ["service:w1"]
    assert await of(client.agent.check.ttl_fail, "service:w1", notes="ill") is True
    assert [c["Output"] for c in (await of(client.health.state, "critical"))[1]] == ["ill"]
    assert await of(client.agent.service.deregister, "w1") is True
    assert await of(client.agent.service.deregister, "w1") is False, "which is how it says 404"
    assert (await of(client.health.service, "classify"))[1] == []


async def test_checks_that_are_asked(hub: Hub, client: Any) -> None:
    from aiohttp import web

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=200 if request.headers.get("X-Who") == "me" else 500)

    async with serving(answer) as port:
        for id, check in {
            "tcp": consul.Check.tcp("127.0.0.1", port, "1s", timeout="500ms", deregister="10m"),
            "http": consul.Check.http(f"http://127.0.0.1:{port}/", "1s", timeout="1s", header={"X-Who": ["me"]}),
        }.items():
            assert await of(client.agent.service.register, "classify", service_id=id, port=port, check=check) is True
        await until(lambda: all(i.serving for i in hub.catalog.instances("classify")))
        found = (await of(client.health.service, "classify", passing=True))[1]
        assert [entry["Service"]["ID"] for entry in found] == ["tcp", "http"]


async def test_no_check_and_one_later(hub: Hub, client: Any) -> None:
    async with listening() as port:
        assert await of(client.agent.service.register, "classify", port=port) is True
        await until(lambda: hub.catalog.instances("classify")[0].serving)
        check = consul.Check.ttl("10s")
        assert await of(client.agent.check.register, "alive", check=check, service_id="classify", notes="n") is True
        assert (await of(client.health.service, "classify", passing=True))[1] == []
        assert await of(client.agent.check.ttl_pass, "alive") is True
        assert len((await of(client.health.service, "classify", passing=True))[1]) == 1
        assert await of(client.agent.check.deregister, "alive") is True


async def test_maintenance(client: Any) -> None:
    check = consul.Check.ttl("10s") | {"status": "passing"}
    await of(client.agent.service.register, "classify", port=9001, check=check)
    assert await of(client.agent.service.maintenance, "classify", True, reason="new disks") is True
    assert (await of(client.health.service, "classify", passing=True))[1] == []
    assert await of(client.agent.service.maintenance, "classify", False) is True
    assert len((await of(client.health.service, "classify", passing=True))[1]) == 1


async def test_its_errors(client: Any) -> None:
    with pytest.raises(consul.ConsulException, match="args is not supported"):
        await of(client.agent.service.register, "classify", port=9001, check=consul.Check.script(["true"], "1s"))
    with pytest.raises(consul.ConsulException, match="Port is missing"):
        await of(client.agent.service.register, "classify")
    with pytest.raises(consul.ConsulException, match="filter is not supported"):
        await of(client.health.service, "classify", filter_expr="Service.Port == 1")
    with pytest.raises(consul.ConsulException, match="ServiceID is missing"):
        await of(client.agent.check.register, "alive", check=consul.Check.ttl("10s"))
    with pytest.raises(consul.ConsulException, match="Missing index header"):
        await of(client.kv.get, "key")  # 404, which says what there is


async def test_a_token(tmp_path: Path) -> None:
    token, stranger = "owner-0123456789", "other-0123456789"
    file = tmp_path / "tokens"
    file.write_text(f"{token} read,register:classify\n")
    file.chmod(0o600)
    async with running_hub(token_file=file) as hub:
        client = consul.Consul("127.0.0.1", hub.port, token=token)
        assert await of(client.agent.service.register, "classify", port=9001) is True
        with pytest.raises(consul.ACLPermissionDenied, match="Permission denied"):
            await of(client.agent.service.register, "zebra", port=9001)
        with pytest.raises(consul.ACLPermissionDenied, match="Permission denied"):
            await of(client.health.service, "classify", token=stranger)
        assert len((await of(client.health.service, "classify"))[1]) == 1
        client.http.close()


async def test_aio_waits_for_changes(other: Any) -> None:
    check = consul.Check.ttl("10s") | {"status": "passing"}
    assert await other.agent.service.register("classify", service_id="w1", port=9001, check=check)
    index, found = await other.health.service("classify", passing=True)
    assert [entry["Service"]["ID"] for entry in found] == ["w1"]
    waiting = asyncio.ensure_future(other.health.service("classify", passing=True, index=index, wait="60s"))
    assert await other.agent.service.register("classify", service_id="w2", port=9002, check=check)
    newer, found = await waiting
    assert int(newer) > int(index)
    assert [entry["Service"]["ID"] for entry in found] == ["w1", "w2"]
    assert await other.agent.check.ttl_fail("service:w1")
    last, found = await other.health.service("classify", passing=True, index=newer, wait="60s")
    assert [entry["Service"]["ID"] for entry in found] == ["w2"]
    same, found = await other.health.service("classify", passing=True, index=last, wait="100ms")
    assert (same, len(found)) == (last, 1)
    for id in ("w1", "w2"):
        assert await other.agent.service.deregister(id)
    _, found = await other.health.service("classify", index=last, wait="60s")
    assert found == []
