"""Our reading of heads beside llhttp's: what we take for a request, it takes for the same one."""

from __future__ import annotations

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.proxy.errors import ProxyError
from fairway.proxy.head import parse_request

LINES = st.sampled_from(
    [
        b"Host: h", b"host:h", b"Content-Length: 5", b"content-length: 05", b"Content-Length: +5", b"Content-Length: 5 ",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: gzip", b"Connection: close",
        b"Connection: keep-alive, X-A", b"X-A: b", b"X-A:", b"X-A:\tb\t", b"X-A: b c", b" folded: x", b"X A: b", b"X-A : b",
        b"X-A: \xe4", b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\nb", b"X-A", b": x", b"",
        b"Expect: 100-continue", b"Upgrade: h2c",
    ]
) | st.binary(max_size=12)  # fmt: skip
FIRST = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"POST /x?y HTTP/1.1", b"POST /x HTTP/1.0", b"HEAD / HTTP/1.1", b"GET http://h/x HTTP/1.1",
        b"GET / HTTP/1.2", b"GET  / HTTP/1.1", b"GET /a b HTTP/1.1", b"get / HTTP/1.1", b"GET /\x7f HTTP/1.1",
        b"GET / HTTP/1.1 ",
    ]
)  # fmt: skip


class Found:
    """What llhttp tells."""

    def __init__(self) -> None:
        self.url, self.fields, self.complete = b"", list[tuple[bytes, bytes]](), 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete += 1


@settings(max_examples=1000)
@given(FIRST, st.lists(LINES, max_size=4), st.sampled_from([True, True, False]))
def test_what_we_take_for_a_request_is_one_and_the_same_to_llhttp(first: bytes, lines: list[bytes], host: bool) -> None:
    raw = b"\r\n".join([first, *([b"Host: h"] if host else []), *lines])
    if b"\r\n\r\n" in raw:
        return  # a head ends there
    try:
        head = parse_request(raw)
    except ProxyError:
        return
    found = Found()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(raw + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    assert found.complete == 1
    assert parser.get_method() == head.method
    assert found.url.endswith(head.target) or found.url.endswith(head.target[1:])
    theirs = dict(found.fields)
    ours = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.kept)}
    assert ours.items() <= theirs.items()
    assert head.length == (None if b"transfer-encoding" in theirs else int(theirs.get(b"content-length", b"0")))
