"""Several machines on one network: namespaces, cables between them, and the commands people run on them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..cluster.processes import FAIRWAY, Running
from .netns import Host, Network, netns_missing, network

pytestmark = pytest.mark.skipif(bool(missing := netns_missing()), reason=str(missing))

LOOKER = Path(__file__).with_name("looker.py")
SERVE = """
import http.server, sys
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), http.server.BaseHTTPRequestHandler).serve_forever()
"""
GONE_SECONDS = 15.0  # a TTL, and half of it for a slow machine
PORT = "12481"


class Lan:
    """Hosts, and what runs on them; processes end before their hosts do."""

    def __init__(self, network: Network, exits: ExitStack) -> None:
        self._network, self._exits = network, exits

    def host(self, connected: bool = True) -> Host:
        return self._network.host(connected)

    def run(self, host: Host, *words: str) -> Running:
        environment = {"PYTHONUNBUFFERED": "1"}
        return self._exits.enter_context(Running(host.command(*words), env=environment))

    def worker(self, host: Host, registry: str = "mdns://", name: str = "classify@1.0.0") -> Running:
        """Any program is a worker with this command in front."""
        where = ("--registry", registry, "--host", host.address)
        return self.run(
            host, *FAIRWAY, "registry", "register", *where, name, "--", sys.executable, "-c", SERVE, host.address
        )

    def watcher(self, host: Host, registry: str = "mdns://") -> Running:
        return self.run(host, *FAIRWAY, "watch", "--registry", registry, "--wait-seconds", "20")


@pytest.fixture
def lan() -> Iterator[Lan]:
    with network() as made, ExitStack() as exits:
        yield Lan(made, exits)
        made.power_off()  # what a program started that was killed would keep its output open


# -- no registry at all ------------------------------------------------------------------------------------------------


def test_a_worker_is_found_from_another_machine_and_gone_when_it_ends(lan: Lan) -> None:
    one, other = lan.host(), lan.host()
    watcher = lan.watcher(other)
    worker = lan.worker(one)
    watcher.line(rf"{one.address}:\d+")
    worker.send(signal.SIGTERM)
    watcher.line(rf"gone.*{one.address}|{one.address}.*gone", GONE_SECONDS)
    worker.ended()


def test_who_starts_later_sees_who_is_there(lan: Lan) -> None:
    hosts = [lan.host() for _ in range(3)]
    for host in hosts:
        lan.worker(host).line("registered classify@1.0.0")
    for host in hosts:
        watcher = lan.watcher(host)
        for _ in hosts:  # its own worker as well: it is another process
            watcher.line(r"classify@1\.0\.0")
        for other in hosts:
            assert other.address in watcher.said


@pytest.mark.parametrize("how", ["power", "cable"])
def test_a_machine_that_dies_is_gone_in_bounded_time(lan: Lan, how: str) -> None:
    one, other = lan.host(), lan.host()
    lan.worker(one)
    watcher = lan.watcher(other)
    watcher.line(rf"{one.address}:\d+")
    if how == "power":
        one.power_off()
    else:
        one.cut()
    begin = time.monotonic()
    watcher.line(rf"gone.*{one.address}|{one.address}.*gone", GONE_SECONDS)
    print(f"gone after {time.monotonic() - begin:.1f} s")


def test_a_cable_that_was_pulled_and_is_back(lan: Lan) -> None:
    one, other = lan.host(), lan.host()
    lan.worker(one)
    watcher = lan.watcher(other)
    watcher.line(rf"{one.address}:\d+")
    for _ in range(2):
        one.cut()
        watcher.line(rf"gone.*{one.address}|{one.address}.*gone", GONE_SECONDS)
        one.heal()
        watcher.line(rf"{one.address}:\d+")


def test_a_network_that_falls_apart_unseen_and_heals(lan: Lan) -> None:
    """No carrier is lost: only who goes on speaking is heard again by those who have forgotten him."""
    one, other = lan.host(), lan.host()
    lan.worker(one)
    watcher = lan.watcher(other)
    watcher.line(rf"{one.address}:\d+")
    one.isolate()
    watcher.line(rf"gone.*{one.address}|{one.address}.*gone", GONE_SECONDS)
    one.join()
    watcher.line(rf"{one.address}:\d+", GONE_SECONDS)


def test_who_is_cut_off_itself_keeps_what_it_knew(lan: Lan) -> None:
    one, other, third = lan.host(), lan.host(), lan.host()
    lan.worker(one)
    watcher, witness = lan.watcher(other), lan.watcher(third)
    for reader in (watcher, witness):
        reader.line(rf"{one.address}:\d+")
    other.cut()
    begin = time.monotonic()
    lan.worker(third, name="late@2.0.0")
    witness.line(rf"{third.address}:\d+")
    one.cut()
    witness.line(rf"gone.*{one.address}|{one.address}.*gone", GONE_SECONDS)
    time.sleep(max(0.0, begin + GONE_SECONDS - time.monotonic()))  # what is not to happen had its time
    assert "gone" not in watcher.said
    other.heal()
    watcher.line(rf"{third.address}:\d+")
    watcher.line(rf"gone.*{one.address}|{one.address}.*gone", 2 * GONE_SECONDS)


def test_a_network_that_comes_late(lan: Lan) -> None:
    one, other = lan.host(connected=False), lan.host()
    lan.worker(one).line("no network")
    watcher = lan.watcher(other)
    one.heal()
    watcher.line(rf"{one.address}:\d+")


@pytest.mark.skipif(not shutil.which("dig"), reason="there is no dig here (Debian: apt install bind9-dnsutils)")
def test_dig_is_answered(lan: Lan) -> None:
    one, other = lan.host(), lan.host()
    lan.worker(one).line("registered classify@1.0.0")

    def dig(*question: str) -> list[str]:
        command = other.command("dig", f"@{one.address}", "-p", "5353", "+short", "+timeout=2", "+tries=5", *question)
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()

    (name,) = dig("_fairway-worker._tcp.local.", "PTR")
    (service,) = dig(name, "SRV")
    assert service.startswith("0 0 ")
    server = service.split()[-1]
    assert dig(server, "A") == [one.address]
    (words,) = dig(name, "TXT")
    assert '"txtvers=1"' in words


# -- where is the registry? --------------------------------------------------------------------------------------------


def test_a_registry_is_found_on_the_network_and_forgotten_when_it_ends(lan: Lan) -> None:
    one, other = lan.host(), lan.host()
    looker = lan.run(other, sys.executable, str(LOOKER))
    looker.line("looking")
    hub = lan.run(
        one, *FAIRWAY, "registry", "--host", "0.0.0.0", "--insecure", "--port", PORT, "--store", "embedded:", "--mdns"
    )
    looker.line(f"knows {one.address}:{PORT}$")
    hub.send(signal.SIGTERM)
    looker.line("knows nobody")
    hub.ended()


def test_workers_and_readers_that_were_told_nothing_meet_at_it(lan: Lan) -> None:
    one, two, three = lan.host(), lan.host(), lan.host()
    where = ("--host", one.address, "--insecure", "--port", PORT, "--store", "embedded:", "--mdns")
    hub = lan.run(one, *FAIRWAY, "registry", *where)
    hub.line("listening")
    worker = lan.worker(two, registry="auto")
    worker.line("registered classify@1.0.0")
    watcher = lan.watcher(three, registry="auto")
    watcher.line(rf"{two.address}:\d+")
    two.power_off()
    watcher.line(rf"gone.*{two.address}|{two.address}.*gone", GONE_SECONDS)
