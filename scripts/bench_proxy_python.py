"""Usage: bench_proxy_python.py sink|load --OPTION VALUE ...

What scripts/load's programs do, for where there is no C compiler; the options are theirs, and what is not done here is
refused. It is slower than what it measures: CPU per request can still be compared, requests a second cannot.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence

import uvloop

TAG = 16


def head_of(text: bytes) -> dict[bytes, bytes]:
    return {
        name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in text.split(b"\r\n")[1:])
    }


class Worker:
    def __init__(self, given: argparse.Namespace) -> None:
        self._seconds, self._most = given.service_us / 1e6, given.slots + given.queue if given.queue >= 0 else None
        self._slots, self._waiting = asyncio.Semaphore(given.slots), 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                fields = head_of(await reader.readuntil(b"\r\n\r\n"))
                size = int(fields.get(b"content-length", b"0"))
                body = await reader.readexactly(size)
                status, said = await self._answer(body, b"x-check" in fields)
                close = fields.get(b"connection", b"").lower() == b"close"
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n"
                writer.write(f"{head}{'Connection: close' if close else 'Via: none'}\r\n\r\n".encode() + said)
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: bytes, check: bool) -> tuple[str, bytes]:
        if check and not matches(body):
            return "500 Internal Server Error", b'{"error": "this is not what was sent"}\n'
        if self._most is not None and self._waiting >= self._most:
            return "429 Too Many Requests\r\nRetry-After: 1", b'{"error": "busy"}\n'
        self._waiting += 1
        try:
            if self._seconds:
                async with self._slots:
                    await asyncio.sleep(self._seconds)
        finally:
            self._waiting -= 1
        return "200 OK", right(body[:TAG], len(body))


def right(tag: bytes, size: int) -> bytes:
    return b'[["daisy", 0.97], "%b", %d]\n' % (tag, size)


def matches(body: bytes) -> bool:
    return body[TAG:] == image(len(body))[TAG:]


@functools.cache
def image(size: int) -> bytes:
    """The pattern of scripts/load/wire.h."""
    return bytes((i * 2654435761 & 0xFFFFFFFF) >> 24 for i in range(size))


async def sink(given: argparse.Namespace) -> None:
    servers = [await asyncio.start_server(Worker(given).serve, given.host, 0) for _ in range(given.ports)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)


class Client:
    """Counts what scripts/load/load.c counts."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.image = given, image(given.size)[TAG:]
        self.until = time.monotonic() + given.seconds
        self.took: list[float] = []
        self.refused = self.failed = self.wrong = self.opened = self.through = 0
        self.problem = ""
        self.tags = itertools.count(time.monotonic_ns())

    async def slot(self) -> None:
        given, door = self.given, (self.given.host, self.given.port)
        streams: dict[tuple[str, int], tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        while time.monotonic() < self.until:
            began = time.monotonic()
            try:
                good, text = await self._ask(streams, door, given.get or given.by_address)
                if good and given.by_address:
                    host, _, port = text.decode().rpartition(":")
                    good, _ = await self._ask(streams, (host or "127.0.0.1", int(port)), False)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed += 1
                self.problem = self.problem or repr(error)
                streams.clear()
                continue
            if good:
                self.took.append((time.monotonic() - began) * 1e6)
        for _, writer in streams.values():
            writer.close()

    async def _ask(
        self,
        streams: dict[tuple[str, int], tuple[asyncio.StreamReader, asyncio.StreamWriter]],
        to: tuple[str, int],
        get: bool,
    ) -> tuple[bool, bytes]:
        """-> whether it was answered rightly, and with what."""
        given, tag = self.given, b"%016x" % next(self.tags)
        if to not in streams:
            streams[to] = await asyncio.open_connection(*to)
            self.opened += 1
        reader, writer = streams[to]
        size = "" if get else f"Content-Type: image/jpeg\r\nContent-Length: {given.size}\r\n"
        extra = "Connection: close\r\n" * given.new + "X-Check: 1\r\n" * given.check
        request = f"{'GET' if get else 'POST'} / HTTP/1.1\r\nHost: {to[0]}:{to[1]}\r\n{size}{extra}\r\n".encode()
        writer.writelines([request] if get else [request, tag, self.image])
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head_of(head)
        text = await reader.readexactly(int(fields[b"content-length"]))
        if to[1] == given.port:
            self.through += len(request) + (0 if get else given.size) + len(head) + len(text)
        if given.new or fields.get(b"connection", b"").lower() == b"close":
            del streams[to]
            await reader.read()
            writer.close()
        status = int(head.split()[1])
        if given.busy and status in (429, 503):
            self.refused += 1
            return False, text
        port = text.rpartition(b":")[2].strip().decode()
        good = status == 200 and (port in given.workers.split(",") if get else text == right(tag, given.size))
        if not good:
            self.wrong += 1
            self.problem = self.problem or f"answered {head + text!r:.200}"
        return good, text


async def load(given: argparse.Namespace) -> None:
    client, began = Client(given), time.monotonic()
    await asyncio.gather(*(client.slot() for _ in range(given.connections)))
    took = sorted(client.took) or [0.0]
    said = {"done": len(client.took), "seconds": time.monotonic() - began, "median": statistics.median(took)}
    said |= {"p99": took[len(took) * 99 // 100], "missed": 0}
    said |= {name: getattr(client, name) for name in ("refused", "failed", "wrong", "opened", "through")}
    print(json.dumps({**said, "problem": client.problem}))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("sink", "load"))
    parser.add_argument("--host", default="127.0.0.1")
    defaults = {"ports": 4, "service-us": 0, "slots": 1, "queue": -1, "port": 0, "size": 1000, "connections": 16}
    defaults |= {"get": 0, "by-address": 0, "new": 0, "check": 0, "busy": 0}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workers", default="")
    given = parser.parse_args(words)
    uvloop.run(sink(given) if given.part == "sink" else load(given))


if __name__ == "__main__":
    main(sys.argv[1:])
