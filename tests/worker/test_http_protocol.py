"""HTTP itself at the worker's door: framing, limits, codings, early answers, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from fairway.worker.listeners.http import protocol
from fairway.worker.listeners.http.head import MAX_FIELDS, MAX_HEAD, MAX_TARGET
from fairway.worker.wire import timing

from .door import LIMIT, PATIENCE, RED, Door, answer, head

UPLOAD = head(Content_Length=len(RED)) + RED


def line(first: str, *fields: str) -> bytes:
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1")


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await reader.read() == b""


# -- what is no request ---------------------------------------------------------------------------------------------

POST = "POST / HTTP/1.1"
MALFORMED = [
    (line(POST, "Host: w", "Content-Length: 3", "Transfer-Encoding: chunked"), 400, "Content-Length"),
    (line(POST, "Host: w", "Content-Length: 3", "Content-Length: 4"), 400, "Content-Length"),
    (line(POST, "Host: w", "Content-Length: 3, 3"), 400, "Content-Length"),
    (line(POST, "Host: w", "Content-Length: +3"), 400, "Content-Length"),
    (line(POST, "Host: w", "Content-Length: 99999999999999999999999"), 400, "Content-Length"),
    (line(POST, "Host: w", "Transfer-Encoding: xchunked"), 400, "Transfer-Encoding"),
    (line(POST, "Host: w", "Transfer-Encoding: gzip, chunked"), 501, "only chunked"),
    (line("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400, "needs HTTP/1.1"),
    (line(POST, "Host: w", "A: b", " folded"), 400, "whitespace"),
    (line(POST, "Host: w", "A: b\0c"), 400, "header value"),
    (line(POST, "Host: w", "A : b"), 400, "header token"),
    (line(POST, "Host: w", "A: b\nB: c"), 400, "CR"),
    (line(POST, "Host: w", "A: b\rB: c"), 400, "LF"),
    (line(POST), 400, "Host"),
    (line(POST, "Host: a", "Host: b"), 400, "Host"),
    (line("GET /healthz HTTP/2.0", "Host: w"), 505, "only HTTP/1.1"),
    (line("GET /healthz"), 505, "only HTTP/1.1"),
    (line("GET /healthz HTTP/1.3", "Host: w"), 400, "version"),
    (line("get /healthz HTTP/1.1", "Host: w"), 400, "method"),
    (line("GET healthz HTTP/1.1", "Host: w"), 400, "malformed"),
    (line("GET /\xe4 HTTP/1.1", "Host: w"), 400, "percent-encoded"),
    (line("GET /#a HTTP/1.1", "Host: w"), 400, "fragment"),
    (line("CONNECT w:80 HTTP/1.1", "Host: w"), 400, "must be a path"),
    (line(f"GET /{'a' * MAX_TARGET} HTTP/1.1", "Host: w"), 414, "at most 8192"),
    (line("GET / HTTP/1.1", "Host: w", *["A: b"] * MAX_FIELDS), 431, "fields"),
    (line("GET / HTTP/1.1", "Host: w", "A: " + "b" * MAX_HEAD), 431, "larger than"),
    (b"A" * (MAX_HEAD + 1), 431, "larger than"),
    (b"\r\n\r\n\r\n\r\n", 400, "no request line"),
    (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, "malformed"),
]


@pytest.mark.parametrize(
    ("raw", "status", "text"), MALFORMED, ids=[f"{m[1]} {m[2]} {i}" for i, m in enumerate(MALFORMED)]
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(
    warm: Door, raw: bytes, status: int, text: str
) -> None:
    reader, writer = await warm.raw(raw + b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n")  # smuggled, if we go on
    got, headers, body = await answer(reader)
    assert (got, headers["connection"], list(body)) == (status, "close", ["error"]), body
    assert text in body["error"]
    assert await ended(reader)
    writer.close()
    await warm.is_well()


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\nGET /healthz HTTP/1.1\r\nHost: w\r\n\r\n",
        line("GET http://w/healthz HTTP/1.1", "Host: w"),
        line("GET /healthz?x=1 HTTP/1.1", "Host: w"),
        line("GET /healthz HTTP/1.1", "Host: w", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
        line("GET /healthz HTTP/1.1", "Host: w", "A: \xe4"),
        line("GET /healthz HTTP/1.1", "Host:", *["A: b"] * (MAX_FIELDS - 1)),
    ],
    ids=["an empty line before", "absolute", "query", "another protocol offered", "latin-1", "many fields"],
)
async def test_what_is_odd_and_still_a_request(warm: Door, raw: bytes) -> None:
    reader, writer = await warm.raw(raw * 2)
    for _ in range(2):
        status, headers, body = await answer(reader)
        assert (status, headers.get("connection"), body) == (200, None, {"status": "ok"})
    writer.close()


# -- bodies ---------------------------------------------------------------------------------------------------------


async def test_a_request_may_come_byte_by_byte(warm: Door) -> None:
    reader, writer = await warm.raw(b"")
    for at in range(len(UPLOAD)):
        writer.write(UPLOAD[at : at + 1])
        await writer.drain()
        await asyncio.sleep(0)
    assert (await answer(reader))[2][0][0] == "red"
    writer.close()


async def test_chunks_of_any_size(warm: Door) -> None:
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, byte) for byte in RED) + b"0\r\nTrailer: x\r\n\r\n"
    reader, writer = await warm.raw(head(Transfer_Encoding="chunked") + chunks)
    assert (await answer(reader))[2][0][0] == "red"
    writer.write(UPLOAD)  # the connection goes on
    assert (await answer(reader))[2][0][0] == "red"
    writer.close()


async def test_what_is_pipelined_behind_chunks_is_not_mistaken(warm: Door) -> None:
    """The parser does not say where a chunked body ended: the connection ends with the answer."""
    chunked = head(Transfer_Encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(RED), RED)
    reader, writer = await warm.raw(chunked + head("GET", "/healthz"))
    status, headers, body = await answer(reader)
    assert (status, body[0][0], headers["connection"]) == (200, "red", "close")
    assert await ended(reader)
    writer.close()


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n", b"5\r\nabcdefg\r\n", b"-1\r\n", b"fffffffffffffffffff\r\n", b"1\nx\n0\n\n"],
    ids=["no size", "longer than it says", "negative", "overflow", "bare LF"],
)
async def test_broken_chunks(warm: Door, chunks: bytes) -> None:
    reader, writer = await warm.raw(head(Transfer_Encoding="chunked") + chunks)
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (400, "close")
    assert await ended(reader)
    writer.close()
    await warm.is_well()


async def test_trailers_without_end_are_not_collected(warm: Door) -> None:
    reader, writer = await warm.raw(head(Transfer_Encoding="chunked") + b"1\r\nx\r\n0\r\n")
    writer.write(b"A: " + b"b" * 2_000_000)
    status, _, body = await answer(reader)
    assert (status, "without end" in body["error"]) == (400, True)
    writer.close()
    await warm.is_well()


async def test_http_1_0(warm: Door) -> None:
    old = UPLOAD.replace(b"HTTP/1.1", b"HTTP/1.0")
    reader, writer = await warm.raw(old.replace(b"Host: w\r\n", b"Connection: keep-alive\r\n"))
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (200, "keep-alive")
    writer.write(old.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1))
    status, headers, _ = await answer(reader)  # it does not know 100 Continue, and is not told so
    assert (status, headers["connection"]) == (200, "close")
    assert await ended(reader)
    writer.close()


async def test_head_is_get_without_a_body(warm: Door) -> None:
    reader, writer = await warm.raw(head("HEAD", "/healthz"))
    async with asyncio.timeout(PATIENCE):
        said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 16\r\n" in said
    writer.write(UPLOAD)
    assert (await answer(reader))[0] == 200
    writer.close()


# -- Content-Encoding -----------------------------------------------------------------------------------------------


def bare(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(RED)),
        ("x-gzip", gzip.compress(RED)),
        ("GZIP", gzip.compress(RED[:50]) + gzip.compress(RED[50:])),
        ("deflate", zlib.compress(RED)),
        ("deflate", bare(RED)),
        ("identity", RED),
    ],
    ids=["gzip", "x-gzip", "two members", "deflate", "bare deflate", "identity"],
)
async def test_codings_are_taken_off(warm: Door, coding: str, body: bytes) -> None:
    status, pairs = await warm.send("POST", data=body, headers={"Content-Encoding": coding})
    assert (status, pairs[0][0]) == (200, "red")


@pytest.mark.parametrize(
    ("coding", "body", "status", "text"),
    [
        ("gzip", gzip.compress(bytes(LIMIT + 1)), 413, f"more than {LIMIT} bytes"),
        ("gzip", gzip.compress(bytes(50_000_000)), 413, f"more than {LIMIT} bytes"),
        ("gzip", gzip.compress(bytes(LIMIT // 2 + 1)) * 2, 413, f"more than {LIMIT} bytes"),
        ("deflate", zlib.compress(bytes(10**7)), 413, f"more than {LIMIT} bytes"),
        ("gzip", gzip.compress(RED)[:-9], 400, "cut off"),
        ("gzip", RED, 400, "not what Content-Encoding: gzip says"),
        ("gzip", gzip.compress(RED) + b"rest", 400, "not what"),
        ("deflate", zlib.compress(RED) + b"rest", 400, "more in the body"),
        ("gzip", b"", 400, "empty"),
        ("br", RED, 415, "expected gzip, deflate, or none"),
        ("gzip, gzip", RED, 415, "expected gzip, deflate, or none"),
    ],
)
async def test_codings_that_are_refused(warm: Door, coding: str, body: bytes, status: int, text: str) -> None:
    got, said = await warm.send("POST", data=body, headers={"Content-Encoding": coding})
    assert (got, text in said["error"]) == (status, True), said
    await warm.is_well()


# -- early answers --------------------------------------------------------------------------------------------------


async def test_a_small_refused_body_is_passed_over_and_the_connection_goes_on(warm: Door) -> None:
    refused = head("POST", "/nowhere", Content_Length=30_000) + bytes(30_000)
    reader, writer = await warm.raw(refused * 3 + UPLOAD)
    for _ in range(3):
        status, headers, _ = await answer(reader)
        assert (status, headers.get("connection")) == (404, None)
    assert (await answer(reader))[2][0][0] == "red"
    writer.close()


async def test_who_still_sends_a_large_body_gets_to_read_its_refusal(warm: Door) -> None:
    size = 6_000_000
    reader, writer = await warm.raw(head(Content_Length=size))
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (413, "close")
    writer.write(bytes(size))
    async with asyncio.timeout(PATIENCE):
        await writer.drain()  # it is taken, and thrown away
    writer.close()
    await warm.is_well()


async def test_who_never_stops_sending_is_cut_off(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 1_000_000)
    _, writer = await warm.raw(head(Content_Length=10**12))
    with pytest.raises(ConnectionError):  # noqa: PT012  whichever write is the first to notice
        async with asyncio.timeout(PATIENCE):
            while True:
                writer.write(bytes(100_000))
                await writer.drain()
    writer.close()
    await warm.is_well()


async def test_who_lingers_without_a_word_is_cut_off(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.05)
    reader, writer = await warm.raw(head(Content_Length=10**12))
    assert (await answer(reader))[0] == 413
    await warm.until(lambda: not warm.http.connections - {c for c in warm.http.connections if c.resting})
    writer.close()


async def test_who_sends_on_when_the_connection_ends_gets_to_read_its_answer(warm: Door) -> None:
    """A close with bytes unread would be a reset, and could overtake the answer."""
    warm.engine.draining = True
    reader, writer = await warm.raw(UPLOAD + head("GET", "/healthz") * 50_000)
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (200, "close")
    assert await ended(reader)
    writer.close()
    await writer.wait_closed()


# -- time -----------------------------------------------------------------------------------------------------------


async def test_a_head_that_does_not_end(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    reader, writer = await warm.raw(b"GET / HTTP/1.1\r\nHost: w\r\n")
    status, headers, body = await answer(reader)
    assert (status, headers["connection"], "did not come within" in body["error"]) == (408, "close", True)
    writer.close()


async def test_who_says_nothing_is_closed_without_a_word(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    reader, writer = await warm.raw(b"")
    assert await ended(reader)
    writer.close()


async def test_an_upload_that_drips_is_given_up(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and yet it would take for ever."""
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.3)
    reader, writer = await warm.raw(head(Content_Length=40_000))

    async def drip() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    status, _, body = await answer(reader)
    dripping.cancel()
    assert (status, "too slowly" in body["error"]) == (408, True)
    writer.close()
    await warm.is_well()


async def test_who_waits_too_long_is_told_so(warm: Door) -> None:
    warm.http.deadline_seconds = 0.1
    warm.model.gate.clear()
    reader, writer = await warm.raw(UPLOAD)
    assert (await answer(reader))[0] == 504
    warm.model.gate.set()
    warm.http.deadline_seconds = 30.0
    writer.write(UPLOAD)
    assert (await answer(reader))[0] == 200
    writer.close()
    await warm.is_well()


# -- order and room -------------------------------------------------------------------------------------------------


async def test_what_is_pipelined_waits_unread(warm: Door) -> None:
    """While one request is answered, at most one read of what follows is held."""
    warm.model.gate.clear()
    reader, writer = await warm.raw(UPLOAD)
    assert await asyncio.to_thread(warm.model.entered.wait, PATIENCE)
    more = 20_000_000 // len(UPLOAD)
    writer.write(UPLOAD * more)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await writer.drain()  # it does not go: nobody reads
    assert (warm.http.in_flight, warm.http.uploads) == (1, 1)
    warm.model.gate.set()
    for _ in range(30):
        assert (await answer(reader))[2][0][0] == "red"
    writer.transport.abort()
    await warm.is_well()


async def test_who_asks_without_end_keeps_nobody_waiting(warm: Door) -> None:
    flood = head("GET", "/healthz") * 5000
    _, writer = await warm.raw(flood)
    assert (await warm.send("POST", data=RED))[0] == 200
    writer.transport.abort()
    await warm.is_well()


async def test_who_does_not_read_is_not_answered_without_end(warm: Door) -> None:
    """Answers that nobody takes are not collected: no more requests are read."""
    _, writer = await warm.raw(b"")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    flood = head("GET", "/docs") * 1000
    sent = 0
    with pytest.raises(TimeoutError):  # noqa: PT012  it goes on until it does not
        async with asyncio.timeout(PATIENCE):
            while True:
                writer.write(flood)
                sent += len(flood)
                async with asyncio.timeout(0.5):
                    await writer.drain()
    assert sent < 20_000_000
    (busy,) = [connection for connection in warm.http.connections if not connection.resting]
    assert busy._transport.get_write_buffer_size() < 1_000_000
    writer.transport.abort()
    await warm.is_well()


async def test_an_answer_says_how_busy_we_are_and_where_its_time_went(warm: Door) -> None:
    reader, writer = await warm.raw(UPLOAD)
    _, headers, _ = await answer(reader)
    assert headers["endpoint-load-metrics"].startswith("TEXT named_metrics.in_flight=0, named_metrics.queue=0, ")
    spent = timing.decode(headers["server-timing"])
    assert list(spent) == ["queue", "decode", "infer", "encode"]
    assert 0 < sum(spent.values()) < PATIENCE
    writer.close()
