"""A trial of the whole proxy: any bytes in, from a client or from a worker, and what must hold whatever they were.

The letter (letter.py) is the second opinion: what the proxy lets through must be what a strict reader reads, no more, no
less and not otherwise. Used by the tests that try at random and by scripts/fuzz proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fairway.proxy import Proxy

from .letter import Malformed, Message, read_answer, read_answers, read_requests
from .recorder import Recorder, answers, final, problem, split, turns
from .stage import HOST, proxy_for, raw_worker, read_request

MARKER = b"GET /marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
SETTINGS: list[dict[str, Any]] = [
    {"replay_bytes": 1 << 20, "splice": True},
    {"replay_bytes": 1, "splice": True},
    {"replay_bytes": 1 << 20, "splice": False},
    {"replay_bytes": 1, "splice": False},
]
# Longer than a trial takes, so that nothing but its own bytes ends it; shorter than anybody would wait.
PATIENCE: dict[str, Any] = {
    "mode": "forward",
    "wait_seconds": 0.01,
    "head_seconds": 5,
    "stall_seconds": 5,
    "deadline_seconds": 5,
}


def path_of(target: bytes) -> bytes:
    """What a worker is asked for: of an absolute target the path."""
    if target.startswith(b"/") or b"://" not in target:
        return target
    rest = target.partition(b"://")[2]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    return rest[cut:] if rest[cut : cut + 1] == b"/" else b"/" + rest[cut:]


def within(few: Sequence[object], many: Sequence[object]) -> bool:
    """Whether `few` are among `many`, in that order."""
    rest = iter(many)
    return all(any(one == other for other in rest) for one in few)


async def said(proxy: Proxy, pieces: Sequence[bytes], recorder: Recorder) -> bytes:
    """All that comes back for `pieces`: when both sides have fallen silent, the client ends its own."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    came = bytearray()

    async def listen() -> None:
        try:
            while piece := await reader.read(1 << 20):
                came.extend(piece)
        except ConnectionResetError:
            pass  # who ends in the middle may be taken to have left

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(4):
            for piece in pieces:
                if listening.done():
                    break
                writer.write(piece)
                await turns(3)
            before = (-1, -1)
            while before != (len(came), recorder.bytes_in) and not listening.done():
                before = (len(came), recorder.bytes_in)
                await turns(12)
            if not listening.done():
                writer.write_eof()
            await listening
    finally:
        listening.cancel()
        writer.transport.abort()
        writer.close()
    return bytes(came)


async def try_request(proxy: Proxy, recorder: Recorder, data: bytes, cuts: Sequence[int]) -> None:
    """`data` of a client, cut at `cuts`. Raises AssertionError for what must not be, TimeoutError for what does not end."""
    recorder.forget()
    came = await said(proxy, split(data, *cuts), recorder)
    letter = [(message.line[0] + b" " + path_of(message.line[1]), message.body) for message in read_requests(data)]
    assert not recorder.odd, recorder.odd
    assert within(recorder.seen, letter), f"the worker saw {recorder.seen}, the letter says {letter}"
    try:
        found, rest = read_answers(came, [message.line[0] for message in recorder.requests], ended=False)
    except Malformed:
        # An answer of ours to HEAD, among the worker's: which is whose is not to be known here.
        assert any(request.startswith(b"HEAD ") for request, _ in letter)
        found, rest = [], b""
    numbers = [b"%d %s" % (number, line) for number, (line, _) in enumerate(recorder.seen, 1)]
    own = [answer for answer in final(found) if answer.status != 200]
    assert not rest or len(found) < len(letter) + 1
    assert within([answer.body for answer in final(found) if answer.status == 200 and answer.body], numbers)
    for answer in own:
        assert answer.status >= 400
        assert not answer.body or problem(answer)
    await marked(proxy)
    assert recorder.requests[-1].request == (b"GET /marker", b"")
    assert not recorder.odd, recorder.odd


async def marked(proxy: Proxy) -> None:
    """Somebody else asks, and gets his own answer."""
    (answer,) = await answers(proxy, MARKER, seconds=4)
    assert answer.status == 200
    assert answer.body.endswith(b" GET /marker")


class Speaker:
    """To /case it says `words`, cut at `cuts`, and ends if it `ends`; to anything else its number and the request."""

    def __init__(self) -> None:
        self.words: Sequence[bytes] = ()
        self.ends = False
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            self.asked += 1
            method, target = head.split()[:2]
            if target == b"/case":
                for word in self.words:
                    writer.write(word)
                    await turns(3)
                if self.ends:
                    return
                continue
            body = b"%d %s %s" % (self.asked, method, target)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def try_answer(
    proxy: Proxy, speaker: Speaker, data: bytes, cuts: Sequence[int], method: bytes = b"GET", ends: bool = True
) -> None:
    """`data` of a worker. The client gets what the letter reads in it, or 502, or an answer that is seen to be cut."""
    speaker.words, speaker.ends = split(data, *cuts), ends
    silent = Recorder()
    came = await said(proxy, [method + b" /case HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"], silent)
    found, rest = read_answers(came, [method], ended=False)
    if whole := final(found):
        (answer,) = whole
        assert not rest
        letter = letters(data, method, ends)
        if answer.status == 502 and (letter is None or letter.status != 502):
            assert method == b"HEAD" or problem(answer)
        else:
            assert letter is not None, f"the letter reads nothing in it, the client {answer}"
            assert (answer.status, answer.body) == (letter.status, letter.body)
    await marked(proxy)


def letters(data: bytes, method: bytes, ends: bool) -> Message | None:
    """The final answer that a strict reader finds first in `data`."""
    at = 0
    try:
        while (message := read_answer(data, at, method, ends, overlook=True)) is not None:
            if message.status >= 200:
                return message
            at += message.size
    except Malformed:
        pass
    return None


@asynccontextmanager
async def before_recorder(**settings: Any) -> AsyncIterator[tuple[Proxy, Recorder]]:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, **{**PATIENCE, **settings}) as proxy:
        yield proxy, recorder


@asynccontextmanager
async def before_speaker(**settings: Any) -> AsyncIterator[tuple[Proxy, Speaker]]:
    speaker = Speaker()
    async with raw_worker(speaker) as address, proxy_for(address, **{**PATIENCE, **settings}) as proxy:
        yield proxy, speaker
