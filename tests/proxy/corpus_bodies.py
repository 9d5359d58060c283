"""What smugglers send: chunked bodies, expectations, and bodies large enough for the kernel to move."""

from __future__ import annotations

from .corpus import CHUNKS, CL, FIVE, SMUGGLED, TE, Case, request

LAST = b"0\r\n\r\n"


def _chunked(body: bytes, *statuses: int) -> Case:
    return Case(request(TE, body=body), frozenset(statuses or {400}), begun=True)


def _read_as(body: bytes, seen: bytes, *statuses: int) -> Case:
    return Case(request(TE, body=body), frozenset(statuses), (b"POST /x", seen), begun=True)


REFUSED: dict[str, Case] = {
    f"chunks {body!r}": _chunked(body)
    for body in (
        b"0x3\r\nabc\r\n" + LAST, b"+3\r\nabc\r\n" + LAST, b"-3\r\nabc\r\n" + LAST, b" 3\r\nabc\r\n" + LAST,
        b"\t3\r\nabc\r\n" + LAST, b"3g\r\nabc\r\n" + LAST, b"g\r\nabc\r\n" + LAST, b"\r\nabc\r\n" + LAST,
        b"\r\n3\r\nabc\r\n" + LAST, b";a=b\r\nabc\r\n" + LAST, b"3_0\r\nabc\r\n" + LAST, b'"3"\r\nabc\r\n' + LAST,
        b"3.0\r\nabc\r\n" + LAST, b"3,3\r\nabc\r\n" + LAST, b"3\x0b\r\nabc\r\n" + LAST, b"3\xa0\r\nabc\r\n" + LAST,
        b"3\0\r\nabc\r\n" + LAST, "\uff13\r\nabc\r\n".encode() + LAST, b"3\nabc\r\n" + LAST, b"3\rabc\r\n" + LAST,
        b"3\r\r\nabc\r\n" + LAST, b"3\n\nabc\n0\n\n", b"3\nabc\n0\n\n", b"3\r\nabc\n" + LAST, b"3\r\nabc\r" + LAST,
        b"3\r\nabc" + LAST, b"3\r\nabcd\r\n" + LAST, b"3\r\nabcXX" + LAST, b"3\r\nab\r\n" + LAST,
        b"3\r\nabc\r\n0\n\n", b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\n\rX", b"3\r\nabc\r\n0x0\r\n\r\n",
        b"3\r\nabc\r\n-0\r\n\r\n", b"3\r\nabc\r\n0 0\r\n\r\n", b"3\r\nabc\r\nX\r\n\r\n", b"3\r\nabc\r\n\r\n" + LAST,
        b"3;a\nb\r\nabc\r\n" + LAST, b"3;a\rb\r\nabc\r\n" + LAST, b"3;a\0b\r\nabc\r\n" + LAST, b"3;\nabc\r\n" + LAST,
        b'3;a="\r\n"\r\nabc\r\n' + LAST, b'3;a="\n\r\n' + LAST, b"3 a\r\nabc\r\n" + LAST, b"3:a\r\nabc\r\n" + LAST,
        b"3=a\r\nabc\r\n" + LAST, b"3/a\r\nabc\r\n" + LAST,
        b"10000000000000003\r\nabc\r\n" + LAST, b"fffffffffffffffff\r\nabc\r\n" + LAST,
        b"100000000000000000000000000000003\r\nabc\r\n" + LAST,
        b"3\r\nabc\r\n0\r\n" + SMUGGLED, b"3\r\nabc\r\n0\r\nX : y\r\n\r\n", b"3\r\nabc\r\n0\r\n X: y\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\nZ: z\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\0\r\n\r\n", b"3\r\nabc\r\n0\r\nX\r\n\r\n",
        b"3\r\nabc\r\n0\r\n: y\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\rZ: z\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\r\n\n",
    )
} | {
    "an extension of 64 KB": _chunked(b"3;" + b"a" * 65_536 + b"\r\nabc\r\n" + LAST, 400, 413, 431),
    "extensions of 600 KB on chunks of a byte": _chunked(
        (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 150 + LAST, 400, 413, 431
    ),
    "64 KB of zeros as a size": _chunked(b"0" * 65_536 + b"3\r\nabc\r\n" + LAST, 400, 413, 431),
    "a trailer of 64 KB": _chunked(b"3\r\nabc\r\n0\r\nX: " + b"a" * 65_536 + b"\r\n\r\n", 400, 413, 431),
    "5000 trailers": _chunked(b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 400, 413, 431),
    "more than is accepted": _chunked(b"f4240\r\n" + bytes(1_000_000) + b"\r\n" + LAST, 413),
    "more than is accepted, in two": _chunked((b"7a120\r\n" + bytes(500_000) + b"\r\n") * 2 + LAST, 413),
    "more than is accepted, said at once": _chunked(b"fffffff\r\n" + bytes(900_000), 413),
}  # fmt: skip

ACCEPTED: dict[str, Case] = {
    "no chunk but the last": _read_as(LAST, b""),
    "many zeros as the last": _read_as(b"3\r\nabc\r\n0000000\r\n\r\n", b"abc", 400),
    "two chunks": _read_as(b"3\r\nabc\r\n2\r\nde\r\n" + LAST, FIVE),
    "capital digits": _read_as(b"A\r\n0123456789\r\n" + LAST, b"0123456789"),
    "small digits": _read_as(b"a\r\n0123456789\r\n" + LAST, b"0123456789"),
    "leading zeros": _read_as(b"0003\r\nabc\r\n" + LAST, b"abc", 400),
    "sixteen digits": _read_as(b"0000000000000003\r\nabc\r\n" + LAST, b"abc", 400),
    "seventeen digits": _read_as(b"00000000000000003\r\nabc\r\n" + LAST, b"abc", 400),
    "forty digits": _read_as(b"0" * 39 + b"3\r\nabc\r\n" + LAST, b"abc", 400),
    "a space after the size": _read_as(b"3 \r\nabc\r\n" + LAST, b"abc", 400),
    "an extension": _read_as(b"3;a=b\r\nabc\r\n0;last\r\n\r\n", b"abc"),
    "an extension in quotes": _read_as(b'3;a="b;c d"\r\nabc\r\n' + LAST, b"abc", 400),
    "an extension with a quote in quotes": _read_as(b'3;a="b\\"c"\r\nabc\r\n' + LAST, b"abc", 400),
    "an extension whose quotes do not end": _read_as(b'3;a="b\r\nabc\r\n' + LAST, b"abc", 400),
    "an extension after a space": _read_as(b"3 ;a=b\r\nabc\r\n" + LAST, b"abc", 400),
    "an empty extension": _read_as(b"3;\r\nabc\r\n" + LAST, b"abc", 400),
    "an extension of 300 bytes": _read_as(b"3;" + b"a" * 300 + b"\r\nabc\r\n" + LAST, b"abc", 400),
    "an extension above 127": _read_as(b"3;a=\xff\xc3\r\nabc\r\n" + LAST, b"abc", 400),
    "trailers": _read_as(b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-B: c\r\n\r\n", b"abc"),
    "a trailer that is Host": _read_as(b"3\r\nabc\r\n0\r\nHost: other\r\n\r\n", b"abc", 400),
    "a trailer that is CL": _read_as(b"3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n", b"abc", 400),
    "a trailer that is TE": _read_as(b"3\r\nabc\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n", b"abc", 400),
    "a trailer that is Connection": _read_as(b"3\r\nabc\r\n0\r\nConnection: close\r\n\r\n", b"abc", 400),
    "chunks that look like a request": _read_as(b"23\r\n" + SMUGGLED + b"\r\n" + LAST, SMUGGLED),
    "chunks that look like chunks": _read_as(b"d\r\n" + CHUNKS + b"\r\n" + LAST, CHUNKS),
    "2000 chunks of a byte": _read_as(b"1\r\nx\r\n" * 2000 + LAST, b"x" * 2000),
}

EXPECTATIONS: dict[str, Case] = {
    "Expect, and the body at once": Case(
        request(CL, b"Expect: 100-continue", body=FIVE), frozenset(), (b"POST /x", FIVE)
    ),
    "Expect in capitals": Case(request(CL, b"EXPECT: 100-CONTINUE", body=FIVE), frozenset(), (b"POST /x", FIVE)),
    "Expect, and chunks at once": Case(
        request(TE, b"Expect: 100-continue", body=CHUNKS), frozenset(), (b"POST /x", b"abc")
    ),
    "Expect without a body": Case(request(b"Expect: 100-continue"), frozenset(), (b"POST /x", b"")),
    "Expect in HTTP/1.0": Case(
        request(CL, b"Expect: 100-continue", line=b"POST /x HTTP/1.0", body=FIVE), frozenset(), (b"POST /x", FIVE)
    ),
    "Expect that is unknown": Case(request(CL, b"Expect: magic", body=FIVE), frozenset({417})),
    "Expect with more than that": Case(request(CL, b"Expect: 100-continue, magic", body=FIVE), frozenset({417})),
    "Expect with a parameter": Case(request(CL, b"Expect: 100-continue;a=b", body=FIVE), frozenset({417})),
    "Expect y 100-continue": Case(request(CL, b"Expect: y 100-continue", body=FIVE), frozenset({417})),
    "Expect twice": Case(
        request(CL, b"Expect: 100-continue", b"Expect: 100-continue", body=FIVE),
        frozenset({400, 417}),
        (b"POST /x", FIVE),
    ),
    "Expect twice, one unknown": Case(
        request(CL, b"Expect: 100-continue", b"Expect: magic", body=FIVE), frozenset({400, 417})
    ),
    "Expect, empty": Case(request(CL, b"Expect:", body=FIVE), frozenset({417}), (b"POST /x", FIVE)),
    "Expect folded": Case(request(CL, b"Expect:\r\n 100-continue", body=FIVE)),
}


def _large(size: int) -> bytes:
    """`size` bytes that are requests, wherever one begins to read."""
    return (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]


LARGE: dict[str, Case] = {
    f"a body of {size} bytes": Case(
        request(b"Content-Length: %d" % size, body=_large(size)), frozenset(), (b"POST /x", _large(size))
    )
    for size in (4095, 16_383, 49_151, 49_153, 65_536, 131_073, 300_000, 800_000)
} | {
    f"chunks of {size} bytes": Case(
        request(TE, body=(b"%x\r\n" % size + _large(size) + b"\r\n") * 2 + LAST),
        frozenset(),
        (b"POST /x", _large(size) * 2),
    )
    for size in (4095, 65_537, 300_000)
}  # fmt: skip

BODIES = {**REFUSED, **ACCEPTED, **EXPECTATIONS}
