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

BLANKS = st.sampled_from([b"", b" ", b" ", b" ", b"\t", b"  ", b"\x0b", b"\x0c", b"\xa0", b"\0", b"\r", b"\n"])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b""])
METHODS = st.sampled_from([b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"get", b"X"])
TARGETS = st.sampled_from(
    [
        b"/x",
        b"/x?y",
        b"/",
        b"//h/x",
        b"*",
        b"x",
        b"http://h/x",
        b"http://u@h/",
        b"h:80",
        b"/x y",
        b"/\xff",
        b"/#f",
        b"/-/x",
    ]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b""])
NAMES = st.sampled_from(
    [b"Content-Length", b"content-length", b"Content_Length", b"Transfer-Encoding", b"transfer-encoding", b"Connection",
     b"Host", b"Expect", b"Upgrade", b"TE", b"Trailer", b"X-A", b"Via", b"X-Forwarded-For", b"Content-Length ",
     b" X-A", b""]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [b"0", b"3", b"5", b"05", b"+5", b"-1", b"5,5", b"0x5", b"chunked", b"Chunked", b"gzip, chunked", b"chunked,",
         b"identity", b"close", b"keep-alive", b"upgrade", b"websocket", b"content-length", b"host", b"h", b"h, i",
         b"100-continue", b"trailers", b"a\rb", b"a\nb", b"a\0b", b"\xb2", b"18446744073709551621"]
    ),
    st.binary(max_size=6),
)  # fmt: skip
SIZES = st.sampled_from(
    [
        b"3",
        b"3",
        b"3",
        b"03",
        b"0",
        b"0",
        b"a",
        b"A",
        b"0x3",
        b"+3",
        b"3 ",
        b" 3",
        b"3;a=b",
        b'3;"\r',
        b"",
        b"g",
        b"f" * 17,
    ]
)


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    return draw(NAMES) + b":" + draw(BLANKS) + draw(VALUES) + draw(ENDS)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from([b"abc", b"abc", b"abc", b"ab", b"abcd", b""]))
    return draw(SIZES) + draw(ENDS) + data + draw(ENDS)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = draw(METHODS) + b" " + draw(TARGETS) + b" " + draw(VERSIONS) + draw(ENDS)
    host = draw(st.sampled_from([b"Host: h\r\n"] * 8 + [b"", b"Host: h\r\nHost: i\r\n"]))
    framing = draw(
        st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"])
    )
    rest = b"".join(draw(st.lists(fields(), max_size=3)))
    body = draw(
        st.one_of(
            st.just(b""),
            st.just(b"abcde"),
            st.just(b"3\r\nabc\r\n0\r\n\r\n"),
            st.lists(chunks(), max_size=3).map(b"".join).map(lambda body: body + b"0\r\n\r\n"),
            st.binary(max_size=8),
        )
    )
    return line + host + framing + rest + draw(ENDS) + body


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


STREAMS = st.lists(st.one_of(requests(), requests(), shaken()), min_size=1, max_size=3).map(b"".join)
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
