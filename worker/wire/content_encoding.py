"""Content-Encoding, taken off: gzip and deflate, never beyond a limit, however much a body promises to become.

Sources: RFC 9110 8.4.1; RFC 1952 (gzip: several members may follow each other); RFC 1950, and the bare RFC 1951 streams
that some clients call deflate.
"""

from __future__ import annotations

import zlib

from ..errors import BadRequest, TooLarge

GZIP, ZLIB, BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
CODINGS = ("gzip", "x-gzip", "deflate", "identity", "")
MAX_MEMBERS = 16  # each is cut out of the rest, which is copied


def decode(body: bytes, coding: str, most: int) -> bytes:
    """`body` without its `coding`, one of CODINGS. Raises TooLarge beyond `most` bytes, BadRequest for what is broken."""
    if coding in ("identity", ""):
        return body
    window = GZIP if coding != "deflate" else ZLIB if _is_zlib(body) else BARE
    pieces: list[bytes] = []
    left, rest = most, body
    for _ in range(MAX_MEMBERS):
        inflater = zlib.decompressobj(window)
        try:
            piece = inflater.decompress(rest, left + 1)
        except zlib.error as error:
            raise BadRequest(f"the body is not what Content-Encoding: {coding} says: {error}") from None
        left -= len(piece)
        if left < 0:
            raise TooLarge(
                f"the upload has more than {most} bytes once {coding} is taken off: at most that is accepted"
            )
        pieces.append(piece)
        if not inflater.eof:
            raise BadRequest(f"the body ends before its {coding} does: the upload was cut off")
        rest = inflater.unused_data
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if window != GZIP:
            break
    raise BadRequest(f"there is more in the body than its {coding}")


def _is_zlib(body: bytes) -> bool:
    """Whether it begins as RFC 1950 has it; a bare stream that does is as good as unknown."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
