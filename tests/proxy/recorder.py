"""A worker that keeps every byte it is sent and reads them by the letter; and a client that sends what it likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

from fairway.proxy import Proxy

from .letter import Malformed, Message, read_answers, read_request
from .stage import HOST

HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection", b"expect"}
# Some servers (WSGI, CGI) read `_` as `-`: what the proxy decided could be overruled by a field it took for another.
OVERRULING = {b"content_length", b"transfer_encoding", b"x_forwarded_for", b"x_forwarded_host", b"x_forwarded_proto"}


class Recorder:
    """Answers each request with its number, method and target. `requests`: what came whole; `odd`: what must never come.

    `bytes_in` counts every byte of every connection, `open` the requests that have begun and not ended.
    """

    def __init__(self) -> None:
        self.upgrades = False  # whether somebody may ask for one
        self.forget()

    def forget(self) -> None:
        self.requests: list[Message] = []
        self.odd: list[str] = []
        self.bytes_in = 0
        self.open = 0

    @property
    def seen(self) -> list[tuple[bytes, bytes]]:
        """Method and target, and the body, of each."""
        return [message.request for message in self.requests]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while piece := await reader.read(1 << 18):
            self.bytes_in += len(piece)
            self.open += not data
            data += piece
            try:
                while data and (message := read_request(data)) is not None:
                    self._record(message)
                    data = data[message.size :]
                    self.open -= not data
                    writer.write(self.answer(message))
            except Malformed as error:
                self.odd.append(f"{error}: {data[:300]!r}")
                return
        self.open -= bool(data)  # broken off

    def _record(self, message: Message) -> None:
        self.requests.append(message)
        _, target, version = message.line
        names = {name.lower() for name, _ in message.fields}
        wrong = []
        if version != b"HTTP/1.1":
            wrong.append("version")
        if not target.startswith(b"/"):
            wrong.append("target")
        if len(message.all(b"host")) != 1:
            wrong.append("host")
        if self.upgrades:
            names -= {b"connection", b"upgrade"}
        if forbidden := names & (HOP_BY_HOP | OVERRULING):
            wrong.append(f"fields {forbidden}")
        if wrong:
            self.odd.append(f"{', '.join(wrong)}: {message}")

    def answer(self, message: Message) -> bytes:
        body = b"%d %s %s" % (len(self.requests), *message.line[:2])
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body),
            b"" if message.line[0] == b"HEAD" else body,
        )


async def turns(count: int = 4) -> None:
    """Lets everybody on this loop do what is due: on loopback what was written is there to be read at once."""
    for _ in range(count):
        await asyncio.sleep(0)


async def converse(proxy: Proxy, pieces: Iterable[bytes], seconds: float = 5.0, eof: bool = False) -> bytes:
    """Sends `pieces`, each read on its own by the proxy, while reading; all that came until the proxy closed."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port, limit=1 << 22)
    came = bytearray()

    async def listen() -> None:
        try:
            while piece := await reader.read(1 << 20):
                came.extend(piece)
        except ConnectionResetError:
            if not eof:  # who has ended his side may be taken to have left
                raise

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(seconds):
            for number, piece in enumerate(pieces):
                if number:
                    await turns()
                if listening.done():
                    break
                writer.write(piece)
                if len(piece) > 100_000:
                    await writer.drain()
            if eof:
                writer.write_eof()
            await listening
    except TimeoutError:
        raise AssertionError(f"not over after {seconds} s; so far: {bytes(came)[:2000]!r}") from None
    finally:
        listening.cancel()
        writer.close()
    return bytes(came)


async def answers(
    proxy: Proxy, *pieces: bytes, methods: Sequence[bytes] = (), seconds: float = 5.0, eof: bool = False
) -> list[Message]:
    """The answers to `pieces`, 1xx among them; nothing may come that is no answer."""
    came = await converse(proxy, pieces, seconds, eof)
    found, rest = read_answers(came, methods)
    assert not rest, f"not an answer: {rest[:500]!r}"
    return found


def final(found: Sequence[Message]) -> list[Message]:
    return [answer for answer in found if answer.status >= 200]


def problem(answer: Message) -> str:
    """What an error answer of the proxy's own says; it is JSON, whatever went wrong."""
    assert answer.one(b"content-type") == b"application/json", answer
    text = json.loads(answer.body)["error"]
    assert isinstance(text, str)
    assert text
    return text


def says_close(answer: Message) -> bool:
    said = [value.strip().lower() for value in b",".join(answer.all(b"connection")).split(b",")]
    return b"close" in said or (answer.line[0] == b"HTTP/1.0" and b"keep-alive" not in said)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def split(data: bytes, *places: int) -> list[bytes]:
    """Cut at `places`; those beyond its ends are left out."""
    cuts = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(cuts)]


def seams(data: bytes) -> list[int]:
    """Places where parsers go astray: around every CR and LF, colon and space."""
    return sorted({at + by for at, byte in enumerate(data) if byte in b"\r\n: " for by in (0, 1)})
