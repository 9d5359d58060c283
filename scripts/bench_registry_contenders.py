"""The registries that are compared, each as a process on the first core: how to join, change, look up and watch it.

The load speaks each one's own wire (`bench_registry_wires.py`); what "registered" means is said by what it waits for: that
ours answered `accepted`, that etcd and ZooKeeper answered, that a client of npm's seaport was told (it answers nobody).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench_proxy import cpu_seconds, free_ports
from bench_registry_wires import Heard, Http, Listener, Names, Rows, Wire

SERVER_CORE = 0
TTL = 10.0  # seconds
BEAT_SECONDS = TTL / 3
SERVICE = "bench"  # the one that changes are made in
OTHERS = 100  # services that the crowd is spread over
PATIENCE = 20.0  # seconds until a server listens
AT_ONCE = 100  # connections opened at a time


class Owner(ABC):
    """Somebody who registers and deregisters, and knows when that was done."""

    @abstractmethod
    def put(self, id: str) -> Awaitable[object]: ...

    @abstractmethod
    def remove(self, id: str) -> Awaitable[object]: ...


Repeat = Callable[[float], Awaitable[int]]  # until when -> how often


class Contender(ABC):
    """`await start()`; `join` makes the crowd larger; `close` ends the process, and all connections to it."""

    name: str
    needs: Sequence[str] = ()  # programs and files without which it is left out
    share = 1  # what part of the instances it is asked to hold: one in so many
    changers: Sequence[str] = ("",)  # ways of registering
    lookups: Sequence[str] = ()  # ways of looking up

    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.crowd: list[Wire] = []
        self.others: list[Wire | Names | Listener] = []
        self.populated: set[str] = set()  # services made to be looked up

    @staticmethod
    def has(name: str) -> bool:
        return Path(name).exists() if "/" in name else shutil.which(name) is not None

    @classmethod
    def version(cls) -> str:
        return ""

    @abstractmethod
    def command(self) -> list[str]: ...

    def begin(self) -> None:
        pin = lambda: os.sched_setaffinity(0, {SERVER_CORE})  # noqa: E731
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdout=said, stderr=said, preexec_fn=pin, start_new_session=True
            )

    async def start(self) -> Self:
        for _ in range(3):  # somebody else may take a port just now
            self.port, self.second_port = free_ports(2)
            self.begin()
            if await asyncio.to_thread(self._listens):
                return self
            self.end()
        raise RuntimeError(f"it does not listen; it said: {(self.folder / 'said').read_text()[-2000:]}")

    def _listens(self) -> bool:
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return True
        return False

    def end(self) -> None:
        """At once: what it kept is thrown away."""
        for each in (*self.crowd, *self.others):
            each.close()
        self.crowd, self.others = [], []
        self.process.kill()
        self.process.wait()

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def memory(self) -> tuple[float, float]:
        """RSS and PSS in MB (of a million bytes)."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        said = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines[1:]}
        return said["Rss"], said["Pss"]

    @property
    def lost(self) -> int:
        return sum(each.lost for each in self.crowd)

    async def join(self, count: int) -> None:
        """Until there are `count` instances of other services, each with a connection, and heartbeats, of its own."""
        while len(self.crowd) < count:
            first = len(self.crowd)
            some = range(first, min(first + AT_ONCE, count))
            self.crowd += await asyncio.gather(*(self.joined(n, f"other-{n % OTHERS:02}") for n in some))

    @abstractmethod
    async def joined(self, number: int, service: str) -> Wire: ...

    @abstractmethod
    async def owners(self, count: int, way: str = "", service: str = SERVICE) -> list[Owner]: ...

    @abstractmethod
    async def watch(self, count: int, heard: Heard) -> None:
        """So many watchers of SERVICE; `heard(id)` at each for what appears in it."""

    async def readers(self, count: int, way: str, service: str, size: int) -> list[Repeat]:
        raise NotImplementedError


class RowsOwner(Owner):
    """`answers`: whether it says `accepted`. What it does not say, `witness` is told: a peer that watches."""

    def __init__(self, wire: Rows, witness: Rows, service: str, ports: Callable[[], int], answers: bool) -> None:
        self._wire, self._witness, self._service, self._ports = wire, witness, service, ports
        self._answers = answers

    def put(self, id: str) -> Awaitable[object]:
        done = self._wire.when("accepted", id) if self._answers else self._witness.when("register", id)
        self._wire.write(register_row(id, self._service, self._ports()))
        return done

    def remove(self, id: str) -> Awaitable[object]:
        done = self._witness.when("free", id)
        self._wire.write(f'["free","{id}"]\n'.encode())
        return done


class AskingOwner(Owner):
    """Over a wire on which each request is answered."""

    def __init__(self, wire: Wire, put: Callable[[str], bytes], remove: Callable[[str], bytes]) -> None:
        self._wire, self._put, self._remove = wire, put, remove

    def put(self, id: str) -> Awaitable[object]:
        return self._wire.ask(self._put(id))

    def remove(self, id: str) -> Awaitable[object]:
        return self._wire.ask(self._remove(id))


def document(id: str, service: str, port: int) -> dict[str, Any]:
    return {"role": f"{service}@1.0.0", "version": "1.0.0", "host": "127.0.0.1", "port": port, "id": id}


def register_row(id: str, service: str, port: int) -> bytes:
    meta = {**document(id, service, port), "role": service, "ttl_seconds": TTL}
    return json.dumps(["register", id, meta], separators=(",", ":")).encode() + b"\n"


def http(method: str, path: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


class Fairway(Contender):
    name = "fairway"
    changers = ("rows", "rows, each address dialled", "HTTP")
    lookups = ("HTTP", "DNS")
    DIALLED = 10_000  # addresses, at most; the hub remembers for a second that it reached one

    def command(self) -> list[str]:
        ports = [f"--port={self.port}", f"--dns-port={self.second_port}"]
        return [sys.executable, "-m", "fairway", "registry", *ports, f"--store=embedded:{self.folder / 'state'}"]

    async def start(self) -> Self:
        await super().start()
        self.others.append(one := Listener())
        self.address = one.ports[0]
        return self

    def hello(self, *services: str) -> bytes:
        return json.dumps(["hello", {"token": "", "services": services}]).encode() + b'\n["synced"]\n'

    async def joined(self, number: int, service: str) -> Wire:
        wire = await Rows(self.hello()).open(self.port)
        done = wire.when("accepted", f"crowd-{number}")
        wire.write(register_row(f"crowd-{number}", service, self.address))
        await done
        wire.beats(BEAT_SECONDS)
        return wire

    async def owners(self, count: int, way: str = "", service: str = SERVICE) -> list[Owner]:
        if way == "HTTP":
            wires = [await self._http() for _ in range(count)]
            self.others += wires
            return [AskingOwner(wire, partial(self._put, service), self._remove) for wire in wires]
        ports = [self.address]
        if way.endswith("dialled"):
            self.others.append(listener := Listener(min(self.DIALLED, files() // 2)))
            ports = listener.ports
        turns = itertools.cycle(ports)
        witness, *rows = [await Rows(self.hello(*(service,) * (n == 0))).open(self.port) for n in range(count + 1)]
        for wire in (witness, *rows):
            wire.beats(BEAT_SECONDS)
        self.others += [witness, *rows]
        return [RowsOwner(wire, witness, service, lambda: next(turns), True) for wire in rows]

    async def _http(self) -> Http:
        """Speaks at once: who says nothing for a second is taken for a seaport client."""
        wire = await Http().open(self.port)
        await wire.ask(http("GET", "/healthz"))
        return wire

    def _put(self, service: str, id: str) -> bytes:
        check = {"TTL": "60s", "Status": "passing"}
        body = {"ID": id, "Name": service, "Address": "127.0.0.1", "Port": self.address, "Check": check}
        return http("PUT", "/v1/agent/service/register", body)

    def _remove(self, id: str) -> bytes:
        return http("PUT", f"/v1/agent/service/deregister/{id}")

    async def watch(self, count: int, heard: Heard) -> None:
        for _ in range(count):
            wire = await Rows(self.hello(SERVICE), heard).open(self.port)
            await wire.synced
            wire.beats(BEAT_SECONDS)
            self.others.append(wire)

    async def readers(self, count: int, way: str, service: str, size: int) -> list[Repeat]:
        if way == "DNS":
            names = [await Names().open(self.second_port) for _ in range(count)]
            self.others += names
            question = Names.question(f"{service}.service.fairway")
            return [partial(one.repeat, question) for one in names]
        wires = [await self._http() for _ in range(count)]
        self.others += wires
        request = http("GET", f"/v1/health/service/{service}?passing")
        answer = await wires[0].ask(request)
        if answer.count(b'"CheckID"') < size:
            raise RuntimeError(f"{size} were registered; looked up: {answer[:300]!r}")
        return [partial(wire.repeat, request) for wire in wires]


class Seaport(Contender):
    """npm's own hub, 2.0.9. Each connection hears of everything; there is nothing to look up from outside."""

    name = "seaport (npm)"
    needs = ("node", "npm")
    share = 10
    changers = ("register, free",)

    def command(self) -> list[str]:
        options = json.dumps({"heartbeat": 10_000, "timeout": TTL * 1000})
        script = f"require('seaport').createServer({options}).listen({self.port}, '127.0.0.1')"
        return ["node", "-e", script]

    @classmethod
    def version(cls) -> str:
        return f"seaport 2.0.9 on node {output('node', '--version').strip()}"

    async def joined(self, number: int, service: str) -> Wire:
        wire = await Rows(b'["synced"]\n').open(self.port)
        await wire.synced
        wire.write(register_row(f"crowd-{number}", service, 9000))
        wire.beats(BEAT_SECONDS)
        return wire

    async def owners(self, count: int, way: str = "", service: str = SERVICE) -> list[Owner]:
        witness, *rows = [await Rows(b'["synced"]\n').open(self.port) for _ in range(count + 1)]
        for wire in (witness, *rows):
            await wire.synced
            wire.beats(BEAT_SECONDS)
        self.others += [witness, *rows]
        return [RowsOwner(wire, witness, service, lambda: 9000, False) for wire in rows]

    async def watch(self, count: int, heard: Heard) -> None:
        for _ in range(count):
            wire = await Rows(b'["synced"]\n', heard).open(self.port)
            await wire.synced
            wire.beats(BEAT_SECONDS)
            self.others.append(wire)


def files() -> int:
    """How many this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
