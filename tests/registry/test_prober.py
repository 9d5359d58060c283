"""Checks asked over real sockets, by a real hub."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fairway.registry import Hub
from fairway.registry.changes import Gone, Put
from fairway.registry.check import Check
from fairway.registry.health import Result
from fairway.registry.instance import Address, Instance
from fairway.registry.ports import free_port
from fairway.registry.prober import AT_ONCE, MOST_OUTPUT

from ..conformance.etcd import etcd_missing, running_cluster
from .certificates import certificates
from .peers import PATIENCE, listening, running_hub

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """-> the port of a server on loopback that answers everything so."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        assert site._server is not None
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def durable(port: int, *checks: Check, id: str = "w1") -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", port), checks=checks)


async def register(hub: Hub, instance: Instance, principal: str = "anonymous") -> None:
    events = hub.catalog.register(principal, instance, "127.0.0.1", hub.now())
    assert all(isinstance(event, Put) for event in events), events
    await hub.commit(events)


async def until(condition: Callable[[], bool]) -> None:
    """Until it holds; that somebody answered a check is no event one could wait for."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def result(hub: Hub, check: str = "c") -> Result:
    [holder] = [each for each in [hub.prober.health.find(check)] if each]
    return hub.prober.health.results(holder[0])[check]


def tcp(port: int, **more: Any) -> Check:
    return Check("c", "tcp", f"127.0.0.1:{port}", **{"interval_seconds": 0.1} | more)


def http(port: int, path: str = "/", **more: Any) -> Check:
    return Check("c", "http", f"http://127.0.0.1:{port}{path}", **{"interval_seconds": 0.1} | more)


# -- tcp -----------------------------------------------------------------------------------------------------------


async def test_who_listens_is_passing_and_who_stops_is_not(hub: Hub) -> None:
    async with listening() as port:
        await register(hub, durable(port, tcp(port)))
        await until(lambda: hub.catalog.instances("classify")[0].serving)
        assert result(hub) == Result("passing", f"TCP connect 127.0.0.1:{port}: Success")
    await until(lambda: not hub.catalog.instances("classify")[0].serving)
    assert "refused" in result(hub).output
    async with listening(port):
        await until(lambda: hub.catalog.instances("classify")[0].serving)


async def test_readers_are_told_when_a_check_turns(hub: Hub) -> None:
    told: list[object] = []
    hub.subscribe(told.extend)
    async with listening() as port:
        await register(hub, durable(port, tcp(port)))
        await until(lambda: result(hub).status == "passing")
        await until(lambda: len(told) == 2)
    states = [event.instance.state for event in told if isinstance(event, Put)]
    assert states == ["critical", "passing"]


async def test_a_changed_check_is_asked_and_a_removed_one_is_not(hub: Hub) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(answer) as port:
        await register(hub, durable(port, http(port, "/one")))
        await until(lambda: "/one" in asked)
        await register(hub, durable(port, http(port, "/two")))
        await until(lambda: "/two" in asked)
        await hub.commit(hub.catalog.deregister("anonymous", "w1"))
        asked.clear()
        await asyncio.sleep(0.3)
        assert asked == []
        assert len(hub.prober.health) == 0


async def test_critical_for_too_long_is_deregistered(hub: Hub) -> None:
    port = free_port()
    told: list[object] = []
    hub.subscribe(told.extend)
    await register(hub, durable(port, tcp(port, deregister_after_seconds=0.3)))
    await until(lambda: any(isinstance(event, Gone) for event in told))
    assert hub.catalog.get("w1") is None
    assert len(hub.prober.health) == 0


# -- http ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((200, "passing"), (204, "passing"), (299, "passing"), (429, "warning")),
        *((302, "critical"), (404, "critical"), (500, "critical"), (503, "critical")),
    ],
)
async def test_what_a_status_means(hub: Hub, status: int, meaning: str) -> None:
    asked: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request)
        headers = {"Location": f"http://127.0.0.1:{elsewhere}/"} if status == 302 else {}
        return web.Response(status=status, headers=headers, text="how it is" if status != 204 else None)

    async def never(_: web.BaseRequest) -> web.Response:
        pytest.fail("redirects are not followed")

    async with serving(never) as elsewhere, serving(answer) as port:
        await register(hub, durable(port, http(port, "/readyz?full=1")))
        await until(lambda: bool(result(hub).output))
        assert result(hub).status == meaning
        assert hub.catalog.instances("classify")[0].serving is (meaning != "critical"), "a warning is served"
        text = f"HTTP GET http://127.0.0.1:{port}/readyz?full=1: {status} "
        assert result(hub).output.startswith(text)
        assert result(hub).output.endswith(" Output: how it is" if status != 204 else " Output: ")
        assert (asked[0].path_qs, asked[0].headers["Host"]) == ("/readyz?full=1", f"127.0.0.1:{port}")


async def test_method_header_and_body(hub: Hub) -> None:
    seen: list[object] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.headers.getall("X-Who"), request.host, await request.text()))
        return web.Response()

    async with serving(answer) as port:
        header = {"X-Who": ("a", "b"), "Host": ("models.example",)}
        await register(hub, durable(port, http(port, method="PUT", header=header, body='{"a": 1}')))
        await until(lambda: result(hub).status == "passing")
    assert seen[0] == ("PUT", ["a", "b"], "models.example", '{"a": 1}')


async def test_of_a_long_answer_only_the_beginning_is_read(hub: Hub) -> None:
    written = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            written += 65536

    async with serving(answer) as port:
        await register(hub, durable(port, http(port, interval_seconds=60.0)))
        await until(lambda: result(hub).status == "passing")
        assert len(result(hub).output) < MOST_OUTPUT + 200
        assert written < 32 * 1024 * 1024, "the rest was left in the sockets"


async def test_a_compressed_answer_is_not_unpacked(hub: Hub) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        response = web.Response(body=b"0" * 10_000_000)
        response.enable_compression()
        return response

    async with serving(answer) as port:
        await register(hub, durable(port, http(port, header={"Accept-Encoding": ("gzip",)})))
        await until(lambda: result(hub).status == "passing")
        assert "0000" not in result(hub).output


@pytest.mark.parametrize("kind", ["silent", "garbage", "closed"])
async def test_what_is_no_answer(hub: Hub, kind: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if kind == "silent":
            await reader.read()
        if kind == "garbage":
            writer.write(b"\x00\xffwhat?\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await register(hub, durable(port, http(port, timeout_seconds=0.2)))
        await until(lambda: bool(result(hub).output))
        assert result(hub).status == "critical"
        assert result(hub).output.startswith(f"HTTP GET http://127.0.0.1:{port}/: ")
        assert ("no answer within 0.2 s" in result(hub).output) is (kind == "silent")
        await hub.commit(hub.catalog.deregister("anonymous", "w1"))


@pytest.mark.parametrize("skip", [True, False])
async def test_tls(hub: Hub, skip: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates().server_cert, certificates().server_key)

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="over TLS")

    async with serving(answer, context) as port:
        check = Check("c", "http", f"https://127.0.0.1:{port}/", interval_seconds=0.1, tls_skip_verify=skip)
        await register(hub, durable(port, check))
        await until(lambda: bool(result(hub).output))
        assert result(hub).status == ("passing" if skip else "critical")
        assert ("over TLS" if skip else "certificate verify failed") in result(hub).output
        await hub.commit(hub.catalog.deregister("anonymous", "w1"))


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: web.BaseRequest) -> web.Response:
        pytest.fail("no proxy is asked")

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response()

    async with serving(never) as proxy, serving(answer) as port:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        async with running_hub() as hub:
            await register(hub, durable(port, http(port)))
            await until(lambda: result(hub).status == "passing")


# -- where to ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://10.0.0.7/", "would ask elsewhere: 10.0.0.7 is not the peer's own address"),
        ("http://models.example/", "'models.example' is a name: expected an IP address"),
        ("http://0x7f.1/", "is a name"),
        ("http://2130706433/", "is a name"),
        ("http://127.1/", "is a name"),
        ("http://0.0.0.0/", "would ask elsewhere"),
        ("http://[::ffff:10.0.0.7]/", "would ask elsewhere"),
        ("10.0.0.7:80", "would ask elsewhere"),
        ("http://127.0.0.1:1/", None),
        ("http://localhost:1/", None),
        ("http://[::1]/", None),
        ("192.168.7.7:80", None),
    ],
)
async def test_a_check_goes_where_its_instance_is_or_where_it_may(target: str, reason: str | None) -> None:
    async with running_hub(allow=("192.168.0.0/16",)) as hub:
        check = Check("c", "http" if "/" in target else "tcp", target)
        found = hub.prober.objection(durable(1), check)
        assert found is None if reason is None else found is not None and reason in found


async def test_what_an_engine_brought_is_asked_no_further_either(hub: Hub) -> None:
    check = Check("c", "tcp", "10.255.255.1:9", interval_seconds=0.1, timeout_seconds=60.0)
    await register(hub, durable(1, check))  # the catalog judges addresses, not checks
    await until(lambda: bool(result(hub).output))
    assert "would ask elsewhere" in result(hub).output


# -- many, and again -----------------------------------------------------------------------------------------------


async def test_questions_under_way_are_bounded_and_all_get_their_turn(hub: Hub) -> None:
    open_now = most = 0

    async def answer(_: web.BaseRequest) -> web.Response:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        open_now -= 1
        return web.Response()

    number = 3 * AT_ONCE
    async with serving(answer) as port:
        events: list[Any] = []
        for n in range(number):
            row = durable(port, replace(http(port, interval_seconds=1.0), id=f"c{n}"), id=f"w{n}")
            events += hub.catalog.register("anonymous", row, "127.0.0.1", hub.now())
        await hub.commit(events)
        await until(lambda: sum(i.serving for i in hub.catalog.instances("classify")) == number)
        assert 1 < most <= AT_ONCE
        await hub.commit([e for n in range(number) for e in hub.catalog.deregister("anonymous", f"w{n}")])


async def test_a_restart_serves_what_was_well_until_it_is_asked(tmp_path: Path) -> None:
    """And asks it soon: what died meanwhile is found out."""
    store = f"embedded:{tmp_path}"
    async with listening() as port, listening() as doomed:
        async with running_hub(store=store) as hub:
            await register(hub, durable(port, tcp(port)))
            await register(hub, durable(doomed, replace(tcp(doomed), id="d"), id="w2"))
            await register(hub, durable(port, Check("t", "ttl", ttl_seconds=0.5, status="passing"), id="w3"))
            await until(lambda: all(i.serving for i in hub.catalog.instances("classify")))
        first: dict[str, bool] = {}
        async with running_hub(store=store) as hub:
            first = {i.id: i.serving for i in hub.catalog.instances("classify")}
            assert all(i.suspect for i in hub.catalog.instances("classify"))
            await until(lambda: not any(i.suspect for i in hub.catalog.instances("classify")))
            known = {i.id: i.state for i in hub.catalog.instances("classify")}
        assert first == {"w1": True, "w2": True, "w3": True}
        assert known == {"w1": "passing", "w2": "passing", "w3": "critical"}, "w3's owner said nothing"


async def test_an_owners_word(hub: Hub) -> None:
    await register(hub, durable(1, Check("c", "ttl", ttl_seconds=0.3)))
    await hub.prober.said("c", "passing", "hello")
    assert hub.catalog.instances("classify")[0].serving, "at once: the answer means that it is so"
    assert result(hub) == Result("passing", "hello")
    await until(lambda: not hub.catalog.instances("classify")[0].serving)
    assert result(hub) == Result("critical", "TTL expired")


async def test_nothing_is_left_behind() -> None:
    async def slow(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(slow) as port:
        async with running_hub() as hub:
            await register(hub, durable(port, http(port)))
            await asyncio.sleep(0.05)
            before = len(hub._followers)
            await hub.prober.close()
            assert len(hub._followers) == before - 1
            await hub.prober.close()
        assert [task for task in asyncio.all_tasks() if "_ask" in repr(task)] == []


# -- several registries over one engine ----------------------------------------------------------------------------


async def test_an_owner_that_talks_to_one_registry_is_known_at_the_other() -> None:
    if why := etcd_missing():
        pytest.skip(why)
    async with (
        running_cluster() as cluster,
        running_hub(store=f"etcd://{cluster.hosts}/t") as here,
        running_hub(store=f"etcd://{cluster.hosts}/t") as there,
    ):
        await until(lambda: here.store.connected and there.store.connected)
        async with listening() as port:
            await register(here, durable(port, Check("c", "ttl", ttl_seconds=2.0)))
            await here.prober.said("c", "passing", "hello")
            await until(lambda: bool(there.catalog.instances("classify")))
            await until(lambda: "talks to another registry" in result(there).output)
            await until(lambda: there.catalog.instances("classify")[0].serving)
            await here.prober.said("c", "critical", "no memory left")
            await until(lambda: not there.catalog.instances("classify")[0].serving)
            await here.prober.said("c", "passing", "well again")
            await until(lambda: there.catalog.instances("classify")[0].serving)
            await until(lambda: not there.catalog.instances("classify")[0].serving)  # it has fallen silent
            assert result(here) == Result("critical", "TTL expired")
            await there.prober.said("c", "passing", "over here now")
            await until(lambda: here.catalog.instances("classify")[0].serving)
        # Nobody listens any more, and it has not said so: each finds out for itself.
        await until(lambda: not here.catalog.instances("classify")[0].serving)
        await until(lambda: not there.catalog.instances("classify")[0].serving)
