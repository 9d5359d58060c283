"""Machines on a network whose cables are pulled, and put back: no word to anybody, no RST, nothing. Under load.

The proxy listens at a Unix socket, where the test reaches it across the network namespaces; all else goes by cable.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..registry.netns import Host, netns_missing, network
from .fleet import Door, Fleet, Worker
from .uploads import CONCURRENCY, UPLOADS, Load, plainly

pytestmark = pytest.mark.skipif(bool(missing := netns_missing()), reason=str(missing))

RESTED = (
    0.02  # seconds between two uploads of each lane: healing takes seconds, and this machine has other things to do
)
PORT = 12481


@dataclass
class Network:
    """`hosts` are the workers'."""

    fleet: Fleet
    registry: Host
    proxy: Host
    hosts: list[Host]
    workers: list[Worker]
    socket: Path
    service: str

    def door(self, *flags: str) -> Door:
        door = self.fleet.proxy(
            f"{self.registry.address}:{PORT}",
            self.service,
            *("--slow-start-seconds=0", "--insecure", *flags),
            host=f"unix:{self.socket}",
            place=self.proxy.command,
        )
        door.wait_for([worker.port for worker in self.workers])
        return door


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network() as made, Fleet() as fleet:
        registry, proxy, *hosts = [made.host() for _ in range(5)]
        fleet.registry(f"--host={registry.address}", "--insecure", port=PORT, place=registry.command)
        service = fleet.service()
        workers = [
            worker
            for host in hosts
            for worker in fleet.workers(
                1, f"{registry.address}:{PORT}", service, f"--host={host.address}", place=host.command
            )
        ]
        yield Network(fleet, registry, proxy, hosts, workers, tmp_path / "proxy.sock", service)


async def test_a_worker_cut_off_costs_what_it_was_sent_and_is_used_again_when_it_is_back(net: Network) -> None:
    door, lost = net.door("--deadline-seconds=1", "--connect-seconds=0.5"), net.workers[1]
    async with plainly(door.url) as send, Load(send, pause=RESTED) as load:
        load.more()
        await load.answered(100)
        net.hosts[1].cut()
        await load.answered(UPLOADS)
        assert {said.status for said in load.failed} <= {504}
        assert 1 <= len(load.failed) <= CONCURRENCY + 1  # and one probe, should its ejection end meanwhile
        at, failed = len(load.said), len(load.failed)
        net.hosts[1].heal()
        async with asyncio.timeout(30):
            while lost.id not in load.workers(after=at):
                await load.answered(20)
        load.enough()
    assert len(load.failed) <= failed + 1  # found out by a probe, if by anything
    assert max(said.seconds for said in load.said) < 3.0
    assert load.failed == [said for said in load.failed if said.status == 504]


async def test_a_cable_pulled_for_a_moment_costs_a_moment(net: Network) -> None:
    """TCP sends again what was lost; nobody is given up for that."""
    door = net.door("--deadline-seconds=20")
    async with plainly(door.url) as send, Load(send, pause=RESTED) as load:
        load.more()
        await load.answered(100)
        net.hosts[1].cut()
        await asyncio.sleep(1)  # how long it is pulled is what this is about
        net.hosts[1].heal()
        await load.answered(UPLOADS)
        load.enough()
    assert load.failed == []


async def test_the_registry_cut_off_from_all(net: Network) -> None:
    """Who was there last is who is sent to; and what happened meanwhile is known when it is back."""
    door = net.door()
    async with plainly(door.url) as send, Load(send, pause=RESTED) as load:
        load.more()
        await load.answered(100)
        net.registry.cut()
        net.workers[0].send(signal.SIGKILL)
        await load.answered(UPLOADS)
        net.registry.heal()
        await asyncio.to_thread(door.wait_for, [worker.port for worker in net.workers[1:]], 40)
        await load.answered(100)
        load.enough()
    assert load.failed == []
