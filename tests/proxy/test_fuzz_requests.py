"""Requests at random: by a grammar with all its temptations, and the corpus with its bytes shaken."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.proxy import Proxy

from .corpus import HEADS
from .corpus_bodies import BODIES
from .recorder import Recorder
from .trial import SETTINGS, before_recorder, try_request

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a part of a message is tempted to be instead, by its kind.
TEMPTATIONS: dict[str, list[bytes]] = {
    "method": [b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"get", b"X", b"", b"G T", b"\r\nGET"],
    "target": [b"/", b"//h/x", b"*", b"x", b"http://h/x", b"http://u@h/", b"h:80", b"/x y", b"/\xff", b"/#f", b"/-/x"],
    "version": [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"", b"HTTP/1.1 ", b"RTSP/1.0", b"ICY"],
    "status": [b"204", b"304", b"100", b"103", b"101", b"500", b"20", b"2000", b"999", b"abc", b"503", b"429"],
    "blank": [b"", b"\t", b"  ", b"\x0b", b"\x0c", b"\xa0", b"\0", b"\r", b"\n", b"\r\n "],
    "end": [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"", b"\r\n\r\n", b"XX"],
    "colon": [b" :", b"", b"::", b":\r\n", b"=", b"\t:", b"\0:"],
    "name": [
        b"Content-Length", b"content-length", b"Content_Length", b"Transfer-Encoding", b"transfer-encoding", b"Connection",
        b"Host", b"Expect", b"Upgrade", b"TE", b"Trailer", b"X-A", b"Via", b"X-Forwarded-For", b"x_forwarded_for", b"",
        b" X-A", b"Transfer_Encoding", b"X A", b"X\xff", b"Keep-Alive",
    ],
    "value": [
        b"0", b"3", b"5", b"05", b"+5", b"-1", b"5,5", b"5, 5", b"0x5", b"5 5", b"chunked", b"Chunked", b"gzip, chunked",
        b"chunked, identity", b"chunked,", b"\x0bchunked", b"identity", b"close", b"keep-alive", b"upgrade", b"websocket",
        b"content-length", b"close, host", b"h", b"h, i", b"100-continue", b"a\rb", b"a\nb", b"a\0b", b"\xb2", b"", b"1_0",
        b"18446744073709551621",
    ],
    "size": [b"03", b"0", b"a", b"A", b"0x3", b"+3", b"3 ", b" 3", b"3;a=b", b'3;"\r', b"", b"g", b"f" * 17, b"4", b"2"],
    "data": [b"ab", b"abcd", b"", b"abc\r\n0\r\n\r\n", b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n"],
}  # fmt: skip
Part = tuple[str, bytes]


def field(name: bytes, value: bytes) -> list[Part]:
    return [("name", name), ("colon", b":"), ("blank", b" "), ("value", value), ("end", b"\r\n")]


FRAMINGS: list[tuple[list[Part], list[Part]]] = [
    ([], []),
    (field(b"Content-Length", b"5"), [("data", b"abcde")]),
    (field(b"Content-Length", b"0"), []),
    (
        field(b"Transfer-Encoding", b"chunked"),
        [("size", b"3"), ("end", b"\r\n"), ("data", b"abc"), ("end", b"\r\n")] * 2
        + [("size", b"0"), ("end", b"\r\n"), ("end", b"\r\n")],
    ),
]


@st.composite
def tempted(draw: st.DrawFn, line: list[Part], usual: list[Part]) -> bytes:
    """A good message, with a field more or two, and at the most three of its parts otherwise."""
    fields, body = draw(st.sampled_from(FRAMINGS))
    more = draw(st.lists(st.tuples(*(st.sampled_from(TEMPTATIONS[kind]) for kind in ("name", "value"))), max_size=2))
    parts = [*line, ("end", b"\r\n"), *usual, *fields]
    for name, value in more:
        parts += field(name, value)
    parts += [("end", b"\r\n"), *body]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(parts) - 1))
        kind = parts[at][0]
        parts[at] = kind, draw(st.one_of(st.sampled_from(TEMPTATIONS[kind]), st.binary(max_size=3)))
    return b"".join(part for _, part in parts)


def requests() -> st.SearchStrategy[bytes]:
    lines = [
        [("method", method), ("blank", b" "), ("target", b"/x"), ("blank", b" "), ("version", b"HTTP/1.1")]
        for method in (b"GET", b"POST")
    ]
    return st.sampled_from(lines).flatmap(lambda line: tempted(line, field(b"Host", b"h")))


@st.composite
def shaken(draw: st.DrawFn) -> bytes:
    """A case of the corpus, and a few of its bytes gone, doubled or otherwise."""
    names = [name for name, case in {**HEADS, **BODIES}.items() if len(case.sent) < 1000]
    sent = {**HEADS, **BODIES}[draw(st.sampled_from(names))].sent
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(sent)))
        by = draw(st.sampled_from([0, 1, 2]))
        new = draw(
            st.one_of(
                st.binary(max_size=2), st.sampled_from([b"\r\n", b"\n", b" ", b":", b",", b"0", sent[at : at + 9]])
            )
        )
        sent = sent[:at] + new + sent[at + by :]
    return sent


STREAMS = st.lists(st.one_of(requests(), requests(), requests(), shaken()), min_size=1, max_size=3).map(b"".join)
CUTS = st.lists(st.integers(1, 400), max_size=6)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=range(len(SETTINGS)))
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Proxy, Recorder]]:
    async with before_recorder(**SETTINGS[request.param]) as found:
        yield found


@given(data=STREAMS, cuts=CUTS)
@settings(
    max_examples=int(os.environ.get("FAIRWAY_TEST_EXAMPLES", 300)),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
async def test_the_worker_sees_what_a_strict_reader_reads(
    stage: tuple[Proxy, Recorder], data: bytes, cuts: list[int]
) -> None:
    await try_request(*stage, data, cuts)
