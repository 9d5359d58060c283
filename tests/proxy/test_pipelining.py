"""Several requests at once on one connection: answered in order, one at a time, and no more taken in than is worked on."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fairway.proxy import Proxy

from .letter import Message, read_answers
from .recorder import Recorder, answers, bytewise, final, problem, seams, split, turns
from .stage import HOST, proxy_for, raw_worker, read_request, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
END = b"GET /end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
MIXED = (
    b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"HEAD /3 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /4 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    b"\r\nPUT /5 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    b"POST /6 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    b"DELETE /7 HTTP/1.1\r\nHost: h\r\n\r\n" + END
)
METHODS = [b"GET", b"POST", b"HEAD", b"POST", b"PUT", b"POST", b"DELETE", b"GET"]
BODIES = [b"", b"hello", b"", b"abc", b"", b"hi", b"", b""]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[1 << 20, 1])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Proxy, Recorder]]:
    recorder = Recorder()
    async with (
        raw_worker(recorder) as address,
        proxy_for(address, mode="auto", replay_bytes=request.param) as proxy,
    ):
        yield proxy, recorder


Stage = tuple[Proxy, Recorder]


def in_order(found: list[Message], recorder: Recorder) -> None:
    """Each answer is the one to its request."""
    targets = [b"/end" if number == len(METHODS) - 1 else b"/%d" % (number + 1) for number in range(len(METHODS))]
    assert [message.request for message in recorder.requests] == [
        (method + b" " + target, body) for method, target, body in zip(METHODS, targets, BODIES, strict=True)
    ]
    assert [answer.body for answer in found] == [
        b"" if method == b"HEAD" else b"%d %s %s" % (number, method, target)
        for number, (method, target) in enumerate(zip(METHODS, targets, strict=True), 1)
    ]
    assert not recorder.odd


async def test_all_kinds_in_order(stage: Stage) -> None:
    proxy, recorder = stage
    dice = random.Random(1)
    cut = seams(MIXED)
    ways = [[MIXED], bytewise(MIXED), split(MIXED, *cut)]
    ways += [split(MIXED, *dice.sample(range(len(MIXED)), 20)) for _ in range(20)]
    for pieces in ways:
        recorder.forget()
        in_order(final(await answers(proxy, *pieces, methods=METHODS)), recorder)


async def test_cut_at_every_place(stage: Stage) -> None:
    proxy, recorder = stage
    for at in range(1, len(MIXED)):
        recorder.forget()
        in_order(final(await answers(proxy, MIXED[:at], MIXED[at:], methods=METHODS)), recorder)


async def test_a_thousand_at_once(stage: Stage) -> None:
    proxy, recorder = stage
    recorder.forget()
    found = await answers(proxy, b"".join(GET % number for number in range(1, 1001)) + END)
    assert [answer.body for answer in found[:-1]] == [b"%d GET /%d" % (number, number) for number in range(1, 1001)]
    assert not recorder.odd


async def test_the_proxys_own_pages_take_their_turn(stage: Stage) -> None:
    proxy, recorder = stage
    recorder.forget()
    address = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    health = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    sent = GET % 1 + address + health + address + GET % 2 + health + END
    for pieces in ([sent], bytewise(sent)):
        recorder.forget()
        found = await answers(proxy, *pieces)
        assert [answer.status for answer in found] == [200] * 7
        assert [found[at].body for at in (0, 4, 6)] == [b"1 GET /1", b"2 GET /2", b"3 GET /end"]
        assert found[1].body == found[3].body
        assert b"127.0.0.1:" in found[1].body
        assert b"status" in found[2].body


@pytest.mark.parametrize(
    "bad",
    [
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET /x HTTP/9.9\r\nHost: h\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nContent-Length: 5\r\n\r\nhello",
        b"junk\r\n\r\n",
    ],
)
async def test_nothing_is_read_behind_an_error(stage: Stage, bad: bytes) -> None:
    proxy, recorder = stage
    for pieces in ([GET % 1 + bad + GET % 2 + END], bytewise(GET % 1 + bad + GET % 2 + END)):
        recorder.forget()
        first, error = final(await answers(proxy, *pieces))
        assert first.body == b"1 GET /1"
        assert error.status >= 400
        assert problem(error)
        await until(lambda: not recorder.open)
        assert recorder.seen == [(b"GET /1", b"")]


async def test_one_at_a_time_in_order_and_bounded() -> None:
    """While the first is worked on nobody asks the worker for the second, and the rest waits where it came from."""
    asked, release = 0, asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            head, _ = await read_request(reader)
            asked += 1
            await release.wait()
            target = head.split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(GET % 1)
        await until(lambda: asked == 1)
        taken, many = 0, GET % 2 * 2000
        while writer.transport.get_write_buffer_size() < 100_000 and taken < 100_000_000:
            writer.write(many)
            taken += len(many)
            await turns()
        assert taken < 20_000_000  # what the kernel's buffers hold, and little more
        assert asked == 1
        assert proxy.in_flight == 1
        release.set()
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n/1")).startswith(b"HTTP/1.1 200 ")
            assert (await reader.readuntil(b"\r\n\r\n/2")).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()
        await until(lambda: not proxy.in_flight)
        writer.close()


async def test_who_does_not_read_is_not_worked_for() -> None:
    """Answers that are not taken hold up the requests behind them: nothing grows."""
    asked = 0
    body = bytes(300_000)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await read_request(reader)
            asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async with raw_worker(script) as address, proxy_for(address, mode="forward", stall_seconds=0.4) as proxy:
        _, writer = await asyncio.open_connection(HOST, proxy.port, limit=1000)
        writer.write(GET % 1 * 500)
        await until(lambda: not proxy.in_flight and asked > 0, seconds=10)  # it is given up, in the end
        assert asked < 100
        writer.transport.abort()
        writer.close()


@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/x"])
async def test_who_reads_late_gets_all_of_them(path: bytes) -> None:
    """Answers wait when the client's buffers are full, the proxy's own too; none is lost, and nobody is thrown out."""
    recorder = Recorder()
    asked = b"GET %s HTTP/1.1\r\nHost: " % path
    asked += b"h" * (32 - (len(asked) + 4) % 32) + b"\r\n\r\n"  # so that reads end where requests do
    async with raw_worker(recorder) as address, proxy_for(address) as proxy:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (HOST, proxy.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        count = 60_000 if path == b"/" else 3000
        writer.write(asked * count)
        writer.write(END)
        before = -1
        while before != (before := sum(connection.requests for connection in proxy.connections)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        came = bytearray()
        async with asyncio.timeout(30):
            while piece := await reader.read(1500):
                came += piece
        writer.close()
        found, rest = read_answers(bytes(came))
        assert (len(found), rest) == (count + 1, b"")
        assert {answer.status for answer in found} == {200}
        assert found[-1].body.endswith(b" GET /end")


async def test_a_client_that_leaves_in_the_middle() -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward") as proxy:
        for count in (1, 2, 50):
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(b"".join(GET % number for number in range(1, 101)))
            for _ in range(count):
                await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            writer.close()
            await until(lambda: not proxy.in_flight)
        assert not recorder.odd
        (answer,) = await answers(proxy, END)
        assert answer.status == 200


async def test_requests_behind_an_upgrade_that_was_not_granted() -> None:
    """They are requests; behind one that was, they are bytes of the tunnel (test_tunnels.py)."""
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward") as proxy:
        ask = (
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        recorder.upgrades = True
        found = await answers(proxy, ask + GET % 2 + END)
        assert [answer.body for answer in found] == [b"1 GET /ws", b"2 GET /2", b"3 GET /end"]
        assert not recorder.odd
