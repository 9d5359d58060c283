"""Workers that answer oddly, or mean harm: a client gets an answer that can be read in one way, or a clear 502.

What a worker says beyond its answer never reaches anybody else, and what breaks off is never taken for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from fairway.proxy import Proxy

from .letter import read_answers
from .recorder import Recorder, answers, bytewise, converse, final, problem, turns
from .stage import HOST, proxy_for, raw_worker, read_request, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
OK = b"HTTP/1.1 200 OK\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\nhello"


@dataclass(frozen=True)
class Case:
    """`wire`: the worker's words. `ends`: it closes then. `status`: what the client may get; 200 with `body`, and whole.

    `broken`: a 200 may have begun, but must not be whole.
    """

    wire: bytes
    status: frozenset[int] = frozenset({502})
    body: bytes = b"hello"
    ends: bool = False
    method: bytes = b"GET"
    broken: bool = False


def _whole(
    wire: bytes, status: int = 200, body: bytes = b"hello", *, ends: bool = False, method: bytes = b"GET"
) -> Case:
    return Case(wire, frozenset({status}), body, ends, method)


def _either(wire: bytes, body: bytes = b"hello", *, ends: bool = False) -> Case:
    return Case(wire, frozenset({200, 502}), body, ends)


def _broken(wire: bytes, *, ends: bool = False) -> Case:
    return Case(wire, frozenset({200, 502}), ends=ends, broken=True)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE: dict[str, Case] = {
    "a length": _whole(FIVE),
    "a length of nothing": _whole(OK + b"Content-Length: 0\r\n\r\n", body=b""),
    "chunks": _whole(CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "chunks with extensions": _whole(CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
    "chunks with trailers": _whole(CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n"),
    "chunks of nothing": _whole(CHUNKED + b"0\r\n\r\n", body=b""),
    "chunked in capitals": _whole(OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "up to the end": _whole(OK + b"\r\nhello", ends=True),
    "up to the end, of HTTP/1.0": _whole(b"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nhello", ends=True),
    "up to the end, a request in it": _whole(OK + b"\r\n" + POISON, body=POISON, ends=True),
    "nothing, up to the end": _whole(OK + b"\r\n", body=b"", ends=True),
    "HTTP/1.0 with a length": _whole(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    "a length, and the end": _whole(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", ends=True),
    "no reason": _whole(b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello"),
    "no reason, and no space": _either(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"),
    "a reason beyond ASCII": _either(b"HTTP/1.1 200 \xc3\xa9t\xe9\r\nContent-Length: 5\r\n\r\nhello"),
    "a status nobody knows": _whole(b"HTTP/1.1 299 Odd\r\nContent-Length: 5\r\n\r\nhello", 299),
    "500 is the worker's own": _whole(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhello", 500),
    "204": _whole(b"HTTP/1.1 204 None\r\n\r\n", 204, b""),
    "304 with a length": _whole(b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "HEAD with a length": _whole(OK + b"Content-Length: 5\r\n\r\n", body=b"", method=b"HEAD"),
    "HEAD with chunks": _whole(CHUNKED, body=b"", method=b"HEAD"),
    "HEAD with nothing": _whole(OK + b"\r\n", body=b"", method=b"HEAD"),
    "100 first": _whole(b"HTTP/1.1 100 Continue\r\n\r\n" + FIVE),
    "103 first": _whole(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + FIVE),
    "102, 103 and 100 first": _whole(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + FIVE
    ),
    "Connection lists Content-Length": _whole(
        OK + b"Connection: content-length, x-a\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "hop-by-hop fields": _whole(
        OK + b"Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nTE: x\r\nTrailer: x\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    ),
    "leading zeros": _either(OK + b"Content-Length: 0005\r\n\r\nhello"),
    "bytes above 127 in a value": _whole(OK + b"X-A: \xff\xc3\xa9\r\nContent-Length: 5\r\n\r\nhello"),
    "a head of 30 KB": _whole(OK + b"X-A: " + b"a" * 30_000 + b"\r\nContent-Length: 5\r\n\r\nhello"),
    "a head of 65 KB": _either(OK + b"X-A: " + b"a" * 66_000 + b"\r\nContent-Length: 5\r\n\r\nhello"),
    "1000 fields": _either(OK + b"X-A: b\r\n" * 1000 + b"Content-Length: 5\r\n\r\nhello"),
    "LF alone": _either(FIVE.replace(b"\r\n", b"\n"), ends=True),
    "an empty line first": _either(b"\r\n" + FIVE),
    "1xx with a length": _either(b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\n" + FIVE),
    "chunks in HTTP/1.0": _either(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
}  # fmt: skip

BAD: dict[str, Case] = {
    f"head {wire!r}": Case(wire)
    for wire in (
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", OK + b"Content-Length: 5, 5\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello", OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello", OK + b"Content-Length: 5 5\r\n\r\nhello",
        OK + b"Content-Length:\r\n\r\nhello", OK + b"Content-Length: \xb2\r\n\r\nhello",
        OK + b"Content-Length: 1_0\r\n\r\nhello", OK + b"Content-Length: five\r\n\r\nhello",
        OK + b"Content-Length: 18446744073709551621\r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello", OK + b"Content-Length : 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\n \r\n\r\nhello",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\nhello", OK + b"Transfer-Encoding: xchunked\r\n\r\nhello",
        OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"X-A: b\rSet-Cookie: c\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"X-A: b\0\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"X-A: b\nSet-Cookie: c\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", OK + b" X-A: b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"X A: b\r\nContent-Length: 5\r\n\r\nhello", OK + b": b\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"X-A\r\nContent-Length: 5\r\n\r\nhello", OK + b"X\xffA: b\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + FIVE,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + FIVE, b"HTTP/1.1 20 OK\r\n\r\nhello",
        b"HTTP/1.1 2000 OK\r\n\r\nhello", b"HTTP/1.1 099 OK\r\n\r\nhello", b"HTTP/1.1 abc OK\r\n\r\nhello",
        b"HTTP/1.1 -20 OK\r\n\r\nhello", b"HTTP/1.1\r\n\r\nhello", b"HTTP/1.1  200 OK\r\n\r\nhello",
        b"HTTP/1.1\t200\tOK\r\n\r\nhello", b"HTTP/1.1 200\0OK\r\n\r\nhello",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\nhello", b"HTTP/1.1 200 O\rK\r\n\r\nhello",
        b"HTTP/1.1 200 O\0K\r\n\r\nhello", b"HTTP/2.0 200 OK\r\n\r\nhello", b"HTTP/0.9 200 OK\r\n\r\nhello",
        b"HTTP/1.10 200 OK\r\n\r\nhello", b"http/1.1 200 OK\r\n\r\nhello", b"ICY 200 OK\r\n\r\nhello",
        b"RTSP/1.0 200 OK\r\n\r\nhello", b"SIP/2.0 200 OK\r\n\r\nhello", b"200 OK\r\n\r\nhello", b" " + FIVE,
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46\r\n\r\n",
        b"<html>hello</html>\r\n\r\n", b"\r\n\r\n",
    )
} | {
    "nothing, and the end": Case(b"", ends=True),
    "half a status line, and the end": Case(b"HTTP/1.1 2", ends=True),
    "half a head, and the end": Case(OK + b"Content-Length: 5\r\n", ends=True),
    "a head but its last byte, and the end": Case(OK + b"Content-Length: 5\r\n\r", ends=True),
    "100 and the end": Case(b"HTTP/1.1 100 Continue\r\n\r\n", ends=True),
    "a head of 300 KB": Case(OK + b"X-A: " + b"a" * 300_000 + b"\r\nContent-Length: 5\r\n\r\nhello"),
    "a head without an end": Case(OK + b"X-A: b\r\n" * 100_000),
    "500 answers that are none": Case(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500 + FIVE),
    "the beginning of an endless status line": Case(b"HTTP/1.1 200 " + b"a" * 300_000),
}  # fmt: skip

BROKEN: dict[str, Case] = {
    "a length that is not reached": _broken(OK + b"Content-Length: 50\r\n\r\nhello", ends=True),
    "a large length that is not reached": _broken(OK + b"Content-Length: 500000\r\n\r\n" + bytes(400_000), ends=True),
    "a length, and not a byte": _broken(OK + b"Content-Length: 5\r\n\r\n", ends=True),
    "chunks without the last": _broken(CHUNKED + b"5\r\nhello\r\n", ends=True),
    "half a chunk": _broken(CHUNKED + b"50\r\nhello", ends=True),
    "half a size": _broken(CHUNKED + b"5", ends=True),
    "no chunk at all": _broken(CHUNKED, ends=True),
    "a last chunk without its last line": _broken(CHUNKED + b"5\r\nhello\r\n0\r\n", ends=True),
    "a last chunk in the middle of its trailers": _broken(CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n", ends=True),
} | {
    f"chunks {wire!r}": _broken(CHUNKED + wire)
    for wire in (
        b"hello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n", b"5\nhello\n0\n\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5\0\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\nzz\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n" + POISON, b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    )
}  # fmt: skip

# Whole answers, and then more than was asked for.
LEFTOVER: dict[str, Case] = {
    "more than its length": _whole(FIVE + b"more"),
    "an answer more": _whole(FIVE + POISON),
    "the answer twice": _whole(FIVE * 2),
    "an answer behind chunks": _whole(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + POISON),
    "204 with a body": _whole(b"HTTP/1.1 204 None\r\n\r\n" + POISON, 204, b""),
    "204 with a length and a body": _whole(b"HTTP/1.1 204 None\r\nContent-Length: 43\r\n\r\n" + POISON, 204, b""),
    "304 with a body": _whole(b"HTTP/1.1 304 Same\r\nContent-Length: 43\r\n\r\n" + POISON, 304, b""),
    "304 with chunks": _whole(b"HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n2b\r\n" + POISON, 304, b""),
    "HEAD with a body": _whole(OK + b"Content-Length: 43\r\n\r\n" + POISON, body=b"", method=b"HEAD"),
    "HEAD with chunks of a body": _whole(CHUNKED + b"2b\r\n" + POISON + b"\r\n0\r\n\r\n", body=b"", method=b"HEAD"),
    "a length of nothing, and a body": _whole(OK + b"Content-Length: 0\r\n\r\n" + POISON, body=b""),
    "an interim answer more": _whole(FIVE + b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a line more": _whole(FIVE + b"\r\n"),
}  # fmt: skip


class Liar:
    """To /case it says `case.wire`, in `pieces`; to anything else its number. `later`: the last piece waits for `go`."""

    def __init__(self) -> None:
        self.case, self.pieces = Case(FIVE), [FIVE]
        self.later = False
        self.go, self.gone = asyncio.Event(), asyncio.Event()
        self.asked = 0

    def set(self, case: Case, pieces: Sequence[bytes], later: bool = False) -> None:
        self.case, self.pieces, self.later = case, list(pieces), later
        self.go, self.gone = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            self.asked += 1
            if head.split()[1] != b"/case":
                body = b"marker %d" % self.asked
                writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                continue
            for number, piece in enumerate(self.pieces):
                if number and self.later:
                    await self.go.wait()
                elif number:
                    await turns()
                writer.write(piece)
            await writer.drain()
            if self.later:
                self.gone.set()
            if self.case.ends:
                return


@dataclass
class Stage:
    proxy: Proxy
    liar: Liar

    async def ask(self, version: bytes = b"1.1") -> bytes:
        """All that the client gets for its request to /case, up to the end."""
        request = self.liar.case.method + b" /case HTTP/" + version + b"\r\nHost: h\r\nConnection: close\r\n\r\n"
        return await converse(self.proxy, [request])

    async def afterwards(self) -> None:
        """Two others ask, on connections of their own, and get their own answers."""
        for _ in range(2):
            before = self.liar.asked
            (answer,) = await answers(self.proxy, b"GET /marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert (answer.status, answer.body) == (200, b"marker %d" % (before + 1))


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["spliced", "copied"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    liar = Liar()
    async with (
        raw_worker(liar) as address,
        proxy_for(address, mode="forward", splice=request.param == "spliced", wait_seconds=0.01) as proxy,
    ):
        yield Stage(proxy, liar)


def judge(case: Case, came: bytes) -> None:
    """`came`: all that the client got. One final answer, as `case` allows, that every parser reads alike."""
    found, rest = read_answers(came, [case.method])
    interims, answer = [one for one in found if one.status < 200], next(iter(final(found)), None)
    assert len(final(found)) <= 1
    assert all(one.status in (102, 103) for one in interims)  # a 100 is the proxy's to say, and nobody asked for it
    if answer is None:
        assert case.broken, came[:500]
        return
    assert not rest
    assert answer.status in case.status
    if answer.status == 502 and 502 in case.status:
        assert problem(answer)
        return
    assert not case.broken, f"taken for the whole: {answer}"
    assert answer.body == (b"" if case.method == b"HEAD" else case.body)
    names = [name.lower() for name, _ in answer.fields]
    assert not {b"keep-alive", b"upgrade", b"proxy-connection", b"te", b"trailer", b"x-sum"} & set(names)
    assert b"via" in names


ALL = {**WHOLE, **BAD, **BROKEN, **LEFTOVER}


@pytest.mark.parametrize("name", ALL)
async def test_every_answer_is_whole_or_refused(stage: Stage, name: str) -> None:
    case = ALL[name]
    ways = [[case.wire], bytewise(case.wire)] if len(case.wire) < 400 else [[case.wire]]
    for pieces in ways:
        stage.liar.set(case, pieces)
        judge(case, await stage.ask())
        await stage.afterwards()


@pytest.mark.parametrize("name", [name for name in {**WHOLE, **BROKEN} if "up to the end" not in name])
async def test_http_1_0_gets_no_chunks(stage: Stage, name: str) -> None:
    case = ALL[name]
    stage.liar.set(case, [case.wire])
    came = await stage.ask(b"1.0") if not case.broken else b""
    found, rest = read_answers(came, [case.method])
    assert not rest
    assert len(found) <= 1  # no 1xx either
    for answer in found:
        assert answer.status in case.status
        assert not answer.all(b"transfer-encoding")
        assert answer.status == 502 or answer.body == (b"" if case.method == b"HEAD" else case.body)


@pytest.mark.parametrize("name", LEFTOVER)
async def test_what_is_left_over_reaches_nobody_however_late(stage: Stage, name: str) -> None:
    """The answer first; what is too much only when the client has its answer, and the connection was put to rest."""
    case = LEFTOVER[name]
    whole = case.wire.index(b"\r\n\r\n") + 4
    if case.method == b"GET" and case.body:
        whole = case.wire.index(b"0\r\n\r\n") + 5 if b"chunked" in case.wire else whole + len(case.body)
    stage.liar.set(case, [case.wire[:whole], case.wire[whole:]], later=True)
    came = await stage.ask()
    stage.liar.go.set()
    await stage.liar.gone.wait()
    judge(case, came)
    await turns()
    await stage.afterwards()


async def test_an_endless_head_is_given_up_by_the_deadline(stage: Stage) -> None:
    """One byte now and then is progress, but no answer."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + b"X-A: ")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    for script in (drip, hint):
        async with raw_worker(script) as address, proxy_for(address, mode="forward", deadline_seconds=0.4) as proxy:
            (answer,) = final(await answers(proxy, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", seconds=3))
            assert answer.status in (502, 504)
            assert problem(answer)


async def test_an_answer_that_stands_still_is_given_up(stage: Stage) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + b"Content-Length: 50\r\n\r\nhello")
        await reader.read()

    async with raw_worker(script) as address, proxy_for(address, mode="forward", stall_seconds=0.3) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(3):
            assert (await reader.readuntil(b"hello")).startswith(OK)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(45)
        writer.close()
        await until(lambda: not proxy.in_flight)


@pytest.mark.parametrize("size", [1000, 40_000, 300_000, 6_000_000])
@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
async def test_an_answer_before_the_upload_is_whole(size: int, framing: bytes) -> None:
    """The worker has heard enough, and keeps its connection: what was not sent of that body must not begin a request."""
    recorder, heads = Recorder(), 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        head = await reader.readuntil(b"\r\n\r\n")
        heads += 1
        if b"/early" not in head:
            writer.write(OK + b"Content-Length: 6\r\n\r\nmarker")
            return
        writer.write(OK + b"Content-Length: 5\r\n\r\nearly")
        # Then it reads what was owed, as a worker does that keeps its connections.
        whole = asyncio.StreamReader(limit=1 << 23)
        whole.feed_data(head)

        async def pump() -> None:
            try:
                while piece := await reader.read(4096):
                    whole.feed_data(piece)
            except ConnectionError:
                pass  # broken off, as it may be
            whole.feed_eof()

        pumping = asyncio.create_task(pump())
        await recorder(whole, writer)
        await pumping

    for replay_bytes in (1 << 23, 1 << 20, 1):
        recorder.forget()
        async with (
            raw_worker(script) as address,
            proxy_for(address, mode="forward", replay_bytes=replay_bytes) as proxy,
        ):
            line = framing % size if b"%" in framing else framing
            body = bytes(size) if b"%" in framing else b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
            head = b"POST /early HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n"
            found = final(
                await answers(proxy, head, body, b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            )
            assert (found[0].status, found[0].body) == (200, b"early")
            assert len(found) == 2 or b"close" in found[0].all(b"connection")
            (marker,) = await answers(proxy, b"GET /marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert marker.status == 200
            await until(lambda: not proxy.in_flight)
        assert not recorder.odd
        for message in recorder.requests:
            assert message.line[1] in (b"/early", b"/next", b"/marker")
            assert len(message.body) == (size if message.line[1] == b"/early" else 0)


async def test_the_cases_are_what_they_say() -> None:
    for name, case in WHOLE.items():
        if case.status == {200}:
            found, rest = read_answers(case.wire, [case.method])
            assert (rest, found[-1].body) == (b"", case.body), name
