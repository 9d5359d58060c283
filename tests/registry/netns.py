"""A local network of test hosts: network namespaces on one bridge. Nothing of the machine's own network is touched.

The bridge has a namespace of its own, and each veth pair is made with its ends in two of ours. Whatever the process
that made them leaves behind when it is killed is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = "10.77.0"
NAME = re.compile(r"fairway-(\d+)-\w+-\w+")


class Host:
    """One machine on the network, with loopback and `eth0`."""

    def __init__(self, namespace: str, number: int, switch: str) -> None:
        self.namespace, self.number, self.port, self.switch = namespace, number, f"port{number}", switch
        self.address = f"{NETWORK}.{number}"

    def command(self, *words: str) -> tuple[str, ...]:
        """`words`, run there. The process is the program itself: signals reach it."""
        return ("ip", "netns", "exec", self.namespace, *words)

    def power_off(self) -> None:
        """All that runs there ends at once, without a word."""
        for pid in _ip("netns", "pids", self.namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def cut(self) -> None:
        """Pulls its cable: no carrier, no packets, no word to anybody."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def isolate(self) -> None:
        """The switch forwards nothing of it any more. Neither side can see that."""
        _ip("-n", self.switch, "link", "set", self.port, "nomaster")

    def join(self) -> None:
        _ip("-n", self.switch, "link", "set", self.port, "master", "bridge")

    def heal(self) -> None:
        _ip("-n", self.switch, "link", "set", self.port, "up")


class Network:
    def __init__(self) -> None:
        self._name = f"fairway-{os.getpid()}-{secrets.token_hex(3)}"
        self._switch = f"{self._name}-switch"
        self._made: list[str] = []
        self._hosts: list[Host] = []

    def build(self) -> None:
        self._add(self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def host(self, connected: bool = True) -> Host:
        number = len(self._made)
        host = Host(f"{self._name}-{number}", number, self._switch)
        self._add(host.namespace)
        self._hosts.append(host)
        _ip(
            *("link", "add", "eth0", "netns", host.namespace, "type", "veth"),
            *("peer", "name", host.port, "netns", self._switch),
        )
        host.join()
        if connected:
            host.heal()
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "broadcast", "+", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", host.namespace, "link", "set", link, "up")
        return host

    def power_off(self) -> None:
        for host in self._hosts:
            host.power_off()

    def remove(self) -> None:
        for namespace in self._made:
            _ip("netns", "delete", namespace)

    def _add(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)


@contextmanager
def network() -> Iterator[Network]:
    """Its hosts' processes are to have ended when it is left."""
    made = Network()
    try:
        made.build()
        yield made
    finally:
        made.remove()


def netns_missing() -> str | None:
    """Why no namespaces can be made here; None if they can."""
    if not shutil.which("ip"):
        return "there is no `ip` here (Debian: apt install iproute2)"
    _sweep()
    try:
        with network() as made:
            made.host()
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"
    return None


def _sweep() -> None:
    """What a process that lives no more has left."""
    with contextlib.suppress(OSError):
        for path in Path("/run/netns").iterdir():
            found = NAME.fullmatch(path.name)
            if found and not Path("/proc", found[1]).exists():
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip("netns", "delete", path.name)


def _ip(*words: str) -> str:
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True).stdout
