"""The real seaport of npm, version 2.0.9, against our hub: what Node services of old say and hear is still true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fairway.registry import Address, Hub, Instance, Link, Query
from fairway.registry.config import RegistrySettings
from fairway.registry.instance import satisfies
from fairway.registry.ports import free_port

from .conftest import Cluster
from .node import PATIENCE, node


@asynccontextmanager
async def hub_and_link(port: int = 0) -> AsyncIterator[tuple[Hub, Link]]:
    """Without dialling back: these services are names only."""
    hub = Hub(RegistrySettings(port=port, store="embedded:", dial_back=False))
    await hub.start()
    link = Link(Address("127.0.0.1", hub.port))
    try:
        await link.start(PATIENCE)
        yield hub, link
    finally:
        await link.close()
        await hub.close()


async def rows(link: Link, count: int) -> list[Instance]:
    await link.wait_for(lambda: len(link.query()) == count, PATIENCE)
    return link.query()


async def test_the_articles_two_lines(node_folder: Path) -> None:
    async with hub_and_link() as (hub, link), node(node_folder) as server:
        port = await server.run(f"require('seaport').connect({hub.port}).register('tf_classify_server')")
        [found] = await rows(link, 1)
        assert 10_000 <= port < 65_000
        assert (found.role, found.address) == ("tf_classify_server", Address("127.0.0.1", port))
        await server.kill()
        async with asyncio.timeout(1):
            await rows(link, 0)


async def test_register_query_free(node_folder: Path) -> None:
    async with hub_and_link() as (hub, link), node(node_folder) as one, node(node_folder) as two:
        for client in (one, two):
            await client.run(f"s = open('127.0.0.1:{hub.port}'), 0")
            await client.until("synced")
        await one.run("s.register('beep@1.2.3', { port: 9001, flowers: ['daisy'] })")
        await one.run("s.register('beep@1.3.0', { port: 9002 })")
        await one.run("s.register('boop', 9003)")
        await two.until("register", role="boop")
        assert [i.role for i in await rows(link, 3)] == ["beep@1.2.3", "beep@1.3.0", "boop"]
        assert link.query(Query.parse("beep@1.2.x"))[0].meta == {"flowers": ["daisy"]}

        async def ports(pattern: str) -> list[int]:
            found = await two.run(f"s.query('{pattern}').map(row => row.port)")
            assert isinstance(found, list)
            return found

        assert await ports("beep") == [9001, 9002]
        assert await ports("beep@1.2.x") == [9001]
        assert await ports("beep@>1.2.3") == [9002]
        assert await ports("boop") == [9003]
        assert await ports("boop@1") == [], "a row without a version satisfies no range"
        assert await two.run("s.query('boop')[0].host") == "127.0.0.1"
        await one.run("s.free(9001), 0")
        await two.until("free", port=9001)
        assert await ports("beep") == [9002]
        assert [i.address.port for i in await rows(link, 2)] == [9002, 9003]
        await one.kill()
        await two.until("free", port=9002)
        await two.until("free", port=9003)
        assert await two.run("s.query().length") == 0
        assert await rows(link, 0) == []


async def test_our_instances_are_what_get_waits_for(node_folder: Path) -> None:
    async with hub_and_link() as (hub, link), node(node_folder) as client:
        await client.run(f"s = open({hub.port}), s.get('classify@^1.2 || 1.x', rows => tell('got', rows[0])), 0")
        await client.until("synced")
        mine = Instance("A1", "classify", Address("127.0.0.1", 9001), "1.2.3", models=("flowers",))
        await link.announce(mine)
        got = await client.until("got")
        assert got == {**mine.as_meta(), "ttl_seconds": 10}
        assert await client.run("s.free('A1'), s.query().length") == 0
        late = Link(Address("127.0.0.1", hub.port))
        await late.start(PATIENCE)
        assert [i.id for i in late.query()] == ["A1"], "a client cannot free what is not its own"
        await late.close()
        await link.withdraw("A1")


async def test_a_node_program_finds_the_clusters_workers_and_uploads(node_folder: Path, cluster: Cluster) -> None:
    """What the article's proxy does, with our workers behind it: `get` the service, take one, send it the photo."""
    photo = cluster.photos / "daisy.jpg"
    async with node(node_folder) as js:
        await js.run(f"s = open({cluster.registry}); s.get('classify', found => tell('found', found)); 0")
        found = await js.until("found")
        assert {worker["port"] for worker in found} <= {worker["port"] for worker in cluster.workers()}
        await js.run(
            f"fetch('http://{found[0]['host']}:{found[0]['port']}/', "
            f"{{method: 'POST', body: require('fs').readFileSync({json.dumps(str(photo))})}})"
            ".then(r => r.json()).then(said => tell('said', said)); 0"
        )
        assert await js.until("said") == cluster.expected["daisy.jpg"]


async def test_node_clients_come_back_to_a_hub_that_was_restarted(node_folder: Path) -> None:
    port = free_port()
    async with node(node_folder) as client:
        async with hub_and_link(port) as (_, link):
            await client.run(f"s = open({port}), s.register('beep@1.0.0', 9001)")
            await rows(link, 1)
        await client.until("disconnect")
        async with hub_and_link(port) as (_, link):
            [found] = await rows(link, 1)
            assert (found.role, found.address.port) == ("beep@1.0.0", 9001)


RANGES = ["*", "1", "1.x", "1.2.x", "~1.2", "~1.2.2", ">1.2.0", ">=1.2.3", ">= 1.2.3", "<2", ">=1 <2", "1 || 3", "=1.2.3",
          "1.2.3", "2", "0.2.x", "1.2.3-rc.1", "latest"]  # fmt: skip
# Its semver is of 2012: it knows no `^`, and lets ranges include release candidates, as npm itself no longer does.
VERSIONS = ["1.2.3", "1.2.4", "1.3.0", "2.0.0", "0.2.5", "3.1.0", "v1.2.3", "", "nonsense"]


async def test_ranges_mean_what_they_mean_there(node_folder: Path) -> None:
    async with node(node_folder) as client:
        theirs = await client.run(
            f"{json.dumps(RANGES)}.map(r => {json.dumps(VERSIONS)}.filter(v => semver.satisfies(v, r)))"
        )
    assert dict(zip(RANGES, theirs, strict=True)) == {r: [v for v in VERSIONS if satisfies(v, r)] for r in RANGES}
