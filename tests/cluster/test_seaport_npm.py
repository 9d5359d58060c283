"""The real seaport of npm, version 2.0.9, against our hub: what Node services of old say and hear is still true."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairway.registry import Address, Hub, Instance, Link, Query
from fairway.registry.config import RegistrySettings
from fairway.registry.instance import satisfies
from fairway.registry.ports import free_port

from .conftest import Cluster

SEAPORT = "seaport@2.0.9"
PATIENCE = 15.0  # seconds

# Each line on stdin is evaluated with `s`, our seaport client, in reach, and answered; events are told as they come.
DRIVER = """
const seaport = require('seaport'), semver = require('semver');
const tell = (...row) => process.stdout.write(JSON.stringify(row) + '\\n');
const open = (...args) => {
    const s = seaport.connect(...args);
    s.on('register', meta => tell('register', meta));
    s.on('free', meta => tell('free', meta));
    s.on('synced', () => tell('synced'));
    s.on('disconnect', () => tell('disconnect'));
    return s;
};
let s;
require('readline').createInterface({ input: process.stdin }).on('line', line => tell('answer', eval(line) ?? null));
"""


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seaport installed in it; its scripts are not run, it needs none."""
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {' and '.join(missing)}")
    folder = tmp_path_factory.mktemp("node")
    (folder / "driver.js").write_text(DRIVER)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--prefix", "."]
    try:
        done = subprocess.run([*command, SEAPORT], cwd=folder, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not install {SEAPORT} within a minute")
    if done.returncode:
        pytest.skip(f"npm could not install {SEAPORT}: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return folder


class Node:
    """A Node process with a seaport client in it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._rows: list[list[Any]] = []

    async def until(self, kind: str, **expected: object) -> Any:
        """The first event of this kind, not asked for before, whose values are the expected ones."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, (name, *rest) in enumerate(self._rows):
                    if name == kind and (not expected or expected.items() <= rest[0].items()):
                        del self._rows[at]
                        return rest[0] if rest else None
                assert self.process.stdout is not None
                line = await self.process.stdout.readline()
                assert line, "node ended before that"
                self._rows.append(json.loads(line))

    async def run(self, script: str) -> Any:
        """Evaluates one line of JavaScript -> its value. Events that came before the answer are kept."""
        assert self.process.stdin is not None
        assert "\n" not in script
        self.process.stdin.write(script.encode() + b"\n")
        kept = self._rows
        self._rows = []
        async with asyncio.timeout(PATIENCE):
            while not (self._rows and self._rows[-1][0] == "answer"):
                assert self.process.stdout is not None
                line = await self.process.stdout.readline()
                assert line, "node ended before that"
                self._rows.append(json.loads(line))
        answer = self._rows.pop()[1]
        self._rows = kept + self._rows
        return answer

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()  # SIGKILL: it says no goodbye
        await self.process.communicate()


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        "node", "driver.js", cwd=folder, stdin=PIPE, stdout=PIPE, env={"PATH": os.environ["PATH"]}
    )
    one = Node(process)
    try:
        yield one
    finally:
        await one.kill()


@asynccontextmanager
async def hub_and_link(port: int = 0) -> AsyncIterator[tuple[Hub, Link]]:
    hub = Hub(RegistrySettings(port=port))
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
        link.announce(mine)
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
