"""npm's seaport as a hub and as a peer: our links join its hubs, our hub exchanges rows with them, each event once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.registry import Address, Hub, Instance, Link, Query
from fairway.registry.config import RegistrySettings
from fairway.registry.ports import free_port

from ..registry.peers import listening
from .node import PATIENCE, Node, node
from .processes import FAIRWAY, Running


@asynccontextmanager
async def running(**settings: object) -> AsyncIterator[Hub]:
    hub = Hub(RegistrySettings(**({"port": 0, "store": "embedded:"} | settings)))  # type: ignore[arg-type]
    await hub.start()
    try:
        yield hub
    finally:
        await hub.close()


@asynccontextmanager
async def linked(port: int) -> AsyncIterator[Link]:
    link = Link(Address("127.0.0.1", port))
    try:
        await link.start(PATIENCE)
        yield link
    finally:
        await link.close()


async def their_hub(js: Node) -> int:
    """npm's own hub, on a free port."""
    port = free_port()
    await js.run(f"hub = serve(), hub.listen({port}, '127.0.0.1', () => tell('listening')), 0")
    await js.until("listening")
    return port


async def ports(link: Link, *expected: int) -> None:
    await link.wait_for(
        lambda: sorted(i.address.port for i in link.instances() if i.service != "seaport") == sorted(expected), PATIENCE
    )


async def test_our_link_at_their_hub(node_folder: Path) -> None:
    async with node(node_folder) as js, node(node_folder) as client:
        port = await their_hub(js)
        await client.run(f"s = open({port}), s.register('beep@1.2.3', 9001), 0")
        async with linked(port) as ours:
            [theirs] = await ours.get(Query.parse("beep@^1.2"), PATIENCE)
            assert (theirs.version, theirs.address) == ("1.2.3", Address("127.0.0.1", 9001))
            await ours.announce(Instance("A1", "classify", Address("127.0.0.1", 9002), meta={"pid": 7}))
            heard = await client.until("register", port=9002)
            assert (heard["role"], heard["id"], heard["pid"]) == ("classify", "A1", 7)
            await ours.free(9002)
            await client.until("free", port=9002)
            async with linked(port) as other:
                late = other.register("late")
                await client.until("register", port=late.address.port)
            await client.until("free", port=late.address.port)
            await client.kill()
            await ports(ours)


@pytest.mark.parametrize("who_dials", ["ours", "theirs", "both"])
async def test_hubs_exchange_rows_and_each_event_is_heard_once(node_folder: Path, who_dials: str) -> None:
    async with listening() as one, listening() as two, node(node_folder) as js, node(node_folder) as client:
        theirs = await their_hub(js)
        peer = () if who_dials == "theirs" else (f"127.0.0.1:{theirs}",)
        async with running(peer=peer) as hub, linked(hub.port) as ours:
            if who_dials != "ours":
                await js.run(f"hub.peer({hub.port}, '127.0.0.1'), 0")
            await client.run(f"s = open({theirs}), s.register('beep@1.2.3', {one}), 0")
            await ports(ours, one)
            await ours.announce(Instance("A1", "classify", Address("127.0.0.1", two)))
            await client.until("register", port=two)
            await client.run(f"s.free({one}), 0")
            await ports(ours)
            await ours.withdraw("A1")
            await client.until("free", port=two)
            # Whatever else was on its way has passed once this one did.
            last = ours.register("last", one)
            await client.until("register", port=last.address.port)
            told = [row[1] for row in client.heard if row[0] in ("register", "free") and row[1].get("role") != "last"]
            told = [meta["role"] for meta in told if meta.get("port") in (one, two)]
            assert told == ["beep"], "its own free(), which it hears itself; whatever else is there was heard twice"
            roles = [i.service for i in hub.catalog.instances()]
            assert roles.count("beep") == 0


async def test_a_zombie_that_their_hub_relays_is_never_served(node_folder: Path) -> None:
    dead = free_port()
    async with listening() as alive, node(node_folder) as js, node(node_folder) as client:
        theirs = await their_hub(js)
        await client.run(f"s = open({theirs}), s.register('beep', {dead}), s.register('beep', {alive}), 0")
        await js.until("register", port=alive)
        async with running(peer=(f"127.0.0.1:{theirs}",)) as hub, linked(hub.port) as ours:
            await ports(ours, alive)
            assert [i.address.port for i in hub.catalog.instances("beep")] == [alive]


async def test_clients_move_to_the_hub_that_is_left(node_folder: Path) -> None:
    """Their first hub dies; its clients come to us, whom it named as a hub, and what they registered is here."""
    async with listening() as one, listening() as two, node(node_folder) as js, node(node_folder) as client:
        theirs = await their_hub(js)
        async with running(peer=(f"127.0.0.1:{theirs}",)) as hub, linked(theirs) as ours, linked(hub.port) as reader:
            await client.run(f"s = open({theirs}), s.register('beep', {one}), 0")
            await client.until("register", role="seaport")
            await ours.announce(Instance("A1", "classify", Address("127.0.0.1", two)))
            await ports(reader, one, two)
            await js.kill()
            await client.until("disconnect")
            await ports(reader, one, two)
            assert ours._at == Address("127.0.0.1", hub.port)
            late = free_port()
            async with listening(late):
                await client.run(f"s.register('boop', {late}), 0")
                await ports(reader, one, two, late)


async def test_gone_within_a_fifth_of_a_second_when_a_node_worker_is_killed(node_folder: Path) -> None:
    async with running() as hub, linked(hub.port) as reader, node(node_folder) as client:
        await client.run(f"s = open({hub.port}, {{heartbeat: 50, timeout: 60}}), s.register('beep', 9001), 0")
        await ports(reader, 9001)
        assert client.process.pid
        os.kill(client.process.pid, signal.SIGKILL)
        async with asyncio.timeout(0.2):
            await ports(reader)


async def test_metadata_and_a_token_in_it(node_folder: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-beeps-only  register:beep\na-token-to-read-with-it  read\n")
    async with running(token_file=tokens) as hub, node(node_folder) as client:
        await client.run(
            f"s = open({hub.port}), s.register('beep', {{port: 9001, token: 'a-token-for-beeps-only', size: 3}}), 0"
        )
        await client.run("s.register('boop', {port: 9002, token: 'a-token-for-beeps-only'}), 0")
        await client.run("s.register('beep', {port: 9003}), 0")
        link = Link(Address("127.0.0.1", hub.port))
        async with asyncio.timeout(PATIENCE):
            while not hub.counters["refused"]:
                await hub.changed(None, hub.catalog.index_of(), 0.1)
        found = {i.address.port: i.meta for i in hub.catalog.instances()}
        assert set(found) == {9001, 9003}, "the token counts for its connection, and for its prefix only"
        assert found[9001]["size"] == 3
        assert "token" not in json.dumps(dict(found[9001]))
        await link.close()


def test_the_commands_of_seaport(node_folder: Path, tmp_path: Path) -> None:
    """`listen show query watch register -- COMMAND`, as documented there, and working."""
    script = (
        "import http.server as h, sys; "
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()"
    )
    port = free_port()
    with Running([*FAIRWAY, "registry", "listen", str(port), "--store=embedded:"]) as hub:
        hub.line(r"registry listening on 127\.0\.0\.1")
        where = f"127.0.0.1:{port}"
        with (
            Running([*FAIRWAY, "registry", "watch", where]) as watch,
            Running(
                [*FAIRWAY, "registry", "register", where, "beep@1.2.3", "--meta.size=3", "--meta.deep.er", "text", "--",
                 sys.executable, "-c", script]
            ) as worker,
        ):  # fmt: skip
            found = watch.line(r"^passing +beep@1\.2\.3 +127\.0\.0\.1:(\d+) +\[\w+\]")
            with Running([*FAIRWAY, "registry", "query", where, "beep@1.2.x"]) as query:
                assert query.ended() == 0
                [row] = json.loads(query.said)
                assert (row["role"], row["port"], row["size"], row["deep"]) == (
                    "beep",
                    int(found[1]),
                    3,
                    {"er": "text"},
                )
            with Running([*FAIRWAY, "registry", "query", where, "beep", "deep", "er"]) as query:
                assert query.ended() == 0
                assert json.loads(query.said) == ["text"]
            with Running([*FAIRWAY, "registry", "show", where]) as show:
                assert show.ended() == 0
                assert "beep@1.2.3" in show.said
            worker.send(signal.SIGTERM)
            assert worker.ended() == 0
            watch.line(r"^gone +beep@1\.2\.3")
