"""Usage: scripts/bench proxy [--seconds 3] [--rounds 3]

Requests a second, and CPU time of the proxy per request, for uploads of 20 KB, 100 KB and 1 MB: forwarded by Fairway, past
Fairway by address (look up, then straight to the worker; one lookup an upload), and forwarded by nginx and haproxy where
they are installed. All contenders take turns in every round and see the same sinks and the same client; the figures are
medians over the rounds. Proxy on one core, client and sinks on the other. CPU is utime+stime of all the proxy's processes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

SIZES = {"20 KB": 20_000, "100 KB": 100_000, "1 MB": 1_000_000}
CONCURRENCY = 16
SINKS = 4
TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n[["daisy", 0.97]]\n'


class Sink(asyncio.Protocol):
    """A worker without a model: counts the body, answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._head, self._left = transport, b"", 0

    def data_received(self, data: bytes) -> None:
        while data:
            if not self._left:
                self._head += data
                end = self._head.find(b"\r\n\r\n")
                if end < 0:
                    return
                head, data = self._head[:end].lower(), self._head[end + 4 :]
                at = head.index(b"content-length:") + 15
                self._left, self._head = int(head[at:].split(b"\r\n", 1)[0]), b""
            taken = min(self._left, len(data))
            self._left, data = self._left - taken, data[taken:]
            if not self._left:
                self._transport.write(ANSWER)  # type: ignore[attr-defined]


def run_sinks(ports: list[int]) -> None:
    os.sched_setaffinity(0, {LOAD_CORE})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for port in ports:
            await loop.create_server(Sink, "127.0.0.1", port, backlog=512)
        await asyncio.Event().wait()

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    uvloop.run(main())


class Connection:
    """One kept-alive connection of the client."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)

    async def ask(self, request: bytes) -> bytes:
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"port {self.port} answered {head[:80]!r}")
        at = head.lower().index(b"content-length:") + 15
        return await self._reader.readexactly(int(head[at:].split(b"\r\n", 1)[0]))


def upload(port: int, size: int) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + bytes(size)


async def forwarded(port: int, size: int, until: float) -> int:
    async def one() -> int:
        connection, done, request = Connection(port), 0, upload(port, size)
        await connection.open()
        while time.monotonic() < until:
            await connection.ask(request)
            done += 1
        return done

    return sum(await asyncio.gather(*(one() for _ in range(CONCURRENCY))))


async def by_address(port: int, size: int, until: float) -> int:
    async def one() -> int:
        proxy, sinks, done = Connection(port), dict[bytes, Connection](), 0
        await proxy.open()
        lookup = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        request = upload(port, size)
        while time.monotonic() < until:
            address = await proxy.ask(lookup)
            if address not in sinks:
                sinks[address] = Connection(int(address.rpartition(b":")[2]))
                await sinks[address].open()
            await sinks[address].ask(request)
            done += 1
        return done

    return sum(await asyncio.gather(*(one() for _ in range(CONCURRENCY))))


@dataclass
class Contender:
    name: str
    pid: int
    port: int
    load: Callable[[int, int, float], object]
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def cpu_seconds(pid: int) -> float:
    """utime + stime of a process and its children, from /proc."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(own[11]) + int(own[12])) / TICKS + sum(cpu_seconds(int(child)) for child in pids)


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def proxies(sinks: list[int], folder: Path) -> Iterator[list[Contender]]:
    """Every contender as a running process; ended when done."""
    commands: list[tuple[str, list[str], int, Callable[[int, int, float], object]]] = []
    static = ",".join(map(str, sinks))
    port = free_ports(1)[0]
    fairway = [sys.executable, "-m", "fairway", "proxy", f"--port={port}", f"--static={static}"]
    commands.append(("fairway, forwarded", fairway, port, forwarded))
    commands.append(("fairway, by address", fairway, port, by_address))
    if nginx := shutil.which("nginx"):
        port = free_ports(1)[0]
        servers = "".join(f"server 127.0.0.1:{sink};" for sink in sinks)
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; events {{}}\n"
            f"http {{ access_log off; client_max_body_size 64m; client_body_temp_path {folder}/body; "
            f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; "
            f"scgi_temp_path {folder}/s; keepalive_requests 1000000000; upstream workers {{ {servers} keepalive 64; "
            f"keepalive_requests 1000000000; }} server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass "
            'http://workers; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; '
            "client_body_buffer_size 256k; } } }\n"
        )
        commands.append(("nginx, tuned for uploads", [nginx, "-c", str(config)], port, forwarded))
    if haproxy := shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy"):
        port = free_ports(1)[0]
        config = folder / "haproxy.cfg"
        servers = "".join(f"  server w{i} 127.0.0.1:{sink}\n" for i, sink in enumerate(sinks))
        config.write_text(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n"
            "  timeout server 60s\n  http-reuse always\n"
            f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n{servers}"
        )
        commands.append(("haproxy", [haproxy, "-db", "-f", str(config)], port, forwarded))
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for _, command, port, _ in commands:
            if port not in running:
                pin = lambda: os.sched_setaffinity(0, {PROXY_CORE})  # noqa: E731
                running[port] = subprocess.Popen(command, preexec_fn=pin, stderr=subprocess.DEVNULL)
                wait_until_open(port)
        yield [Contender(name, running[port].pid, port, load) for name, _, port, load in commands]
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(20)


def wait_until_open(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens on {port}")


def measure(contenders: list[Contender], seconds: float, rounds: int) -> None:
    for size_name, size in SIZES.items():
        for turn in range(rounds + 1):  # the first is a warm-up
            for contender in contenders:
                before, began = cpu_seconds(contender.pid), time.monotonic()
                until = began + (seconds if turn else min(1.0, seconds))
                done = uvloop.run(contender.load(contender.port, size, until))  # type: ignore[arg-type]
                spent, wall = cpu_seconds(contender.pid) - before, time.monotonic() - began
                if turn:
                    contender.figures.setdefault(size_name, []).append((done / wall, spent / done * 1e6))
            print(f"\r{size_name}: round {turn} of {rounds}  ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def table(contenders: list[Contender]) -> str:
    head = "| | " + " | ".join(f"{size}: requests/s | CPU µs | of forwarded" for size in SIZES) + " |"
    lines = [head, "|---|" + "--:|--:|--:|" * len(SIZES)]
    base = contenders[0]
    for contender in contenders:
        cells = []
        for size in SIZES:
            rate = statistics.median(rate for rate, _ in contender.figures[size])
            cpu = statistics.median(cpu for _, cpu in contender.figures[size])
            pairs = zip(contender.figures[size], base.figures[size], strict=True)
            ratio = statistics.median(mine / theirs for (_, mine), (_, theirs) in pairs)
            cells += [f"{rate:,.0f}", f"{cpu:,.0f}", f"{ratio:.2f}"]
        lines.append(f"| {contender.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench proxy", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    sinks = free_ports(SINKS)
    sink = multiprocessing.get_context("spawn").Process(target=run_sinks, args=(sinks,), daemon=True)
    sink.start()
    for port in sinks:
        wait_until_open(port)
    try:
        with tempfile.TemporaryDirectory() as folder, proxies(sinks, Path(folder)) as contenders:
            measure(contenders, given.seconds, given.rounds)
            print(table(contenders))
    finally:
        sink.terminate()
        sink.join()


if __name__ == "__main__":
    main()
