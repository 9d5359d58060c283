"""Heads: what is refused, what is dropped, what is added."""

from __future__ import annotations

import pytest

from fairway.proxy.errors import (
    BadRequest,
    HeadTooLarge,
    ProxyError,
    TargetTooLong,
    UnsupportedFraming,
    UnsupportedVersion,
    WorkerAnswersBadly,
)
from fairway.proxy.head import RequestHead, origin, parse_answer, parse_request

GET = b"GET /x HTTP/1.1\r\nHost: h"


def request(*fields: bytes, line: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: h") -> RequestHead:
    return parse_request(b"\r\n".join([line, host, *fields]))


def sent(head: RequestHead, length: int | None = 0) -> list[bytes]:
    """The lines that a worker gets."""
    raw = head.to_worker(head.target, length, b"X-Added: yes\r\n")
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


def test_a_head_is_written_anew() -> None:
    head = request(b"content-type:image/jpeg ", b"X-Empty:", b"Content-Length: 5")
    assert (head.method, head.target, head.host, head.length, head.keep_alive) == (b"POST", b"/x", b"h", 5, True)
    assert sent(head, 5) == [
        b"POST /x HTTP/1.1", b"Host: h", b"content-type: image/jpeg", b"X-Empty: ", b"X-Added: yes", b"Content-Length: 5",
    ]  # fmt: skip


@pytest.mark.parametrize("raw", [GET, b"GET /x HTTP/1.0"])
def test_the_same_line_is_read_the_same_again(raw: bytes) -> None:
    first, second = parse_request(raw + b"\r\nAccept: x"), parse_request(raw + b"\r\nAccept: x")
    assert (first.noted, first.kept, first.host) == (second.noted, second.kept, second.host)
    assert first.noted == {b"accept": b"x"}


@pytest.mark.parametrize(
    ("length", "line"), [(0, b"Content-Length: 0"), (7, b"Content-Length: 7"), (None, b"Transfer-Encoding: chunked")]
)
def test_exactly_one_framing_leaves_us(length: int | None, line: bytes) -> None:
    lines = sent(request(b"Content-Length: 3"), length)
    assert [li for li in lines if li.lower().startswith((b"content-length", b"transfer-encoding"))] == [line]


def test_a_get_without_a_body_announces_none() -> None:
    assert sent(parse_request(GET)) == [b"GET /x HTTP/1.1", b"Host: h", b"X-Added: yes"]


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"TE: trailers", b"Trailer: X",
        b"Upgrade: h2c", b"Proxy-Authorization: x", b"Proxy-Authenticate: x", b"Expect: 100-continue",
        b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil", b"Forwarded: for=1.2.3.4",
        b"X-Real-IP: 1.2.3.4", b"X-Fairway-Service: other",
    ],
)  # fmt: skip
def test_dropped_on_the_way_to_a_worker(field: bytes) -> None:
    assert field.partition(b":")[0].lower() not in [line.partition(b":")[0].lower() for line in sent(request(field))]


def test_what_connection_lists_goes_no_further() -> None:
    head = request(b"Connection: X-Secret, close", b"X-Secret: 1", b"x-other: 2")
    assert (head.keep_alive, sent(head)) == (
        False, [b"POST /x HTTP/1.1", b"Host: h", b"x-other: 2", b"X-Added: yes", b"Content-Length: 0"],
    )  # fmt: skip


@pytest.mark.parametrize("name", [b"content-length", b"Host", b"Content-Type", b"authorization", b"Content-Encoding"])
def test_the_header_strip_attack_is_refused(name: bytes) -> None:
    with pytest.raises(BadRequest, match="Connection must not list"):
        request(b"Connection: x, " + name)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([b"Content-Length: 5", b"Content-Length: 5"], BadRequest),
        ([b"Content-Length: 5, 5"], BadRequest),
        ([b"Content-Length: +5"], BadRequest),
        ([b"Content-Length: "], BadRequest),
        ([b"Content-Length: 1234567890123456789"], BadRequest),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], BadRequest),
        ([b"Transfer-Encoding: gzip, chunked"], UnsupportedFraming),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], BadRequest),
        ([b"Host: other"], BadRequest),
        ([b" folded: 1"], BadRequest),
        ([b"X : 1"], BadRequest),
        ([b"X: a\nb"], BadRequest),
        ([b"X: a\rb"], BadRequest),
        ([b"X: a\0b"], BadRequest),
        ([b"X"], BadRequest),
        ([b""], BadRequest),
        ([b"X: %d" % i for i in range(100)], HeadTooLarge),
    ],
)
def test_refused(fields: list[bytes], error: type[ProxyError]) -> None:
    for _ in range(2):  # the second time nothing is new about it
        with pytest.raises(error):
            request(*fields)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"GET /x HTTP/2.0", UnsupportedVersion),
        (b"PRI * HTTP/2.0", UnsupportedVersion),
        (b"GET /x HTTP/0.9", UnsupportedVersion),
        (b"GET /x", BadRequest),
        (b"GET  /x HTTP/1.1", BadRequest),
        (b"GET /x HTTP/1.1 ", BadRequest),
        (b"GET\t/x HTTP/1.1", BadRequest),
        (b"get /x HTTP/1.1", BadRequest),
        (b"GET /\xe4 HTTP/1.1", BadRequest),
        (b"GET /x#y HTTP/1.1", BadRequest),
        (b"GET * HTTP/1.1", BadRequest),
        (b"GET @elsewhere/ HTTP/1.1", BadRequest),
        (b"CONNECT elsewhere:443 HTTP/1.1", BadRequest),
        (b"GET http://user@h/ HTTP/1.1", BadRequest),
        (b"GET ftp://h/ HTTP/1.1", BadRequest),
        (b"GET /" + b"x" * 8192 + b" HTTP/1.1", TargetTooLong),
    ],
)
def test_no_request_line(line: bytes, error: type[ProxyError]) -> None:
    with pytest.raises(error):
        request(line=line)


@pytest.mark.parametrize(
    ("target", "path"), [(b"http://named/x?q", b"/x?q"), (b"HTTP://named", b"/"), (b"http://named?q", b"/?q")]
)
def test_the_authority_of_an_absolute_target_wins(target: bytes, path: bytes) -> None:
    head = request(line=b"GET " + target + b" HTTP/1.1", host=b"Host: other")
    assert (head.target, head.host) == (path, b"named")


def test_only_a_whole_websocket_request_asks_for_an_upgrade() -> None:
    fields = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"]
    head = request(*fields, line=b"GET /x HTTP/1.1")
    assert head.upgrade
    assert sent(head)[-2:] == [b"Connection: Upgrade", b"Upgrade: websocket"]
    for missing in range(3):
        head = request(*fields[:missing], *fields[missing + 1 :], line=b"GET /x HTTP/1.1")
        assert not head.upgrade
        assert b"upgrade" not in b"\n".join(sent(head)).lower()
    assert not request(*fields).upgrade  # POST


@pytest.mark.parametrize(
    ("peer", "before", "lines"),
    [
        ("10.0.0.1", b"", [b"X-Forwarded-For: 10.0.0.1", b'Forwarded: for=10.0.0.1;host="h:1";proto=http']),
        ("::1", b"", [b"X-Forwarded-For: ::1", b'Forwarded: for="[::1]";host="h:1";proto=http']),
        (
            "10.0.0.1", b"1.2.3.4, 2001:db8::1",
            [
                b"X-Forwarded-For: 1.2.3.4, 2001:db8::1, 10.0.0.1",
                b'Forwarded: for=1.2.3.4, for="[2001:db8::1]", for=10.0.0.1;host="h:1";proto=http',
            ],
        ),
    ],
)  # fmt: skip
def test_where_it_came_from(peer: str, before: bytes, lines: list[bytes]) -> None:
    said = origin(peer, "http", b"h:1", before).split(b"\r\n")
    assert [said[0], said[3]] == lines
    assert said[1:3] == [b"X-Forwarded-Proto: http", b"X-Forwarded-Host: h:1"]
    assert said[4:] == [b"Via: 1.1 fairway", b""]


@pytest.mark.parametrize("host", [b"h/x", b"a b", b"user@h", b"h,h", b'h"', b"[::1", b"h:port", b"h:123456"])
def test_what_is_no_host(host: bytes) -> None:
    with pytest.raises(BadRequest, match="is not a host"):
        origin("10.0.0.1", "http", host)


@pytest.mark.parametrize(
    ("raw", "method", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"POST", 5, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"HEAD", 0, True),
        (b"HTTP/1.1 204 No Content", b"POST", 0, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", b"GET", 0, True),
        (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked", b"POST", None, True),
        (b"HTTP/1.1 200", b"POST", -1, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", b"POST", 5, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", b"POST", 5, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close", b"POST", 5, False),
    ],
)
def test_answers(raw: bytes, method: bytes, length: int | None, keep_alive: bool) -> None:
    answer = parse_answer(raw, method)
    assert (answer.length, answer.keep_alive) == (length, keep_alive)


def test_an_answer_is_written_anew() -> None:
    raw = b"HTTP/1.0 200 Fine\r\nX-A:1\r\nKeep-Alive: x\r\nConnection: X-A, Content-Type\r\nContent-Type: t"
    raw += b"\r\nContent-Length: 2"
    assert parse_answer(raw, b"GET").to_client(b"X-Added: y\r\n") == (
        b"HTTP/1.1 200 Fine\r\nContent-Type: t\r\nContent-Length: 2\r\nX-Added: y\r\nVia: 1.1 fairway\r\n\r\n"
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200 OK", b"HTTP/1.1 99 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1  200 OK", b"ICY 200 OK", b"",
        b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\n X: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
    ],
)  # fmt: skip
def test_no_answer(raw: bytes) -> None:
    with pytest.raises(WorkerAnswersBadly):
        parse_answer(raw, b"POST")
