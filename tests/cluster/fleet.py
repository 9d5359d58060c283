"""A registry, proxies and light workers, each a process of its own, started one by one and ended by their ids."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from fairway.registry.ports import free_port

from .processes import FAIRWAY, Running

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("worker.py")))
HOST = "127.0.0.1"
Place = Callable[..., tuple[str, ...]]  # where a command runs: `netns.Host.command`, or right here


def here(*words: str) -> tuple[str, ...]:
    return words


class Worker:
    """A light worker."""

    def __init__(self, running: Running, port: int) -> None:
        self.running, self.port = running, port

    @property
    def id(self) -> str:
        """As its answers say who gave them."""
        return str(self.running.pid)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.running.pid, number)

    def begun(self, host: str = HOST) -> int:
        """How many uploads it has been sent."""
        with urllib.request.urlopen(f"http://{host}:{self.port}/count", timeout=10) as answer:
            return int(json.load(answer)["begun"])


class Door:
    """A proxy, and the service it is for."""

    def __init__(self, running: Running, service: str, port: int, host: str = HOST) -> None:
        self.running, self.service, self.port, self.host = running, service, port, host

    @property
    def url(self) -> str:
        return self.host if self.host.startswith("unix:") else f"http://{self.host}:{self.port}"

    def workers(self) -> list[dict[str, Any]]:
        asked = HTTPConnection(self.host, self.port, timeout=10)
        if self.host.startswith("unix:"):
            asked.sock = socket.socket(socket.AF_UNIX)
            asked.sock.settimeout(10)
            asked.sock.connect(self.host.removeprefix("unix:"))
        try:
            asked.request("GET", "/-/workers", headers={"Host": "proxy", "Accept": "application/json"})
            found: list[dict[str, Any]] = json.load(asked.getresponse())["services"].get(self.service, [])
        finally:
            asked.close()
        return found

    def wait_for(self, ports: Sequence[int], seconds: float = 20.0) -> None:
        """Until these are the workers that it would send to, and nobody else."""
        deadline = monotonic() + seconds
        while (found := sorted(row["port"] for row in self.workers() if row["state"] == "passing")) != sorted(ports):
            assert monotonic() < deadline, f"the proxy knows {found}, not {sorted(ports)}"
            sleep(0.02)

    def memory(self) -> int:
        """Bytes it has resident now."""
        return _status(self.running.pid, "VmRSS")

    def most_memory(self) -> int:
        return _status(self.running.pid, "VmHWM")


class Fleet:
    """A context manager; at its end nobody is asked to go, all are killed. One registry does for many fleets."""

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._started: list[Running] = []

    def registry(self, *flags: str, port: int = 0, place: Place = here) -> tuple[Running, int]:
        port = port or free_port()
        words = ("registry", f"--port={port}", "--store=embedded:", "--no-dns", *flags)
        running = self._start(place(*FAIRWAY, *words))
        running.line("registry listening on")
        return running, port

    def service(self) -> str:
        """A name that nobody else has."""
        return f"images-{secrets.token_hex(4)}"

    def workers(self, number: int, registry: int | str, service: str, *flags: str, place: Place = here) -> list[Worker]:
        """Registered and listening. `registry`: its port, or HOST:PORT."""
        at = f"{HOST}:{registry}" if isinstance(registry, int) else registry
        command = place(*WORKER, f"--registry={at}", f"--service={service}", *flags)
        started = [self._start(command) for _ in range(number)]
        return [Worker(one, int(one.line(r"^worker \d+ at .*:(\d+)$")[1])) for one in started]

    def proxy(
        self, registry: int | str, service: str, *flags: str, host: str = HOST, port: int = 0, place: Place = here
    ) -> Door:
        """`host`: also `unix:PATH`, which is reached from everywhere on this machine."""
        at = f"{HOST}:{registry}" if isinstance(registry, int) else registry
        words = ("proxy", f"--host={host}", f"--port={port}", f"--registry={at}", f"--service={service}", *flags)
        running = self._start(place(*FAIRWAY, *words))
        listening = running.line(r"proxy listening on (?:unix:|http://.*:(\d+)/)")
        return Door(running, service, int(listening[1] or 0), host)

    def cluster(self, number: int, registry: int, *flags: str, worker: Sequence[str] = ()) -> tuple[Door, list[Worker]]:
        """A proxy that knows so many workers. `flags` are the proxy's."""
        service = self.service()
        members = self.workers(number, registry, service, *worker)
        door = self.proxy(registry, service, *flags)
        door.wait_for([member.port for member in members])
        return door, members

    def _start(self, command: Sequence[str]) -> Running:
        running = self._exits.enter_context(Running(command))
        self._started.append(running)
        return running

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._started:
            running.send(signal.SIGKILL)  # says nothing of who has ended already
        self._exits.close()


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no {name}")
