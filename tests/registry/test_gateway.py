"""The client of etcd's JSON gateway, against a server that says what a real one says only on its bad days."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from fairway.registry.errors import StoreUnavailable
from fairway.registry.instance import Address
from fairway.registry.ports import free_port
from fairway.registry.stores.gateway import EtcdError, Gateway

Pieces = Sequence[bytes]
BEGIN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE, TWO = b'{"result":{"n":1}}\n', b'{"result":{"n":2}}\n'


class Server:
    """Answers every request with `pieces`, each sent by itself; an empty one ends the connection without a word."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces, self.requests, self.connections, self.port = pieces, list[bytes](), 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.pieces:
                    if not piece:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)  # a piece is to arrive as a piece
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(*pieces: bytes) -> AsyncIterator[Server]:
    server = Server(pieces)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


@asynccontextmanager
async def gateway(*ports: int, user: str = "") -> AsyncIterator[Gateway]:
    made = Gateway([Address("127.0.0.1", port) for port in ports], user, "pw")
    made.open()
    try:
        yield made
    finally:
        await made.close()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(value: object, status: str = "200 OK") -> bytes:
    said = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said


async def read(made: Gateway) -> list[object]:
    found: list[object] = []
    async with aclosing(made.stream(made.endpoints[0], "watch", {})) as results:
        try:
            async for result in results:
                found.append(result["n"])  # noqa: PERF401 - those before the error count
        except (StoreUnavailable, EtcdError) as error:
            found.append(type(error))
    return found


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(ONE + TWO)],  # two objects in one piece
        [chunk(ONE), chunk(TWO)],
        [chunk(ONE[:5]), chunk(ONE[5:] + TWO[:-1]), chunk(b"\n")],  # and pieces that end within one
        [chunk(bytes([byte])) for byte in ONE + TWO],
        [chunk(b"\n" + ONE + b"\n"), chunk(TWO)],
    ],
)
async def test_objects_come_in_any_pieces(pieces: list[bytes]) -> None:
    async with serving(BEGIN, *pieces, b"0\r\n\r\n") as server, gateway(server.port) as made:
        assert await read(made) == [1, 2, StoreUnavailable]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing"}}\n', StoreUnavailable),
        (b'{"error":{"grpc_code":7,"http_code":403,"message":"permission denied"}}\n', EtcdError),
        (b'{"error":"etcdserver: no leader","code":14}\n', StoreUnavailable),
        (b'{"error":{}}\n', StoreUnavailable),
        (b'{"result":[]}\n', StoreUnavailable),
        (b"[1]\n", StoreUnavailable),
        (b"[" * 5000 + b"\n", StoreUnavailable),
        (b"<html>\n", StoreUnavailable),
    ],
)
async def test_an_error_within_a_stream_ends_it(line: bytes, kind: type[Exception]) -> None:
    async with serving(BEGIN, chunk(ONE + line + TWO)) as server, gateway(server.port) as made:
        assert await read(made) == [1, kind]


async def test_a_stream_that_breaks_off() -> None:
    async with serving(BEGIN, chunk(ONE), b"") as server, gateway(server.port) as made:
        assert await read(made) == [1, StoreUnavailable]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer({"error": "etcdserver: no leader", "code": 14}, "503 Service Unavailable"), StoreUnavailable),
        (answer({"error": "etcdserver: permission denied", "code": 7}, "403 Forbidden"), EtcdError),
        (answer({"error": "it has no code"}, "500 Internal Server Error"), StoreUnavailable),
        (answer(["no object"]), StoreUnavailable),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nwhat", StoreUnavailable),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", StoreUnavailable),
        (b"SSH-2.0-OpenSSH\r\n", StoreUnavailable),
        (b"", StoreUnavailable),
    ],
)
async def test_what_an_answer_means(said: bytes, kind: type[Exception]) -> None:
    async with serving(said) as server, gateway(server.port) as made:
        with pytest.raises(kind):
            await made.call("kv/range", {})


async def test_of_several_the_next_is_asked_and_stays_the_first() -> None:
    async with (
        serving(answer({"who": 1}, "503 Service Unavailable")) as bad,
        serving(answer({"who": 2})) as good,
        gateway(free_port(), bad.port, good.port) as made,
    ):
        assert [await made.call("kv/range", {}) for _ in range(3)] == [{"who": 2}] * 3
        assert (len(bad.requests), len(good.requests)) == (1, 3)
        assert good.connections == 1, "connections are kept"


async def test_one_that_says_nothing_costs_a_moment_only() -> None:
    async with serving() as silent, serving(answer({})) as good, gateway(silent.port, good.port) as made:
        assert await made.call("kv/range", {}, seconds=0.2) == {}
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await made.call("kv/range", {}, at=Address("127.0.0.1", silent.port), seconds=0.2)


async def test_a_kept_connection_that_has_ended_is_no_failure() -> None:
    async with serving(answer({}), b"") as server, gateway(server.port) as made:
        for _ in range(5):
            assert await made.call("kv/range", {}) == {}


async def test_a_refused_token_is_renewed_once_for_all_and_not_for_ever() -> None:
    refusal = answer({"error": "etcdserver: invalid auth token", "code": 16}, "401 Unauthorized")
    async with serving(refusal) as server, gateway(server.port, user="u") as made:
        made._token = "old"
        with pytest.raises(EtcdError, match="invalid auth token"):
            await made.call("kv/range", {})
    said = [request.split(b" ")[1] for request in server.requests]
    assert said == [b"/v3/kv/range", b"/v3/auth/authenticate"]
