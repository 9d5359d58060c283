"""Answers at random: the client gets what a strict reader reads in them, or hears that there was none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.proxy import Proxy

from .test_fuzz_requests import BLANKS, CUTS, ENDS, VALUES, chunks
from .trial import SETTINGS, Speaker, before_speaker, try_answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERSIONS = st.sampled_from([b"HTTP/1.1"] * 9 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"ICY", b""])
STATUSES = st.sampled_from(
    [b"200"] * 9 + [b"204", b"304", b"100", b"103", b"101", b"500", b"20", b"2000", b"999", b"abc"]
)
NAMES = st.sampled_from(
    [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"X-A", b"Keep-Alive",
     b"Content-Length ", b" X-A", b"", b"Trailer", b"Via"]
)  # fmt: skip


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    line = (
        draw(VERSIONS)
        + b" "
        + draw(STATUSES)
        + draw(st.sampled_from([b" OK", b" ", b"", b" \xff", b" a\0"]))
        + draw(ENDS)
    )
    framing = draw(
        st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"])
    )
    field = st.builds(lambda *parts: b"".join(parts), NAMES, st.just(b":"), BLANKS, VALUES, ENDS)
    rest = b"".join(draw(st.lists(field, max_size=2)))
    body = draw(
        st.one_of(
            st.just(b""),
            st.just(b"hello"),
            st.just(b"3\r\nabc\r\n0\r\n\r\n"),
            st.lists(chunks(), max_size=3).map(b"".join).map(lambda body: body + b"0\r\n\r\n"),
            st.binary(max_size=8),
        )
    )
    return line + framing + rest + draw(ENDS) + body


WORDS = st.lists(replies(), min_size=1, max_size=3).map(b"".join)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[0, 2])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Proxy, Speaker]]:
    async with before_speaker(**SETTINGS[request.param]) as found:
        yield found


@given(data=WORDS, cuts=CUTS, method=st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]), ends=st.booleans())
@settings(
    max_examples=int(os.environ.get("FAIRWAY_TEST_EXAMPLES", 250)),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
async def test_the_client_gets_what_a_strict_reader_reads(
    stage: tuple[Proxy, Speaker], data: bytes, cuts: list[int], method: bytes, ends: bool
) -> None:
    await try_answer(*stage, data, cuts, method, ends)
