"""The head of a request, read by llhttp's strict grammar and judged: exactly one framing, or none of it is believed.

llhttp itself refuses both framings at once, two lengths, folded lines, NUL, bare CR or LF, spaces before a colon. Sources:
RFC 9110 10.1.1 (Expect), RFC 9112 3 (request lines, targets, Host), 6.1 and 6.3 (framing), 9.3 (whether it goes on).
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade, HttpRequestParser

from ...errors import BadRequest
from .errors import HeadTooLarge, TargetTooLong, UnknownExpectation, UnsupportedFraming, UnsupportedVersion

END = b"\r\n\r\n"
MAX_HEAD, MAX_FIELDS, MAX_TARGET = 16 * 1024, 100, 8 * 1024  # bytes, fields, bytes
MAX_IDLE = 16 * 1024  # bytes of chunked framing and trailers without a byte of data between them

# Names as nearly all clients write them, in lower case.
NAMES = {
    spelt.encode(): name
    for name in ("host", "user-agent", "accept", "accept-encoding", "connection", "content-type", "content-length",
                 "content-encoding", "transfer-encoding", "expect", "via", "forwarded", "x-forwarded-for",
                 "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent")
    for spelt in (name, name.title())
}  # fmt: skip


METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "OPTIONS")}


class Head:
    """`Head(raw)`: of the bytes up to and with the empty line. Raises BadRequest and the errors of this folder.

    `length`: of the body in bytes; None: chunked. `headers`: by lower-case name, values of one name joined by commas.
    """

    __slots__ = (
        "_body", "_complete", "_fields", "_idle", "_more", "_parser", "_target", "expects", "headers", "http11",
        "keep_alive", "length", "method", "path", "raw_query",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.headers: dict[str, str] = {}
        self._target, self._fields, self._complete, self._more = b"", 0, False, False
        self._body: list[bytes] = []
        self._idle = 0
        self._parser: HttpRequestParser | None = None
        parser = HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except HttpParserUpgrade:
            pass  # no other protocol is spoken here: it is answered as if nobody had asked for one
        except HttpParserInvalidURLError:
            raise BadRequest("malformed request: the target has characters that must be percent-encoded") from None
        except HttpParserError as error:
            raise BadRequest(f"malformed request: {error}") from None
        if self._body or self._more:
            raise BadRequest("malformed request: a line of its head does not end with CR LF")
        if not self._target:
            raise BadRequest("malformed request: there is no request line")
        version = parser.get_http_version()
        self.http11 = version == "1.1"
        if not self.http11 and version != "1.0":
            raise UnsupportedVersion(f"HTTP/{version}: only HTTP/1.1 and 1.0 are spoken here")
        method = parser.get_method()
        self.method = METHODS.get(method) or method.decode("ascii")
        if self._fields > MAX_FIELDS:
            raise HeadTooLarge(f"{self._fields} fields in the head; at most {MAX_FIELDS} are read")
        self.path, self.raw_query = _target(self.method, self._target)
        self._judge(self.headers, parser)

    def feed(self, data: bytes) -> list[bytes]:
        """More of a chunked body -> the data in it. Raises BadRequest. Then `complete`, and `more` says what followed."""
        assert self._parser is not None
        pieces = self._body = list[bytes]()
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if not self._complete:
                raise BadRequest(f"malformed chunked body: {error}") from None
            self._more = True
        self._idle = 0 if pieces else self._idle + len(data)
        if self._idle > MAX_IDLE:
            raise BadRequest("the chunked body has lines or trailers without end")
        if self._complete:
            self._parser = None  # it and we hold each other
        return pieces

    @property
    def complete(self) -> bool:
        """Whether the last chunk was read."""
        return self._complete

    @property
    def more(self) -> bool:
        """Whether something came after the last chunk, which is lost: the connection must end with this request."""
        return self._more

    def forget(self) -> None:
        """Nothing of the body is wanted any more."""
        self._parser = None

    def _judge(self, headers: dict[str, str], parser: HttpRequestParser) -> None:
        host = headers.get("host")
        if (host is None and self.http11) or (host is not None and "," in host):
            raise BadRequest("malformed request: exactly one Host field is needed")
        self.length: int | None = 0
        if "content-length" in headers:
            self.length = int(headers["content-length"])
        elif "transfer-encoding" in headers:
            coding = headers["transfer-encoding"].strip().lower()
            if not self.http11:
                raise BadRequest("malformed request: Transfer-Encoding needs HTTP/1.1")
            if coding != "chunked":
                raise UnsupportedFraming(f"Transfer-Encoding: {coding[:40]!r}: only chunked is understood")
            self.length, self._parser = None, parser
        self.keep_alive = self.http11
        if "connection" in headers:
            listed = [token.strip() for token in headers["connection"].lower().split(",")]
            self.keep_alive = "close" not in listed and (self.http11 or "keep-alive" in listed)
        self.expects = False
        if "expect" in headers and (expect := headers["expect"].strip()):
            if expect.lower() != "100-continue":
                raise UnknownExpectation(f"unknown Expect: {expect[:80]}: only 100-continue is understood")
            self.expects = self.http11 and self.length != 0  # of HTTP/1.0 it is ignored (RFC 9110 10.1.1)

    # -- called by the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._more = self._complete  # another request

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parser is not None:
            return  # a trailer, or the head of another request
        self._fields += 1
        key, text = NAMES.get(name) or name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = True

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.path} {self.length}>"


def _target(method: str, raw: bytes) -> tuple[str, str]:
    """A request target -> its path and its query, as they came."""
    if len(raw) > MAX_TARGET:
        raise TargetTooLong(f"the request target has {len(raw)} bytes; at most {MAX_TARGET} are read")
    target = raw.decode("latin-1")
    if not target.startswith("/"):
        scheme, slashes, rest = target.partition("://")
        if slashes and scheme.lower() in ("http", "https"):  # the absolute form, as proxies send it
            cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
            target = rest[cut:] if rest[cut : cut + 1] == "/" else "/" + rest[cut:]
        elif not (method == "OPTIONS" and target == "*"):
            raise BadRequest(f"malformed request: {method} {target[:80]}: the target must be a path")
    if "#" in target:
        raise BadRequest("malformed request: a fragment is not for a server")
    path, _, query = target.partition("?")
    return path, query
