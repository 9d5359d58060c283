"""Request smuggling: the corpus as raw bytes through the whole proxy, in front of a worker that keeps every byte.

Each case goes at once, byte by byte or cut at every seam, alone and behind another request on its connection, past large
and small replay windows, with and without the kernel moving bodies. Behind each waits a request that must be answered
if the case was accepted, and must never be seen if it was refused.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from fairway.proxy import Proxy

from .corpus import CHUNKS, HEADS, SMUGGLED, TE, Case, request
from .corpus_bodies import BODIES, LARGE
from .letter import read_request
from .recorder import Recorder, answers, bytewise, final, problem, says_close, seams, split
from .stage import proxy_for, raw_worker, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Seen = tuple[bytes, bytes]  # method and target, body

MARKER = b"GET /marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
SEEN_MARKER = (b"GET /marker", b"")
SEEN_SMUGGLED = (b"GET /smuggled", b"")
BEFORE: list[tuple[bytes, list[Seen]]] = [
    (b"", []),
    (b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", [(b"GET /a", b"")]),
    (request(TE, line=b"POST /b HTTP/1.1", body=CHUNKS), [(b"POST /b", b"abc")]),
]
MAX_BODY = 900_000
WINDOWS: dict[str, dict[str, Any]] = {
    "held, spliced": {"replay_bytes": 1 << 20, "splice": True},
    "streamed, spliced": {"replay_bytes": 1, "splice": True},
    "held, copied": {"replay_bytes": 1 << 20, "splice": False},
    "streamed, copied": {"replay_bytes": 1, "splice": False},
}


@dataclass
class Stage:
    proxy: Proxy
    recorder: Recorder


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=WINDOWS)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    recorder = Recorder()
    async with (
        raw_worker(recorder) as address,
        proxy_for(address, mode="forward", max_body=MAX_BODY, **WINDOWS[request.param]) as proxy,
    ):
        yield Stage(proxy, recorder)


async def refused_or_one(stage: Stage, case: Case, pieces: list[bytes], before: Sequence[Seen] = ()) -> None:
    """`pieces`: what comes before, the case, and behind(case)."""
    stage.recorder.forget()
    found = final(await answers(stage.proxy, *pieces))
    answer, expected = found[len(before)], list(before)
    own = dict(enumerate(found))  # the worker's answers; the proxy's own are taken out
    if answer.status == 200 and case.seen is not None:
        expected += [case.seen, SEEN_MARKER]
    else:
        assert answer.status in case.refused
        assert 200 <= answer.status < 300 or problem(answer)
        del own[len(before)]
        if not says_close(answer):  # then nobody could be in doubt where it ended, and what follows is a request
            assert (whole := read_request(case.sent)) is not None
            assert whole.size == len(case.sent)
            expected += [seen for seen in (SEEN_SMUGGLED, SEEN_MARKER) if case.seen is None or seen is SEEN_MARKER]
        if case.begun:
            await until(lambda: not stage.recorder.open)  # what the worker saw the beginning of was broken off
    assert stage.recorder.seen == expected
    assert not stage.recorder.odd
    assert [said.body for said in own.values()] == [
        b"" if line.startswith(b"HEAD") else b"%d %s" % (number, line) for number, (line, _) in enumerate(expected, 1)
    ]
    await afterwards(stage)


async def afterwards(stage: Stage) -> None:
    """Nothing was left behind that another client's request could become a part of."""
    count = len(stage.recorder.requests)
    (answer,) = await answers(stage.proxy, MARKER)
    assert answer.body == b"%d GET /marker" % (count + 1)
    assert stage.recorder.seen[count:] == [SEEN_MARKER]
    assert not stage.recorder.odd


def behind(case: Case) -> bytes:
    """What follows the case on its connection. A refused one may have been read as HTTP/1.0, or as its last."""
    return MARKER if case.seen is not None else SMUGGLED + MARKER


HTTP10 = {name: case for name, case in {**HEADS, **BODIES}.items() if case.seen and b"HTTP/1.0\r\n" in case.sent}
# What is refused from its head alone knows no window.
MATRIX = [
    pytest.param(window, case, id=f"{window}-{name}")
    for window in WINDOWS
    for name, case in {**HEADS, **BODIES}.items()
    if name not in HTTP10 and (name in BODIES or window in ("held, spliced", "streamed, copied"))
]


@pytest.mark.parametrize(("stage", "case"), MATRIX, indirect=["stage"], scope="module")
async def test_at_once(stage: Stage, case: Case) -> None:
    for sent, before in BEFORE:
        await refused_or_one(stage, case, [sent + case.sent + behind(case)], before)


@pytest.mark.parametrize(("stage", "case"), MATRIX, indirect=["stage"], scope="module")
async def test_in_pieces(stage: Stage, case: Case) -> None:
    """Byte by byte where it is short; at many seams where it is not."""
    sent = case.sent + behind(case)
    cut = seams(sent)
    pieces = bytewise(sent) if len(sent) < 400 else split(sent, *random.Random(1).sample(cut, min(len(cut), 100)))
    await refused_or_one(stage, case, pieces)


@pytest.mark.parametrize("name", LARGE)
async def test_large_bodies_end_where_they_say(stage: Stage, name: str) -> None:
    case, (sent, before) = LARGE[name], BEFORE[1]
    if len(case.seen[1] if case.seen else b"") > MAX_BODY:
        case = Case(case.sent, frozenset({413}), begun=True)
    whole, dice = case.sent + behind(case), random.Random(1)
    await refused_or_one(stage, case, [whole])
    await refused_or_one(stage, case, [sent + whole], before)
    for _ in range(3):
        await refused_or_one(stage, case, split(whole, *dice.sample(range(len(whole)), 12)))
    end = len(case.sent)
    for at in (end - 1, end, end + 1):  # the body's last byte with, and without, the next request's first
        await refused_or_one(stage, case, split(whole, at))


@pytest.mark.parametrize("name", HTTP10)
async def test_http_1_0_ends_with_its_answer(stage: Stage, name: str) -> None:
    """Without `keep-alive` an HTTP/1.0 client means one request: what follows is none."""
    case = HTTP10[name]
    for pieces in ([case.sent + SMUGGLED], bytewise(case.sent + SMUGGLED)):
        stage.recorder.forget()
        (answer,) = await answers(stage.proxy, *pieces)  # not one of them a 100, which HTTP/1.0 does not know
        assert answer.body == b"1 POST /x"
        assert stage.recorder.seen == [case.seen]
        assert not stage.recorder.odd
        await afterwards(stage)


async def test_early_data_behind_the_last_request_is_none(stage: Stage) -> None:
    last = request(b"Content-Length: 5", b"Connection: close", body=b"abcde")
    for pieces in ([last + SMUGGLED], [last, SMUGGLED], bytewise(last + SMUGGLED)):
        stage.recorder.forget()
        (answer,) = await answers(stage.proxy, *pieces)
        assert answer.body == b"1 POST /x"
        assert stage.recorder.seen == [(b"POST /x", b"abcde")]
        await afterwards(stage)


JUNK = {
    "a body without a framing": request(body=b"abcde"),
    "a body that Content_Length names": request(b"Content_Length: 5", body=b"abcde"),
    "a body that the TE field names": request(b"TE: chunked", body=CHUNKS),
    "chunks behind a length": request(b"Content-Length: 3", body=b"abc" + CHUNKS),
    "more than its length": request(b"Content-Length: 3", body=b"abcde"),
    "more than its chunks": request(TE, body=CHUNKS + b"\r\n\r\n"),
}


@pytest.mark.parametrize("name", JUNK)
async def test_what_follows_a_request_and_is_none_ends_the_connection(stage: Stage, name: str) -> None:
    for pieces in ([JUNK[name] + SMUGGLED], bytewise(JUNK[name] + SMUGGLED)):
        stage.recorder.forget()
        *first, last = final(await answers(stage.proxy, *pieces))
        assert last.status == 400
        assert problem(last)
        assert [answer.body for answer in first] in ([], [b"1 POST /x"])
        assert stage.recorder.seen in ([], [(b"POST /x", b"")], [(b"POST /x", b"abc")])
        assert not stage.recorder.odd
        await afterwards(stage)


TRUNCATED = {
    "a length": request(b"Content-Length: 35", body=SMUGGLED),
    "chunks": request(TE, body=b"23\r\n" + SMUGGLED + b"\r\n0\r\nX: y\r\n\r\n"),
    "a large length": request(b"Content-Length: 200000", body=SMUGGLED * 4000),
}


@pytest.mark.parametrize("name", TRUNCATED)
async def test_what_is_cut_short_is_no_request(stage: Stage, name: str) -> None:
    """The client ends its side in the middle, at every place: the worker must not take what came for the whole."""
    whole = TRUNCATED[name][: 200_000 if "large" in name else None]
    for at in range(1, len(whole)) if len(whole) < 500 else (1000, 49_200, 100_000, 199_000):
        stage.recorder.forget()
        for answer in await answers(stage.proxy, whole[:at], eof=True):
            assert answer.status in (400, 408)  # if it is answered at all
        await until(lambda: not stage.recorder.open)
        assert stage.recorder.seen == []
        assert not stage.recorder.odd
    await afterwards(stage)


async def test_a_client_that_ends_its_side_has_left_or_gets_its_answers(stage: Stage) -> None:
    """The end of a client's side cannot be told from its leaving: what is answered is answered in order, and whole."""
    for sent in (request(b"Content-Length: 5", body=b"abcde"), request(TE, body=CHUNKS), SMUGGLED * 3):
        stage.recorder.forget()
        found = await answers(stage.proxy, sent, eof=True)
        assert len(found) <= len(stage.recorder.requests) <= 3
        assert [answer.body[:2] for answer in found] == [b"1 ", b"2 ", b"3 "][: len(found)]
        (marker,) = await answers(stage.proxy, MARKER)
        assert marker.body.endswith(b" GET /marker")
        assert not stage.recorder.odd
