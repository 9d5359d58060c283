"""Request smuggling: odd framings as raw bytes through the whole proxy, in front of a worker that records bytes.

Each is refused, or the worker sees exactly one request, in which no two parsers could see different ones. The cases are
those of the literature (RFC 9112 11.2, HTTP Garden, T-Reqs), among them all on which parsers in use disagree.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from fairway.proxy import Proxy

from .stage import HOST, exchange, proxy_for, raw_worker, until

FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n\0]*")
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection", b"expect"}
MARKER = b"GET /marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


class Recorder:
    """Reads requests by the letter of RFC 9112 and keeps them; what it cannot read is an assertion that fails later."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []  # (method and target, body)
        self.malformed: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *fields = head[:-4].split(b"\r\n")
            names = [field.partition(b":")[0].lower() for field in fields]
            values = dict(zip(names, (field.partition(b": ")[2] for field in fields), strict=True))
            framings = [name for name in names if name in (b"content-length", b"transfer-encoding")]
            if (
                not re.fullmatch(rb"[A-Z]+ /\S* HTTP/1\.1", line)
                or not all(FIELD.fullmatch(field) for field in fields)
                or len(framings) > 1
                or names.count(b"host") != 1
                or HOP_BY_HOP & set(names)
                or not re.fullmatch(rb"\d+", values.get(b"content-length", b"0"))
                or values.get(b"transfer-encoding", b"chunked") != b"chunked"
            ):
                self.malformed.append(head)
            body = b""
            if b"transfer-encoding" in values:
                while size := int(await reader.readuntil(b"\n"), 16):
                    body += await reader.readexactly(size)
                    assert await reader.readexactly(2) == b"\r\n"
                assert await reader.readexactly(2) == b"\r\n"
            else:
                body = await reader.readexactly(int(values.get(b"content-length", b"0")))
            self.requests.append((b" ".join(line.split()[:2]), body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: h\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"Connection: close\r\n\r\n" + body


CL, TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
LAST = b"0\r\n\r\n"

REFUSED: dict[str, tuple[bytes, set[int]]] = {
    "CL and TE": (post(CL, TE, body=LAST + SMUGGLED), {400}),
    "TE and CL": (post(TE, CL, body=LAST + SMUGGLED), {400}),
    "two CL that differ": (post(CL, b"Content-Length: 0", body=b"abcde"), {400}),
    "two CL that agree": (post(CL, CL, body=b"abcde"), {400}),
    "CL as a list": (post(b"Content-Length: 5, 5", body=b"abcde"), {400}),
    "CL with a sign": (post(b"Content-Length: +5", body=b"abcde"), {400}),
    "CL negative": (post(b"Content-Length: -5", body=b"abcde"), {400}),
    "CL empty": (post(b"Content-Length:", body=b"abcde"), {400}),
    "CL hexadecimal": (post(b"Content-Length: 0x5", body=b"abcde"), {400}),
    "CL beyond 64 bits": (post(b"Content-Length: 18446744073709551621", body=b"abcde"), {400}),
    "TE xchunked": (post(b"Transfer-Encoding: xchunked", body=CHUNKS), {400, 501}),
    "TE chunked, identity": (post(b"Transfer-Encoding: chunked, identity", body=CHUNKS), {400, 501}),
    "TE identity": (post(b"Transfer-Encoding: identity", body=CHUNKS), {400, 501}),
    "TE gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS), {501}),
    "TE twice": (post(TE, TE, body=CHUNKS), {400, 501}),
    "TE in HTTP/1.0": (post(TE, body=CHUNKS, line=b"POST /x HTTP/1.0"), {400}),
    "space before the colon": (post(b"Content-Length : 5", body=b"abcde"), {400}),
    "a folded field": (post(b"X-A: b\r\n Transfer-Encoding: chunked", body=CHUNKS), {400}),
    "a bare LF in the head": (post(b"X-A: b\nTransfer-Encoding: chunked", body=CHUNKS), {400}),
    "a bare CR in the head": (post(b"X-A: b\rTransfer-Encoding: chunked", body=CHUNKS), {400}),
    "NUL in a value": (post(b"X-A: b\0c"), {400}),
    "a control byte in a name": (post(b"X\x01A: b"), {400}),
    "LF within a chunk extension": (post(TE, body=b"3;a\nb\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk size 0x3": (post(TE, body=b"0x3\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk size with a space": (post(TE, body=b"3 \r\nabc\r\n0\r\n\r\n"), {400}),
    "chunk size beyond 64 bits": (post(TE, body=b"10000000000000003\r\nabc\r\n0\r\n\r\n"), {400}),
    "chunks ended by LF": (post(TE, body=b"3\nabc\n0\n\n"), {400}),
    "a chunk longer than it says": (post(TE, body=b"3\r\nabcd\r\n0\r\n\r\n"), {400}),
    "two Hosts": (post(host=b"Host: h\r\nHost: other\r\n"), {400}),
    "no Host": (post(host=b""), {400}),
    "HTTP/0.9": (post(line=b"GET /x HTTP/0.9"), {400, 505}),
    "HTTP/2.0": (post(line=b"GET /x HTTP/2.0"), {400, 505}),
    "Connection lists Content-Length": (post(CL, b"Connection: content-length", body=b"abcde"), {400}),
    "Connection lists Host": (post(b"Connection: X-A, host"), {400}),
    "CONNECT": (post(line=b"CONNECT elsewhere:443 HTTP/1.1"), {400}),
    "OPTIONS *": (post(line=b"OPTIONS * HTTP/1.1"), {400}),
    "a target that extends the worker's authority": (post(line=b"GET @elsewhere/ HTTP/1.1"), {400}),
    "200 fields": (post(*(b"X-%d: x" % i for i in range(200))), {431}),
    "a field of 64 KiB": (post(b"X-A: " + b"a" * 65536), {431}),
}

ACCEPTED: dict[str, tuple[bytes, bytes, bytes]] = {
    "CL": (post(CL, body=b"abcde"), b"POST /x", b"abcde"),
    "TE": (post(TE, body=CHUNKS), b"POST /x", b"abc"),
    "TE in capitals": (post(b"Transfer-Encoding: CHUNKED", body=CHUNKS), b"POST /x", b"abc"),
    "trailers, which are dropped": (post(TE, body=b"3\r\nabc\r\n0\r\nHost: other\r\n\r\n"), b"POST /x", b"abc"),
    "a body that looks like a request": (
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), b"POST /x", SMUGGLED,
    ),
    "GET with a body": (post(CL, line=b"GET /x HTTP/1.1", body=b"abcde"), b"GET /x", b"abcde"),
    "an empty line first": (b"\r\n" + post(CL, body=b"abcde"), b"POST /x", b"abcde"),
    "an absolute target": (post(CL, line=b"POST http://h/x HTTP/1.1", body=b"abcde"), b"POST /x", b"abcde"),
    "Upgrade with a body": (post(CL, b"Upgrade: h2c", body=b"abcde"), b"POST /x", b"abcde"),
    "Connection: Upgrade to a WebSocket": (
        post(b"Connection: Upgrade", b"Upgrade: websocket", line=b"GET /x HTTP/1.1"), b"GET /x", b"",
    ),
    "HTTP/1.0": (post(CL, body=b"abcde", line=b"POST /x HTTP/1.0", host=b"Host: h\r\n"), b"POST /x", b"abcde"),
}  # fmt: skip


async def outcome(proxy: Proxy, sent: bytes) -> int:
    """The status of the answer; all that follows it on the connection is read as well."""
    said = await exchange(proxy, sent)
    assert len(re.findall(rb"HTTP/\d\.\d \d{3} ", said)) == 1, said
    return int(said.split()[1])


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str) -> None:
    sent, statuses = REFUSED[name]
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward") as proxy:
        assert await outcome(proxy, sent) in statuses
        assert await outcome(proxy, MARKER) == 200
        assert recorder.requests == [(b"GET /marker", b"")]
        assert not recorder.malformed


@pytest.mark.parametrize("replay_bytes", [1_000_000, 1])
@pytest.mark.parametrize("name", ACCEPTED)
async def test_accepted_as_exactly_one_request(name: str, replay_bytes: int) -> None:
    sent, line, body = ACCEPTED[name]
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward", replay_bytes=replay_bytes) as proxy:
        assert await outcome(proxy, sent) == 200
        assert await outcome(proxy, MARKER) == 200
        assert recorder.requests == [(line, body), (b"GET /marker", b"")]
        assert not recorder.malformed


async def test_the_authority_of_an_absolute_target_wins_over_host() -> None:
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:
        await outcome(proxy, post(line=b"GET http://named/x HTTP/1.1", host=b"Host: other\r\n"))
        assert b"\r\nHost: named\r\n" in heads[0]
        assert b"other" not in heads[0]


async def test_bad_chunks_in_a_streamed_upload_break_it_off_at_the_worker() -> None:
    """The head has gone to the worker already; it must not take what came so far for the whole."""
    recorder = Recorder()
    settings: dict[str, Any] = {"mode": "forward", "replay_bytes": 1, "stall_seconds": 0.3}
    async with raw_worker(recorder) as address, proxy_for(address, **settings) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(post(TE, body=b"3\r\nabc\r\n"))
        pool = proxy.resolver.services()["classify"]
        await until(lambda: pool.upstreams[0].in_flight == 1)
        writer.write(b"0x3\r\nabc\r\n0\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert await outcome(proxy, MARKER) == 200
        assert recorder.requests == [(b"GET /marker", b"")]
        assert not any(pool.upstreams[0].failures.values())
