"""HTTP/1.1 by the letter of RFC 9112: a second opinion on what crosses the proxy, strict where parsers in use are lenient.

Sans-io. What cannot be read in exactly one way is `Malformed`; what has not wholly arrived is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) (HTTP/1\.[01])")
STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9]\d\d)(?: ([\t !-~\x80-\xff]*))?")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t !-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\r\n\0]*)?")
MOST = 1 << 20  # of a head, or of one line of a chunked body: enough to tell an end from none


class Malformed(Exception):
    """Bytes that no strict reader accepts, or accepts in one way only."""


@dataclass(frozen=True)
class Message:
    """A request or an answer. `line`: its three words. `size`: bytes it took on the wire. `closed`: ended by the end."""

    line: tuple[bytes, bytes, bytes]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    size: int = 0
    closed: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    def one(self, name: bytes) -> bytes | None:
        found = self.all(name)
        return found[0] if len(found) == 1 else None

    @property
    def status(self) -> int:
        return int(self.line[1])

    @property
    def request(self) -> tuple[bytes, bytes]:
        return b" ".join(self.line[:2]), self.body


def _head(data: bytes, at: int, line: re.Pattern[bytes]) -> tuple[Message, int] | None:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        if len(data) - at > MOST:
            raise Malformed("a head without an end")
        return None
    first, *rest = data[at:end].split(b"\r\n")
    if not (words := line.fullmatch(first)):
        raise Malformed(f"first line {first[:200]!r}")
    fields = []
    for one in rest:
        if not (field := FIELD.fullmatch(one)):
            raise Malformed(f"field {one[:200]!r}")
        fields.append((field[1], field[2]))
    return Message((words[1], words[2], words[3] or b""), tuple(fields)), end + 4


def _length(message: Message) -> int | None:
    """The length its fields name; None for chunked; -1 for none named."""
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed("more than one framing")
    if codings:
        if codings[0].lower() != b"chunked":
            raise Malformed(f"transfer coding {codings[0]!r}")
        return None
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Malformed(f"length {lengths[0]!r}")
    return int(lengths[0]) if lengths else -1


def _line(data: bytes, at: int) -> tuple[bytes, int] | None:
    end = data.find(b"\r\n", at)
    if end < 0:
        if len(data) - at > MOST:
            raise Malformed("a line without an end")
        return None
    return data[at:end], end + 2


def _chunks(data: bytes, at: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while True:
        if (found := _line(data, at)) is None:
            return None
        line, at = found
        if not (chunk := CHUNK.fullmatch(line)):
            raise Malformed(f"chunk {line[:200]!r}")
        if not (size := int(chunk[1], 16)):
            break
        if len(data) < at + size + 2:
            return None
        if data[at + size : at + size + 2] != b"\r\n":
            raise Malformed("a chunk that is longer than it says")
        body += data[at : at + size]
        at += size + 2
    while True:
        if (found := _line(data, at)) is None:
            return None
        line, at = found
        if not line:
            return bytes(body), at
        if not FIELD.fullmatch(line):
            raise Malformed(f"trailer {line[:200]!r}")


def read_request(data: bytes, at: int = 0) -> Message | None:
    """The request that begins at `at`; one empty line may come first."""
    begin = at + 2 * (data[at : at + 2] == b"\r\n")
    if (found := _head(data, begin, REQUEST_LINE)) is None:
        return None
    message, after = found
    if len(hosts := message.all(b"host")) > 1 or (not hosts and message.line[2] == b"HTTP/1.1"):
        raise Malformed("not one Host")
    length = _length(message)
    if length is None:
        if message.line[2] == b"HTTP/1.0":
            raise Malformed("chunks in HTTP/1.0")
        if (chunked := _chunks(data, after)) is None:
            return None
        return Message(message.line, message.fields, chunked[0], chunked[1] - at)
    length = max(length, 0)
    if len(data) < after + length:
        return None
    return Message(message.line, message.fields, data[after : after + length], after + length - at)


def read_requests(data: bytes) -> list[Message]:
    """All that a strict reader would have understood before it gave up."""
    found: list[Message] = []
    at = 0
    try:
        while (message := read_request(data, at)) is not None:
            found.append(message)
            at += message.size
    except Malformed:
        pass
    return found


def read_answer(data: bytes, at: int, method: bytes, ended: bool, overlook: bool = False) -> Message | None:
    """The answer to `method` that begins at `at`, 1xx too; `ended`: nothing will follow `data`.

    `overlook`: a framing where none may be (RFC 9110 8.6), which a recipient is to ignore, and chunks in HTTP/1.0.
    """
    if (found := _head(data, at, STATUS_LINE)) is None:
        return None
    message, after = found
    length = _length(message)
    if message.status < 200 or message.status == 204:
        if length != -1 and not overlook:
            raise Malformed(f"a framing in a {message.status}")
        length = 0
    if method == b"HEAD" or message.status == 304:
        length = 0
    if length is None:
        if message.line[0] == b"HTTP/1.0" and not overlook:
            raise Malformed("chunks in HTTP/1.0")
        if (chunked := _chunks(data, after)) is None:
            return None
        return Message(message.line, message.fields, chunked[0], chunked[1] - at)
    if length == -1:
        return Message(message.line, message.fields, data[after:], len(data) - at, closed=True) if ended else None
    if len(data) < after + length:
        return None
    return Message(message.line, message.fields, data[after : after + length], after + length - at)


def read_answers(data: bytes, methods: Sequence[bytes] = (), ended: bool = True) -> tuple[list[Message], bytes]:
    """All answers, 1xx among them, and what is left over. `methods`: of the requests, GET if there are more answers."""
    found: list[Message] = []
    at = final = 0
    while at < len(data):
        method = methods[final] if final < len(methods) else b"GET"
        if (message := read_answer(data, at, method, ended)) is None:
            break
        found.append(message)
        at += message.size
        final += message.status >= 200
    return found, data[at:]
