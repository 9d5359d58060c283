"""A real haproxy that finds its servers by our DNS, and follows when they come and go."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fairway.registry.catalog import Catalog
from fairway.registry.instance import Address, Instance
from fairway.registry.listeners.dns import DnsListener
from fairway.registry.ports import free_port

PATIENCE = 30.0

CONFIGURATION = """
global
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    timeout queue 1s
resolvers fairway
    nameserver hub {transport}127.0.0.1:{dns}
    accepted_payload_size 4096
    resolve_retries 2
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms
    hold nx 0
    hold obsolete 0
    hold timeout 10s
    hold refused 10s
    hold other 10s
frontend door
    bind 127.0.0.1:{door}
    default_backend workers
backend workers
    balance roundrobin
    http-reuse never
    server-template worker 4 {name} resolvers fairway resolve-prefer ipv4 init-addr none
"""


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    """A worker that says its name."""

    async def say(_: web.Request) -> web.Response:
        return web.Response(text=name)

    app = web.Application()
    app.router.add_get("/", say)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def haproxy(folder: Path, dns: int, name: str, transport: str) -> AsyncIterator[int]:
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    door = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(dns=dns, door=door, name=name, transport=transport))
    process = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(file))  # what it says, pytest shows
    try:
        yield door
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


async def until_answered_by(http: aiohttp.ClientSession, door: int, wanted: set[str]) -> None:
    """Polls, since haproxy tells nobody when it has resolved: sixteen answers in a row by all of `wanted`."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while set(seen[-16:]) != wanted or len(seen) < 16:
                try:
                    async with http.get(f"http://127.0.0.1:{door}/") as response:
                        seen.append(await response.text() if response.status == 200 else str(response.status))
                except aiohttp.ClientConnectionError:
                    seen.append("no connection")
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"expected {wanted}, last came {seen[-16:]}")


@pytest.mark.parametrize("transport", ["", "tcp@"], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", ["_classify._tcp.service.fairway", "classify.service.fairway"], ids=["srv", "a"])
async def test_haproxy_follows(tmp_path: Path, transport: str, name: str) -> None:
    """By SRV records it learns ports as well; by addresses alone, both workers have to be on one port."""
    catalog = Catalog(epoch=1)
    listener = DnsListener(catalog, allowed=lambda: True)
    await listener.start("127.0.0.1", 0)

    def register(id: str, port: int) -> None:
        catalog.register("p", Instance(id, "classify", Address("127.0.0.1", port)), "127.0.0.1", 0.0)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(listener.close)
        one, two, three = [await stack.enter_async_context(backend(word)) for word in ("one", "two", "three")]
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)))
        register("1", one)
        if not name.startswith("_"):
            door = await stack.enter_async_context(haproxy(tmp_path, listener.port, f"{name}:{one}", transport))
            await until_answered_by(http, door, {"one"})
            catalog.mark("1", enabled=False)
            await until_answered_by(http, door, {"503"})
            catalog.mark("1", enabled=True)
            await until_answered_by(http, door, {"one"})
            return
        register("2", two)
        door = await stack.enter_async_context(haproxy(tmp_path, listener.port, name, transport))
        await until_answered_by(http, door, {"one", "two"})
        catalog.deregister("p", "1")
        await until_answered_by(http, door, {"two"})
        register("3", three)
        await until_answered_by(http, door, {"two", "three"})
        catalog.mark("2", enabled=False)
        await until_answered_by(http, door, {"three"})
        asked = listener.counters["NOERROR"]
        assert asked > 3
        catalog.deregister("p", "2")
        catalog.deregister("p", "3")
        catalog.uncertain = True  # an answer we do not have is not one that says: nobody
        failures = listener.counters["SERVFAIL"]
        async with asyncio.timeout(PATIENCE):
            while listener.counters["SERVFAIL"] < failures + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await until_answered_by(http, door, {"three"})
        catalog.uncertain = False
        await until_answered_by(http, door, {"503"})
