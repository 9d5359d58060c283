"""Random requests, split anywhere and broken in random places, against a real server: an answer or an end, never a hang."""

from __future__ import annotations

import asyncio
import gzip
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.worker.listeners.http import protocol
from fairway.worker.listeners.http.head import MAX_HEAD
from fairway.worker.wire import multipart

from .door import LIMIT, RED, Door, head

FORM, FORM_TYPE = multipart.encode({"data": ("x.png", RED)}, "bOuNdArY")
CHUNKED = head(Transfer_Encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(RED), RED)
WHOLE = [
    head(Content_Length=len(RED)) + RED,
    head(Content_Type=FORM_TYPE, Content_Length=len(FORM)) + FORM,
    head(Content_Length=len(RED), Expect="100-continue") + RED,
    head(Content_Encoding="gzip", Content_Length=len(gzip.compress(RED))) + gzip.compress(RED),
    CHUNKED,
    head("GET", "/healthz"),
    head("HEAD", "/models"),
    head("POST", "/v1/models/colours:predict", Content_Length=18) + b'{"instances": [1]}',
    head("POST", "/nowhere", Content_Length=400) + bytes(400),
    head(Content_Length=LIMIT + 1) + bytes(1000),
    head("GET", "/healthz").replace(b"1.1", b"1.0"),
]
TEMPTATIONS = [
    b"\r\n", b"\n", b"\0", b"\r\n\r\n", b" ", b":", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n", b"ffffffff\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"--bOuNdArY",
    b"GET / HTTP/1.1\r\n",
]  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What a client sends, in the pieces it sends it."""
    data = b"".join(draw(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=4)))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 3))):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(4)
        more = chance.choice(TEMPTATIONS) if kind else chance.randbytes(chance.randrange(1, 9))
        data = data[:at] + more + data[at + (chance.randrange(12) if kind > 1 else 0) :]
    if draw(st.booleans()):
        data = data[: chance.randrange(len(data) + 1)]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(draw(st.integers(0, 6))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def said(door: Door, pieces: list[bytes], leaves: bool) -> None:
    """Says all of it; either leaves, or says that it is through, and hears all that comes."""
    reader, writer = await door.raw(b"")
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if leaves:
            writer.transport.abort()
            return
        heard = await reader.read()  # it ends: what was cut off is given up after STALL_SECONDS, or HEAD_SECONDS
        assert not heard or heard.startswith(b"HTTP/1.1 ")
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
async def test_whatever_is_sent(warm: Door, monkeypatch: pytest.MonkeyPatch, leaves: bool) -> None:
    for name in ("HEAD_SECONDS", "STALL_SECONDS", "KEEP_ALIVE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.05)
    loop = asyncio.get_running_loop()
    found: list[list[bytes]] = []

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(conversations())
    def collect(pieces: list[bytes]) -> None:
        found.append(pieces)

    collect()
    for at in range(0, len(found), 25):  # some at once: what one does is no other's
        async with asyncio.timeout(15):
            await asyncio.gather(*(said(warm, pieces, leaves) for pieces in found[at : at + 25]))
        if leaves:
            await warm.until(lambda: not warm.http.connections)
        async with asyncio.timeout(5):
            await warm.http.idle()
        assert (warm.http.in_flight, warm.http.uploads, warm.engine.waiting) == (0, 0, 0)
    assert loop.is_running()
    await warm.is_well()
    assert all(connection.resting for connection in warm.http.connections)


async def test_memory_is_bounded(warm: Door) -> None:
    """However much is sent, what connections hold is bounded: a head, one read, one body within the limit."""
    flood = [
        head(Transfer_Encoding="chunked") + (b"1\r\nx\r\n" * 100_000),
        b"GET / HTTP/1.1\r\nA: " + b"a" * 1_000_000,
        head("GET", "/healthz") * 20_000,
        head(Content_Length=LIMIT) + bytes(LIMIT) + bytes(1_000_000),
    ]
    writers = []
    for data in flood * 4:
        _, writer = await warm.raw(b"")
        writer.write(data)
        writers.append(writer)

    def answered() -> bool:
        for connection in warm.http.connections:
            held = len(connection._partial) + len(connection._held) + connection._body.tell()
            assert held <= LIMIT + len(warm.http.buffer) + MAX_HEAD
        return warm.http.answers.total() >= len(writers)

    await warm.until(answered)
    for writer in writers:
        writer.transport.abort()
    await warm.until(lambda: not warm.http.connections)
    await warm.is_well()
