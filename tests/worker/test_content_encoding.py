"""gzip and deflate, taken off within a limit: beside the library's own, and against what promises too much."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.errors import BadRequest, TooLarge
from fairway.worker.wire.content_encoding import CODINGS, MAX_MEMBERS, decode


@given(st.binary(max_size=5000), st.integers(0, 9))
def test_what_was_packed_comes_out(data: bytes, level: int) -> None:
    bare = zlib.compressobj(level, wbits=-15)
    assert decode(gzip.compress(data, level), "gzip", 5000) == data
    assert decode(zlib.compress(data, level), "deflate", 5000) == data
    assert decode(bare.compress(data) + bare.flush(), "deflate", 5000) == data
    with pytest.raises(TooLarge):
        decode(gzip.compress(data + b"x", level), "gzip", len(data))


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="more than 1000000 bytes once gzip"):
        decode(bomb, "gzip", 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_members_without_end_are_given_up() -> None:
    began = time.process_time()
    with pytest.raises(BadRequest):
        decode(gzip.compress(b"") * (MAX_MEMBERS + 1), "gzip", 1000)
    assert time.process_time() - began < 2


@given(st.binary(max_size=300), st.sampled_from(CODINGS))
def test_nothing_else_is_raised(data: bytes, coding: str) -> None:
    try:
        assert len(decode(data, coding, 200)) <= 300
    except (BadRequest, TooLarge):
        pass
