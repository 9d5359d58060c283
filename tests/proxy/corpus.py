"""What smugglers send: heads. Each is refused, or is exactly one request in which no two parsers could see different ones.

From RFC 9112 11.2, the HTTP Garden, T-Reqs, smuggler.py and the advisories of the parsers in use. Chunked bodies are in
corpus_bodies.py, tests in test_smuggling.py.
"""

from __future__ import annotations

from dataclasses import dataclass

CL, TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """`refused`: the statuses it may be refused with. `seen`: what the worker sees if it is not; None: it must be refused.

    `refused` empty: it must be accepted. `begun`: the worker may have seen the beginning of it, never its end.
    """

    sent: bytes
    refused: frozenset[int] = frozenset({400})
    seen: tuple[bytes, bytes] | None = None
    begun: bool = False


def request(*fields: bytes, line: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: h", body: bytes = b"") -> bytes:
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _refused(sent: bytes, *statuses: int) -> Case:
    return Case(sent, frozenset(statuses or {400}))


def _seen(sent: bytes, line: bytes = b"POST /x", body: bytes = b"") -> Case:
    return Case(sent, frozenset(), (line, body))


def _either(sent: bytes, line: bytes = b"POST /x", body: bytes = b"", *statuses: int) -> Case:
    return Case(sent, frozenset(statuses or {400}), (line, body))


FIVE = b"abcde"

LENGTHS: dict[str, Case] = {
    "CL and TE": _refused(request(CL, TE, body=b"0\r\n\r\n" + SMUGGLED)),
    "TE and CL": _refused(request(TE, CL, body=b"0\r\n\r\n" + SMUGGLED)),
    "CL 0 and TE": _refused(request(b"Content-Length: 0", TE, body=CHUNKS)),
    "CL and TE that is not chunked": _refused(request(CL, b"Transfer-Encoding: xchunked", body=FIVE), 400, 501),
    "CL and TE identity": _refused(request(CL, b"Transfer-Encoding: identity", body=FIVE), 400, 501),
    "CL and TE that is empty": _refused(request(CL, b"Transfer-Encoding:", body=FIVE), 400, 501),
    "two CL that differ": _refused(request(CL, b"Content-Length: 0", body=FIVE)),
    "two CL that agree": _refused(request(CL, CL, body=FIVE)),
    "two CL in different case": _refused(request(CL, b"CONTENT-LENGTH: 6", body=FIVE)),
    "two CL far apart": _refused(request(CL, *(b"X-%d: x" % n for n in range(40)), b"content-length: 1", body=FIVE)),
    "CL as a list": _refused(request(b"Content-Length: 5, 5", body=FIVE)),
    "CL, a comma after it": _refused(request(b"Content-Length: 5,", body=FIVE)),
    "CL, a comma before it": _refused(request(b"Content-Length: ,5", body=FIVE)),
    "CL, a parameter after it": _refused(request(b"Content-Length: 5;a", body=FIVE)),
    "CL with a sign": _refused(request(b"Content-Length: +5", body=FIVE)),
    "CL negative": _refused(request(b"Content-Length: -5", body=FIVE)),
    "CL minus zero": _refused(request(b"Content-Length: -0")),
    "CL empty": _refused(request(b"Content-Length:", body=FIVE)),
    "CL a space": _refused(request(b"Content-Length:  ", body=FIVE)),
    "CL hexadecimal": _refused(request(b"Content-Length: 0x5", body=FIVE)),
    "CL binary": _refused(request(b"Content-Length: 0b1", body=FIVE)),
    "CL hexadecimal without a sign of it": _refused(request(b"Content-Length: a", body=FIVE)),
    "CL with an underscore, as Python reads numbers": _refused(request(b"Content-Length: 1_0", body=FIVE * 2)),
    "CL with a space in it": _refused(request(b"Content-Length: 5 0", body=FIVE)),
    "CL in quotes": _refused(request(b'Content-Length: "5"', body=FIVE)),
    "CL with a point": _refused(request(b"Content-Length: 5.0", body=FIVE)),
    "CL with an exponent": _refused(request(b"Content-Length: 5e0", body=FIVE)),
    "CL in Arabic digits": _refused(request("Content-Length: \u0665".encode(), body=FIVE)),
    "CL in full-width digits": _refused(request("Content-Length: \uff15".encode(), body=FIVE)),
    "CL with a superscript, a digit to isdigit": _refused(request(b"Content-Length: \xb2", body=FIVE)),
    "CL after a no-break space": _refused(request(b"Content-Length: \xa05", body=FIVE)),
    "CL after a vertical tab": _refused(request(b"Content-Length: \x0b5", body=FIVE)),
    "CL before a form feed": _refused(request(b"Content-Length: 5\x0c", body=FIVE)),
    "CL before a unit separator, space to strip": _refused(request(b"Content-Length: 5\x1f", body=FIVE)),
    "CL before a NUL": _refused(request(b"Content-Length: 5\0", body=FIVE)),
    "CL beyond 64 bits": _refused(request(b"Content-Length: 18446744073709551621", body=FIVE), 400, 413),
    "CL beyond 63 bits": _refused(request(b"Content-Length: 9223372036854775813", body=FIVE), 400, 413),
    "CL beyond 32 bits": _refused(request(b"Content-Length: 4294967301", body=FIVE), 400, 413),
    "CL of 400 digits": _refused(request(b"Content-Length: " + b"9" * 400, body=FIVE), 400, 413),
    "CL of 5000 digits, more than Python converts": _refused(
        request(b"Content-Length: " + b"9" * 5000, body=FIVE), 400, 413
    ),
    "CL with leading zeros": _either(request(b"Content-Length: 0000000005", body=FIVE), body=FIVE),
    "CL with 4000 leading zeros": _either(request(b"Content-Length: " + b"0" * 4000 + b"5", body=FIVE), body=FIVE),
    "CL between tabs": _either(request(b"Content-Length:\t 5 \t", body=FIVE), body=FIVE),
    "a space before the colon": _refused(request(b"Content-Length : 5", body=FIVE)),
    "a tab before the colon": _refused(request(b"Content-Length\t: 5", body=FIVE)),
    "a vertical tab before the colon": _refused(request(b"Content-Length\x0b: 5", body=FIVE)),
    "Content_Length beside CL": _either(request(CL, b"Content_Length: 0", body=FIVE), body=FIVE),
    "Transfer_Encoding beside CL": _either(request(CL, b"Transfer_Encoding: chunked", body=FIVE), body=FIVE),
    "X_Forwarded_For": _either(request(b"X_Forwarded_For: 127.0.0.1")),
    "CL of nothing": _seen(request(b"Content-Length: 0")),
    "CL": _seen(request(CL, body=FIVE), body=FIVE),
    "CL in capitals": _seen(request(b"CONTENT-LENGTH: 5", body=FIVE), body=FIVE),
    "CL without a space": _seen(request(b"Content-Length:5", body=FIVE), body=FIVE),
    "a body that looks like a request": _seen(
        request(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), body=SMUGGLED
    ),
    "GET with a body": _seen(request(CL, line=b"GET /x HTTP/1.1", body=FIVE), b"GET /x", FIVE),
    "DELETE with a body": _seen(request(CL, line=b"DELETE /x HTTP/1.1", body=FIVE), b"DELETE /x", FIVE),
    "GET with chunks": _seen(request(TE, line=b"GET /x HTTP/1.1", body=CHUNKS), b"GET /x", b"abc"),
    "POST without a body": _seen(request()),
}

CODINGS: dict[str, Case] = {
    f"TE {value!r}": _refused(request(b"Transfer-Encoding: " + value, body=CHUNKS), 400, 501)
    for value in (
        b"", b"xchunked", b"chunkedx", b"chunke", b"chunked, identity", b"chunked,chunked", b"chunked, gzip",
        b"gzip, chunked", b"identity", b"identity, chunked", b"cow", b"chunked cow", b"chunked chunked",
        b'"chunked"', b"'chunked'", b"(chunked)", b"chunked;q=1", b"chunked;a=b", b"chunked;", b"chunked, ;",
        b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x0c", b"chunked\x1c", b"chunked\x85", b"chunked\xa0",
        b"\xa0chunked", b"\xc2\xa0chunked", b"chunked\0", b"\0chunked", b"chunked\x7f", b"chunked\x08", b"\xffchunked",
        "chun\u212aed".encode(), "\uff43hunked".encode(), b"chun ked", b"chu\x00nked", b"chunked/1", b"=chunked",
        b"chunked\\", b"chunked\\,", b"chunked, chunked, chunked, chunked", b"trailers", b"none",
        b"chunked=", b"\xef\xbb\xbfchunked", b"chunked\xef\xbb\xbf", b"\xe2\x80\x8bchunked",
    )
} | {
    f"field {field!r}": _refused(request(field, body=CHUNKS), 400, 501)
    for field in (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-Encoding\x0b: chunked",
        b"Transfer-Encoding\x0c: chunked", b"Transfer-Encoding\0: chunked", b"Transfer-Encoding\r: chunked",
        b"Transfer-Encoding\n: chunked", b"Transfer-Encoding\r\n: chunked", b"Transfer-Encoding\n : chunked",
        b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"\x0bTransfer-Encoding: chunked",
        b"\xffTransfer-Encoding: chunked", b"\xa0Transfer-Encoding: chunked", b"\0Transfer-Encoding: chunked",
        b"Transfer-Encoding: \r\n chunked", b"Transfer-Encoding:\r\n\tchunked", b"Transfer-Encoding: chunked\r\n cow",
        b"Transfer-Encoding: \n chunked", b"Transfer-Encoding: chunked\r\r", b"Transfer-Encoding: \rchunked",
        b"Transfer-Encoding chunked", b"Transfer-Encoding", b"Transfer-Encoding= chunked", b": chunked", b":",
        b"Transfer Encoding: chunked", b"(Transfer-Encoding): chunked", b'"Transfer-Encoding": chunked',
        b"[Transfer-Encoding: chunked", b"{Transfer-Encoding: chunked", b"Transfer-Encoding/: chunked",
        b"Transfer-Encoding,X: chunked", b"Transfer-Encoding;: chunked", b"Transfer-Encoding@: chunked",
        b"Transfer-Encoding\x7f: chunked", b"Transfer-Encoding\xad: chunked", b"T\xc9-Encoding: chunked",
        "Transfer\u2010Encoding: chunked".encode(), b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\r\n\tTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
        b"X: y\r\n\rTransfer-Encoding: chunked", b"X: y\n\nTransfer-Encoding: chunked", b"X:\0\r\n" + TE,
        TE + b"\r\n" + TE, TE + b"\r\nTransfer-Encoding: identity", TE + b"\r\ntransfer-encoding: cow",
        b"Transfer-Encoding: identity\r\n" + TE, b"Transfer-Encoding:\r\n" + TE, b"TRANSFER-ENCODING: chunked\r\n" + TE,
    )
} | {
    "TE in HTTP/1.0": _refused(request(TE, body=CHUNKS, line=b"POST /x HTTP/1.0"), 400),
    "TE in HTTP/1.0 with keep-alive": _refused(
        request(TE, b"Connection: keep-alive", body=CHUNKS, line=b"POST /x HTTP/1.0"), 400
    ),
    "TE": _seen(request(TE, body=CHUNKS), body=b"abc"),
    "TE in capitals": _seen(request(b"TRANSFER-ENCODING: CHUNKED", body=CHUNKS), body=b"abc"),
    "TE in mixed case": _seen(request(b"tRANSFER-eNCODING: ChUnKeD", body=CHUNKS), body=b"abc"),
    "TE without a space": _seen(request(b"Transfer-Encoding:chunked", body=CHUNKS), body=b"abc"),
    "TE between tabs": _either(request(b"Transfer-Encoding:\t chunked \t", body=CHUNKS), b"POST /x", b"abc"),
    "TE, a comma after it": _either(request(b"Transfer-Encoding: chunked,", body=CHUNKS), b"POST /x", b"abc", 400, 501),
    "TE, a comma before it": _either(request(b"Transfer-Encoding: ,chunked", body=CHUNKS), b"POST /x", b"abc", 400, 501),
    "the TE field": _seen(request(CL, b"TE: chunked, trailers", body=FIVE), body=FIVE),
    "X-Transfer-Encoding": _seen(request(CL, b"X-Transfer-Encoding: chunked", body=FIVE), body=FIVE),
}  # fmt: skip

GET = b"GET /x"
LINES: dict[str, Case] = {
    f"line {line!r}": _refused(request(line=line), 400, 405, 414, 501, 505)
    for line in (
        b"GET\t/x\tHTTP/1.1", b"GET\x0b/x\x0bHTTP/1.1", b"GET\x0c/x HTTP/1.1", b"GET\xa0/x HTTP/1.1", b"GET\r/x HTTP/1.1",
        b"GET /x\tHTTP/1.1", b"GET /x y HTTP/1.1", b"GET /x\0 HTTP/1.1", b"GET /x\x7f HTTP/1.1", b"GET /x\x01 HTTP/1.1",
        b"GET /x\x0b HTTP/1.1", b" GET /x HTTP/1.1", b"\tGET /x HTTP/1.1", b"\0GET /x HTTP/1.1", b"GET  HTTP/1.1",
        b"GET HTTP/1.1", b"GET", b"", b"/x HTTP/1.1", b"GET /x", b"GET /x ", b"GET x HTTP/1.1", b"GET ?x HTTP/1.1",
        b"GET @elsewhere/ HTTP/1.1", b"GET :80/ HTTP/1.1", b"GET h:80 HTTP/1.1", b"GET * HTTP/1.1", b"GET ;/x HTTP/1.1",
        b"GET http:/x HTTP/1.1", b"GET http:///x HTTP/1.1", b"GET http://@/x HTTP/1.1",
        b"GET http://:80/x HTTP/1.1", b"GET ftp://h/x HTTP/1.1", b"GET file:///x HTTP/1.1", b"GET http://h:x/ HTTP/1.1",
        b"GET javascript:x HTTP/1.1", b"GET http://h\\@evil/x HTTP/1.1", b"GET http://h\tx/ HTTP/1.1",
        b"GET http://[::1/x HTTP/1.1", b"GET http://[/x HTTP/1.1", b"GET http://h h/x HTTP/1.1",
        b"CONNECT elsewhere:443 HTTP/1.1", b"CONNECT /x HTTP/1.1", b"CONNECT 127.0.0.1:1 HTTP/1.0",
        b"GET /x HTTP/0.9", b"GET /x HTTP/2.0", b"GET /x HTTP/3.0", b"GET /x HTTP/9.9", b"GET /x HTTP/1", b"GET /x HTTP/1.",
        b"GET /x HTTP/.1", b"GET /x HTTP/1.1.1", b"GET /x HTTP/1.10", b"GET /x HTTP/01.1", b"GET /x HTTP/1,1",
        b"GET /x HTTP/+1.1", b"GET /x HTTP/-1.1", b"GET /x HTTP/1.x", b"GET /x HTTP /1.1", b"GET /x HTTP/ 1.1",
        b"GET /x http/1.1", b"GET /x Http/1.1", b"GET /x HTTPS/1.1", b"GET /x HTTP1.1", b"GET /x HTTP\\1.1", b"GET /x /1.1",
        b"GET /x HTTP/1.1\x0b", b"GET /x HTTP/1.1\0", b"GET /x HTTP/1.1x", b"GET /x HTTP/1.1\r", b"GET /x HTTP/1.1,",
        b"GET /x HTTP/1.1 HTTP/1.0", b"GET /x xHTTP/1.1", b"GET /x \0HTTP/1.1", "GET /x HTTP/\uff11.1".encode(),
        b"OPTIONS /x RTSP/1.0", b"ANNOUNCE /x RTSP/1.0", b"GET_PARAMETER /x RTSP/1.0", b"SOURCE /x ICE/1.0",
        b"GET /x ICE/1.0", b"GET /x RTSP/1.0", b"GET /x SIP/2.0", b"GET /x SHTTP/1.3", b"GET /x PROXY/1.1",
        b"get /x HTTP/1.1", b"Get /x HTTP/1.1", b"gET /x HTTP/1.1", b"GE T /x HTTP/1.1", b"G(T /x HTTP/1.1",
        b"GET: /x HTTP/1.1", b'"GET" /x HTTP/1.1', b"G\0T /x HTTP/1.1", b"\xffGET /x HTTP/1.1", b"G\xc9T /x HTTP/1.1",
        b"PRI * HTTP/2.0", b"A" * 9000 + b" /x HTTP/1.1", b"HTTP/1.1 200 OK",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2", b"\r\n\r\n\n\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"\x05\x01\0",
    )
} | {
    "OPTIONS *": _refused(request(line=b"OPTIONS * HTTP/1.1"), 200, 204, 400, 405, 501),
    "HTTP/2's preface": _refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 400, 505),
    "HTTP/1.2": _either(request(line=b"GET /x HTTP/1.2"), GET, b"", 400, 505),
    "many spaces": _either(request(line=b"GET   /x   HTTP/1.1"), GET),
    "a space at the end": _either(request(line=b"GET /x HTTP/1.1 "), GET),
    "a fragment": _either(request(line=b"GET /x#f HTTP/1.1"), GET),
    "a method of HTTP/2's preface": _either(request(line=b"PRI /x HTTP/1.1"), b"PRI /x", b"", 400, 405, 501),
    "a method nobody knows": _either(request(line=b"FROB /x HTTP/1.1"), b"FROB /x", b"", 400, 405, 501),
    "SOURCE, llhttp's word for another protocol": _either(
        request(line=b"SOURCE /x HTTP/1.1"), b"SOURCE /x", b"", 400, 405, 501
    ),
    "an absolute target": _seen(request(line=b"GET http://h/x HTTP/1.1"), GET),
    "an absolute target with a port": _seen(request(line=b"GET http://h:80/x?y HTTP/1.1"), b"GET /x?y"),
    "an absolute target without a path": _seen(request(line=b"GET http://h HTTP/1.1"), b"GET /"),
    "an absolute target with a query alone": _either(request(line=b"GET http://h?q HTTP/1.1"), b"GET /?q"),
    "an absolute target of an address": _seen(request(line=b"GET http://[::1]:80/x HTTP/1.1"), GET),
    "an absolute target in capitals": _either(request(line=b"GET HTTP://H/x HTTP/1.1"), GET),
    "an absolute target with a user": _either(request(line=b"GET http://u:p@h/x HTTP/1.1"), GET),
    "an absolute target of https": _either(request(line=b"GET https://h/x HTTP/1.1"), GET, b"", 400, 421),
    "an absolute target with a port too high": _either(request(line=b"GET http://h:99999/x HTTP/1.1"), GET),
    "two slashes": _seen(request(line=b"GET //elsewhere/x HTTP/1.1"), b"GET //elsewhere/x"),
    "an at-sign after the slash": _seen(request(line=b"GET /@elsewhere/x HTTP/1.1"), b"GET /@elsewhere/x"),
    "dots": _either(request(line=b"GET /a/../x HTTP/1.1"), b"GET /a/../x"),
    "CRLF in per cent": _seen(request(line=b"GET /x%0d%0aHost:%20e HTTP/1.1"), b"GET /x%0d%0aHost:%20e"),
    "NUL in per cent": _seen(request(line=b"GET /x%00%2e%2e%2f HTTP/1.1"), b"GET /x%00%2e%2e%2f"),
    "a query with all": _seen(request(line=b"GET /x?a=b&c=%26/?:@!$'()*+,; HTTP/1.1"), b"GET /x?a=b&c=%26/?:@!$'()*+,;"),
    "bytes above 127 in the target": _either(request(line=b"GET /\xc3\xa9 HTTP/1.1"), b"GET /\xc3\xa9"),
    "what a target must not have": _either(request(line=b'GET /"<>\\^`{|} HTTP/1.1'), b'GET /"<>\\^`{|}'),
    "HTTP/1.0": _seen(request(CL, line=b"POST /x HTTP/1.0", body=FIVE), body=FIVE),
    "HTTP/1.0 without Host": _seen(request(CL, line=b"POST /x HTTP/1.0", host=b"", body=FIVE), body=FIVE),
    "an empty line first": _seen(b"\r\n" + request(CL, body=FIVE), body=FIVE),
    "two empty lines first": _either(b"\r\n\r\n" + request(CL, body=FIVE), body=FIVE),
    "LF first": _either(b"\n" + request(CL, body=FIVE), body=FIVE),
    "LF alone, everywhere": _refused(request(CL, body=FIVE).replace(b"\r\n", b"\n")),
    "LF after the request line": _refused(request().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n")),
    "LF after a field": _refused(request(b"X: y").replace(b"y\r\n", b"y\n")),
    "LF as the empty line": _refused(request()[:-2] + b"\n"),
    "CR alone as the empty line": _refused(request()[:-2] + b"\rX"),
    "CR CR LF": _refused(request(b"X: y").replace(b"y\r\n", b"y\r\r\n")),
    "CR CR LF as the empty line": _refused(request()[:-2] + b"\r\r\n"),
    "CR alone, everywhere": _refused(request(CL).replace(b"\r\n", b"\r") + b"X\r\n\r\n"),
}  # fmt: skip

FIELDS: dict[str, Case] = {
    f"Host {value!r}": _refused(request(host=b"Host: " + value))
    for value in (
        b"a b", b"a,b", b"a/b", b"a@b", b"a?b", b"a#b", b'"h"', b"h\x0b", b"h\tx", b"h:port", b"h:80:80", b"[::1", b"::1]",
        b"h\\x", b"<h>", b"h\0", b"h\xff", "h\xe9".encode(), b"http://h", b"h:-1", b"h:+1", b"{h}", b"h^", b"h|",
        b"h`",
    )
} | {
    "two Hosts": _refused(request(b"Host: other")),
    "two Hosts that agree": _refused(request(b"Host: h")),
    "two Hosts in different case": _refused(request(b"HOST: other")),
    "two Hosts, the second empty": _refused(request(b"Host:")),
    "two Hosts in HTTP/1.0": _refused(request(b"host: other", line=b"GET /x HTTP/1.0")),
    "two Hosts under an absolute target": _refused(request(b"Host: other", line=b"GET http://h/x HTTP/1.1")),
    "no Host": _refused(request(host=b"")),
    "no Host, but X-Host": _refused(request(b"X-Host: h", host=b"")),
    "no Host under an absolute target": _refused(request(host=b"", line=b"GET http://h/x HTTP/1.1")),
    "Host folded in from the first field": _refused(request(host=b" Host: h")),
    "Host with a space before the colon": _refused(request(host=b"Host : h")),
    "Host with half an escape": _either(request(host=b"Host: %")),
    "Host empty": _either(request(host=b"Host:")),
    "Host with a colon and no port": _either(request(host=b"Host: h:")),
    "Host with a port": _seen(request(host=b"Host: h:12480")),
    "Host that is an address": _seen(request(host=b"Host: [::1]:80")),
    "Host in capitals": _seen(request(host=b"HOST: H.Example")),
    "Connection lists CL": _refused(request(CL, b"Connection: content-length", body=FIVE)),
    "Connection lists CL among others": _refused(request(CL, b"Connection: close, ,Content-LENGTH ", body=FIVE)),
    "Connection lists CL in its second field": _refused(
        request(CL, b"Connection: keep-alive", b"connection: content-length", body=FIVE)
    ),
    "Connection lists Host": _refused(request(b"Connection: X-A, host")),
    "Connection lists the content's type": _refused(request(CL, b"Connection: content-type", body=FIVE)),
    "Connection lists rights": _refused(request(b"Connection: authorization", b"Authorization: Bearer x")),
    "Connection lists TE": _either(request(TE, b"Connection: transfer-encoding", body=CHUNKS), body=b"abc"),
    "Connection lists X-Forwarded-For": _either(request(b"Connection: X-Forwarded-For, X-Forwarded-Host, Via")),
    "Connection is nonsense": _either(request(b"Connection: @(,=;")),
    "Connection closes, and early data": _either(request(CL, b"Connection: keep-alive", body=FIVE), body=FIVE),
    "Upgrade with a body": _seen(request(CL, b"Upgrade: h2c", body=FIVE), body=FIVE),
    "Upgrade to h2c as asked for": _seen(
        request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ")
    ),
    "Upgrade to h2c with a body": _either(
        request(CL, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", body=FIVE), body=FIVE
    ),
    "Upgrade to h2c with chunks": _either(request(TE, b"Connection: Upgrade", b"Upgrade: h2c", body=CHUNKS), body=b"abc"),
    "Upgrade to nothing": _either(request(b"Connection: Upgrade")),
    "a control byte in a name": _refused(request(b"X\x01A: b")),
    "NUL in a value": _refused(request(b"X-A: b\0c")),
    "NUL as a value": _refused(request(b"X-A: \0")),
    "CR in a value": _refused(request(b"X-A: b\rX: c")),
    "a control byte in a value": _either(request(b"X-A: b\x01c")),
    "DEL in a value": _either(request(b"X-A: b\x7fc")),
    "bytes above 127 in a value": _either(request(b"X-A: \x80\xff\xc3\xa9")),
    "an empty value": _seen(request(b"X-A:", b"X-B: ")),
    "a name of all that a token may have": _either(request(b"!#$%&'*+-.^_`|~0aA: x")),
    "a name of 20 KB": _refused(request(b"X" * 20_000 + b": x"), 400, 431),
    "a folded first field": _refused(request(host=b" X: y\r\nHost: h")),
    "a folded last field": _refused(request(b"X-A: b\r\n c")),
    "a fold of spaces alone": _refused(request(b"X-A: b\r\n   ")),
    "200 fields": _refused(request(*(b"X-%d: x" % n for n in range(200))), 431),
    "2000 fields of next to nothing": _refused(request(*(b"a:" for n in range(2000))), 431),
    "a field of 20 KB": _refused(request(b"X-A: " + b"a" * 20_000), 431),
    "fields of 20 KB together": _refused(request(*(b"X-%d: " % n + b"a" * 400 for n in range(50))), 431),
    "a target of 9 KB": _refused(request(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    "a target of 64 KB": _refused(request(line=b"GET /" + b"a" * 65_536 + b" HTTP/1.1"), 414, 431),
    "an absolute target of 9 KB": _refused(request(line=b"GET http://" + b"a" * 9000 + b"/ HTTP/1.1"), 400, 414),
    "90 fields": _seen(request(*(b"X-%d: x" % n for n in range(90)))),
    "a head of 15 KB": _seen(request(*(b"X-%d: " % n + b"a" * 740 for n in range(20)))),
    "a target of 8000 bytes": _seen(request(line=b"GET /" + b"a" * 8000 + b" HTTP/1.1"), b"GET /" + b"a" * 8000),
}  # fmt: skip

HEADS = {**LENGTHS, **CODINGS, **LINES, **FIELDS}
