"""The other two manners, handing out addresses and redirecting; and the pages and errors that are the proxy's own."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fairway.client.resolver import Resolver
from fairway.proxy.config import Mode
from fairway.registry.config import RegistrySettings
from fairway.registry.instance import Address, Instance
from fairway.registry.link import Link
from fairway.registry.server import Hub

from .stage import DAISY, HOST, Worker, exchange, pieces, proxy_for, says, session_to, until


@pytest.mark.parametrize(
    ("mode", "target", "at_worker"),
    [
        ("auto", "/-/direct/", "/"),
        ("auto", "/-/direct/v1/x?top=3&a=%26", "/v1/x?top=3&a=%26"),
        ("redirect", "/v1/x?top=3", "/v1/x?top=3"),
    ],
)
async def test_redirects_do_not_ask_for_the_body(mode: Mode, target: str, at_worker: str) -> None:
    async with Worker() as worker, proxy_for(worker.address, mode=mode) as proxy:
        head = f"POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(head.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        assert answer.startswith("HTTP/1.1 307 ")  # and no `100 Continue` before it
        assert f"\r\nLocation: http://{worker.address}{at_worker}\r\n" in answer
        assert "\r\nCache-Control: no-store\r\n" in answer
        # The body may come or not: only a connection that ends cannot mistake one for the next request.
        assert "\r\nConnection: close\r\n" in answer
        assert not worker.requests
        async with session_to(proxy) as session, session.post(target, data=b"image") as said:
            assert await said.read() == DAISY
        assert [(seen.target, seen.body) for seen in worker.requests] == [(at_worker, b"image")]


async def test_expect_is_answered_when_a_worker_is_chosen() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"image")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert worker.requests[0].body == b"image"
        assert "Expect" not in worker.requests[0].headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD"])
@pytest.mark.parametrize("target", ["/", "/any/thing?at=all", "/healthz"])
async def test_address_mode_answers_everything(method: str, target: str) -> None:
    async with Worker() as worker:
        async with (
            proxy_for(worker.address, mode="address", address_format="port") as proxy,
            session_to(proxy) as session,
            session.request(method, target) as said,
        ):
            assert said.status == 200
            assert await said.text() == ("" if method == "HEAD" else f"{worker.address.port}\n")
        assert not worker.requests


async def test_addresses_are_handed_out_in_turn() -> None:
    async with proxy_for(*(Address(HOST, port) for port in (9001, 9002, 9003))) as proxy, session_to(proxy) as session:
        handed = [await (await session.get("/?format=port")).text() for _ in range(6)]
        assert Counter(handed) == {"9001\n": 2, "9002\n": 2, "9003\n": 2}
        async with session.get("/", headers={"Accept": "application/json"}) as said:
            assert len({row["port"] for row in (await said.json())["instances"]}) == 3
        async with session.get("/?format=xml") as said:
            assert said.status == 400
            assert "port, url, json" in (await said.json())["error"]


async def test_pages_of_its_own() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy, session_to(proxy) as session:
        for path, status in {"/healthz": "ok", "/-/healthz": "ok", "/readyz": "ready", "/-/readyz": "ready"}.items():
            async with session.get(path) as said:
                assert (said.status, (await said.json())["status"]) == (200, status)
        async with session.get("/-/workers") as said:
            found = await said.json()
        assert (found["mode"], found["registry_connected"]) == ("auto", True)
        (row,) = found["services"]["classify"]
        assert (row["port"], row["available"], row["in_flight"]) == (worker.address.port, True, 0)
        async with session.post("/-/workers", data=b"x") as said:
            assert (said.status, said.headers["Allow"]) == (405, "GET, HEAD")
        async with session.get("/-/nothing") as said:
            assert (said.status, "/-/workers" in (await said.json())["error"]) == (404, True)
        assert not worker.requests


async def services(*names: str) -> tuple[Hub, Link, Resolver]:
    """A hub, the link of somebody who registers there, and the resolver of a proxy that watches it."""
    hub = Hub(RegistrySettings(port=0))
    await hub.start()
    link, resolver = Link(Address(HOST, hub.port)), Resolver(Address(HOST, hub.port))
    await link.start(5)
    return hub, link, resolver


async def test_several_services_behind_one_door() -> None:
    hub, link, resolver = await services()
    async with Worker() as flowers, Worker(says(200, b"a cat")) as pets, proxy_for(resolver=resolver) as proxy:
        await link.announce(Instance("f", "classify", flowers.address))
        await link.announce(Instance("p", "pets", pets.address))
        await until(lambda: len(resolver.services()) == 2)
        async with session_to(proxy) as session:
            for path, headers, expected in (
                ("/", {}, DAISY),
                ("/", {"X-Fairway-Service": "pets"}, b"a cat"),
                ("/-/services/pets/", {}, b"a cat"),
                ("/-/services/classify/", {"X-Fairway-Service": "pets"}, DAISY),
            ):
                async with session.post(path, data=b"x", headers=headers) as said:
                    assert await said.read() == expected
            async with session.get("/-/services/pets/") as said:
                assert await said.text() == f"{pets.address}\n"
            for path, headers in (("/-/services/cars/", {}), ("/", {"X-Fairway-Service": "cars"})):
                async with session.post(path, data=b"x", headers=headers) as said:
                    assert (said.status, "classify, pets" in (await said.json())["error"]) == (404, True)
        assert [seen.target for seen in pets.requests] == ["/", "/"]
        assert "X-Fairway-Service" not in pets.requests[0].headers
    await link.close()
    await hub.close()


async def test_a_request_that_waits_is_served_as_soon_as_a_worker_appears() -> None:
    hub, link, resolver = await services()
    async with Worker() as worker, proxy_for(resolver=resolver, wait_seconds=10) as proxy, session_to(proxy) as session:
        waiting = asyncio.create_task(session.post("/", data=b"image"))
        await until(lambda: proxy.in_flight == 1)
        async with session.get("/readyz") as said:
            assert (said.status, (await said.json())["status"]) == (503, "no worker")
        await link.announce(Instance("w", "classify", worker.address))
        async with asyncio.timeout(2), await waiting as answer:
            assert await answer.read() == DAISY
    await link.close()
    await hub.close()


@pytest.mark.parametrize(("method", "target"), [("POST", "/"), ("GET", "/"), ("POST", "/-/direct/")])
async def test_no_worker_is_503_after_a_short_wait(method: str, target: str) -> None:
    loop = asyncio.get_running_loop()
    async with proxy_for(wait_seconds=0.3) as proxy, session_to(proxy) as session:
        began = loop.time()
        async with session.request(method, target, data=b"x" if method == "POST" else None) as said:
            assert (said.status, said.headers["Retry-After"]) == (503, "1")
            assert "no worker serves 'classify'" in (await said.json())["error"]
        assert 0.25 < loop.time() - began < 2


@pytest.mark.parametrize("kind", ["length", "chunks", "chunks beyond the replay window"])
async def test_too_large_is_413(kind: str) -> None:
    most = 2_000_000 if "window" in kind else 300_000
    async with Worker() as worker, proxy_for(worker.address, max_body=most) as proxy:
        if kind == "length":
            # Refused from its head: not one byte of the body is asked for.
            sent = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300001\r\nExpect: 100-continue\r\n\r\n"
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(sent)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
            writer.close()
            assert not worker.requests
            return
        async with session_to(proxy) as session, session.post("/", data=pieces()) as said:
            assert (said.status, str(most) in (await said.json())["error"]) == (413, True)
        assert not [seen for seen in worker.requests if seen.complete]
        (upstream,) = proxy.resolver.services()["classify"].upstreams
        assert not any(upstream.failures.values())  # the client erred, not the worker


async def test_an_unknown_expectation_is_417() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy:
        sent = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: magic\r\n\r\nimage"
        assert (await exchange(proxy, sent)).startswith(b"HTTP/1.1 417 ")
        assert not worker.requests
