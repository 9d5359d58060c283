"""Answers at random: the client gets what a strict reader reads in them, or hears that there was none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.proxy import Proxy

from .test_fuzz_requests import CUTS, Part, field, tempted
from .trial import SETTINGS, Speaker, before_speaker, try_answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINE: list[Part] = [
    ("version", b"HTTP/1.1"), ("blank", b" "), ("status", b"200"), ("blank", b" "), ("data", b"OK"),
]  # fmt: skip
WORDS = st.lists(tempted(LINE, field(b"X-A", b"b")), min_size=1, max_size=3).map(b"".join)


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
