"""The chunked coding, taken off and put on. Sans-io. Source: RFC 9112 7.1; strict where it lets a recipient be lenient."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .errors import BadRequest
from .head import FIELD

SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
MAX_LINE = 1024  # bytes of one size line with its extensions
MAX_TRAILERS = 8192
SPARE = 64 * 1024  # bytes of framing beyond one for each of data: many tiny chunks are work without use
LAST = b"0\r\n\r\n"


class Dechunker:
    """`feed` bytes as they come; it yields data. Then `done`, and `rest` is what follows the body. Raises BadRequest."""

    __slots__ = ("_buffer", "_left", "_overhead", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the chunk being read, with the CR LF after it
        self._overhead = -SPARE
        self._trailers = -1  # bytes of them so far; -1: not there yet
        self.done, self.rest = False, b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._buffer:
            data = self._buffer + data
        at, end = 0, len(data)
        while at < end:
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                at += len(piece)
                self._left -= len(piece)
                self._overhead -= len(piece)
                yield piece
                continue
            if self._left:
                if data[at] != b"\n\r"[self._left - 1]:
                    raise BadRequest("a chunk is not as long as it says")
                at += 1
                self._left -= 1
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if end - at > MAX_LINE:
                    raise BadRequest("a chunk's size, or a trailer, is too long")
                if data.find(b"\n", at) >= 0:
                    raise BadRequest("a line between chunks ends with LF alone")
                break
            line, at = data[at:line_end], line_end + 2
            if self._trailers >= 0:
                self._trailers += len(line) + 2
                if self._trailers > MAX_TRAILERS or (line and not FIELD.fullmatch(line)):
                    raise BadRequest("the trailers after the last chunk are malformed or too long")
                if not line:
                    self.done, self.rest, self._buffer = True, data[at:], b""
                    return
                continue
            self._size(line)
        self._buffer = data[at:]

    def _size(self, line: bytes) -> None:
        found = SIZE_LINE.fullmatch(line) if len(line) <= MAX_LINE else None
        if found is None:
            raise BadRequest("a chunk begins with no size")
        self._overhead += len(line) + 4
        if self._overhead > 0:
            raise BadRequest("there are more chunks than data")
        size = int(found[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = 0


def chunk(data: bytes | memoryview) -> bytes:
    """One chunk; `data` is not empty: that would be the end."""
    return b"%x\r\n" % len(data) + data + b"\r\n"
