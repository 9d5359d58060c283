"""Heads on their way through: what is refused, what is dropped, what is added. Sans-io.

A head is read line by line against the grammar, judged, and written anew: nothing raw is ever passed on, and exactly
one framing leaves us. A line is either wholly what RFC 9110 5 calls a field, or the request is refused: folded lines, a
bare CR or LF, a space before the colon are no fields. Lines that were understood are remembered (docs/decisions/0013),
since nearly all of them come again. Sources: RFC 9110 5 and 7.6 (fields, Connection, Via), RFC 9112 3 (request lines,
targets, Host), 6.1 and 6.3 (framing), RFC 7239 and its older cousins.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from .errors import (
    BadRequest,
    HeadTooLarge,
    TargetTooLong,
    UnknownExpectation,
    UnsupportedFraming,
    UnsupportedVersion,
    WorkerAnswersBadly,
)

MAX_HEAD: Final = 16 * 1024  # bytes
MAX_FIELDS: Final = 100
MAX_TARGET: Final = 8 * 1024  # bytes
END: Final = b"\r\n\r\n"
VIA: Final = b"Via: 1.1 fairway\r\n"

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"proxy-authenticate", b"proxy-authorization", b"expect")
)  # fmt: skip
FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"))
REQUEST_DROPPED = HOP_BY_HOP | FORWARDED | {b"content-length", b"host", b"x-fairway-service", b"x-request-id"}
REQUEST_NOTED = REQUEST_DROPPED | {b"accept", b"authorization", b"sec-websocket-key", b"traceparent"}
ANSWER_DROPPED = HOP_BY_HOP | {b"endpoint-load-metrics", b"x-request-id"}
ANSWER_NOTED = ANSWER_DROPPED | {b"content-length", b"retry-after"}
ONCE: Final = frozenset((b"content-length", b"transfer-encoding", b"host", b"expect", b"x-fairway-service"))
# A client that could name these as connection-specific would make us strip what the worker relies on.
NEVER_LISTED = frozenset((b"content-length", b"content-type", b"host", b"content-encoding", b"authorization"))

REMEMBERED: Final = 4096  # lines
MEMORABLE: Final = 256  # bytes of one
SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"x-api-key"))

REQUEST_LINE = re.compile(rb"([A-Z][A-Z_-]{0,31}) ([!-~]+) HTTP/(\d\.\d)")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?)?")


Read = TypeVar("Read")


def remember(known: dict[bytes, Read], line: bytes, read: Read) -> Read:
    """What was read of a line, for the next time; bounded in number and size."""
    if len(line) <= MEMORABLE:
        if len(known) >= REMEMBERED:
            known.clear()
        known[line] = read
    return read


_known_requests: Final[dict[bytes, tuple[bytes, bytes, bool]]] = {}
_known_statuses: Final[dict[bytes, tuple[int, bytes, bool]]] = {}
_known_lengths: Final[dict[bytes, int]] = {}


class Field:
    """A line that was read. `name`: lower case, if it is of interest; `ours`: the line as we write it, if it is kept."""

    __slots__ = ("name", "ours", "value")

    def __init__(self, name: bytes, value: bytes, ours: bytes) -> None:
        self.name, self.value, self.ours = name, value, ours


class Lines:
    """Fields already understood, by their raw line. Bounded in number and size; credentials are not remembered."""

    def __init__(self, noted: frozenset[bytes], dropped: frozenset[bytes]) -> None:
        self._noted, self._dropped = noted, dropped
        self._known: dict[bytes, Field] = {}

    def read(self, lines: list[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
        """-> what matters here: lower-case name -> value; the lines to keep. Raises BadRequest."""
        noted: dict[bytes, bytes] = {}
        kept: list[bytes] = []
        known = self._known
        for line in lines:
            field = known.get(line) or self._learn(line)
            name = field.name
            if name:
                value = field.value
                if name in noted:
                    if name in ONCE:
                        raise BadRequest(f"{name.decode()} must be there once, not twice")
                    value = noted[name] + b", " + value
                noted[name] = value
            if field.ours:
                kept.append(field.ours)
        return noted, kept

    def _learn(self, line: bytes) -> Field:
        found = FIELD.fullmatch(line)
        if found is None:
            raise BadRequest(f"this is no header field: {shown(line)}")
        name, value = found[1].lower(), found[2].strip(b" \t")
        if b"_" in name and name.replace(b"_", b"-") in self._dropped | ONCE:
            return Field(b"", b"", b"")  # to many a server behind us Content_Length is Content-Length
        ours = b"" if name in self._dropped else b"%b: %b\r\n" % (found[1], value)
        field = Field(name if name in self._noted else b"", value, ours)
        if name not in SECRET:
            remember(self._known, line, field)
        return field


class RequestHead:
    """`length`: of the body in bytes; None: chunked. `noted`: lower-case name -> value of the fields that matter here.

    `kept`: the lines that go on to the worker. `line`: the request line as it came.
    """

    __slots__ = ("host", "http11", "keep_alive", "kept", "length", "line", "method", "noted", "target", "upgrade")

    def __init__(
        self, line: bytes, method: bytes, target: bytes, host: bytes, http11: bool, length: int | None,
        noted: dict[bytes, bytes], kept: list[bytes],
    ) -> None:  # fmt: skip
        self.line, self.method, self.target, self.host = line, method, target, host
        self.http11, self.length, self.noted, self.kept = http11, length, noted, kept
        self.keep_alive, self.upgrade = http11, False

    def connection(self, value: bytes) -> None:
        """Takes in what the Connection field says. Raises BadRequest for the header-strip attack."""
        value = value.lower()
        if value == b"keep-alive":
            self.keep_alive = True
            return
        if value == b"close":
            self.keep_alive = False
            return
        listed = {token.strip(b" \t") for token in value.split(b",")}
        if stolen := sorted(listed & NEVER_LISTED):
            raise BadRequest(f"Connection must not list {b', '.join(stolen).decode()}")
        self.keep_alive = b"close" not in listed and (self.http11 or b"keep-alive" in listed)
        self.kept = without(self.kept, listed)
        self.upgrade = (
            b"upgrade" in listed
            and self.noted.get(b"upgrade", b"").lower() == b"websocket"
            and b"sec-websocket-key" in self.noted
            and self.http11
            and self.method == b"GET"
            and self.length == 0
        )

    @property
    def expects(self) -> bool:
        """Whether the body comes only when we say so. Raises UnknownExpectation."""
        expect = self.noted.get(b"expect")
        if expect is None:
            return False
        if expect.lower() != b"100-continue":
            raise UnknownExpectation(f"Expect: {shown(expect)}: only 100-continue is understood")
        return self.http11  # RFC 9110 10.1.1: of HTTP/1.0 it is ignored

    def value(self, name: bytes) -> bytes:
        """Of any field, by its lower-case name; empty if it is not there."""
        if name in self.noted:
            return self.noted[name]
        found = (line.partition(b":") for line in self.kept)
        return next((value.strip() for key, _, value in found if key.lower() == name), b"")

    def to_worker(self, target: bytes, length: int | None, *added: bytes) -> bytes:
        """`length`: of the body that will follow; None sends it chunked. `added`: whole lines."""
        if self.upgrade:
            framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        elif length is None:
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
        elif length or self.method not in BODYLESS:
            framing = b"Content-Length: %d\r\n\r\n" % length
        else:
            framing = b"\r\n"
        return b"".join(
            [self.method, b" ", target, b" HTTP/1.1\r\nHost: ", self.host, b"\r\n", *self.kept, *added, framing]
        )


BODYLESS: Final = frozenset(
    (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE")
)  # no body is meant where none is announced


REQUEST_LINES: Final = Lines(REQUEST_NOTED, REQUEST_DROPPED)
ANSWER_LINES: Final = Lines(ANSWER_NOTED, ANSWER_DROPPED)


def parse_request(raw: bytes) -> RequestHead:
    """`raw`: the request line and the fields, up to the empty line. Raises BadRequest and its like."""
    lines = raw.split(b"\r\n")
    line = lines.pop(0)
    method, target, http11 = _known_requests.get(line) or _read_request_line(line)
    if len(lines) > MAX_FIELDS:
        raise HeadTooLarge(f"{len(lines)} fields in the head; at most {MAX_FIELDS} are read")
    noted, kept = REQUEST_LINES.read(lines)
    host = noted.pop(b"host", None)
    if host is None:
        if http11:
            raise BadRequest("exactly one Host field is needed; there is none")
        host = b""
    if target[:1] != b"/":
        target, host = _absolute(method, target, host)
    said = noted.pop(b"content-length", None)
    length: int | None = 0
    if said is not None:
        length = _length(said)
    head = RequestHead(line, method, target, host, http11, length, noted, kept)
    if noted:
        if b"transfer-encoding" in noted:
            _check_chunked(noted[b"transfer-encoding"], said, http11)
            head.length = None
        if b"connection" in noted:
            head.connection(noted[b"connection"])
    return head


def _check_chunked(coding: bytes, length: bytes | None, http11: bool) -> None:
    if length is not None:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other")
    if not http11:
        raise BadRequest("Transfer-Encoding needs HTTP/1.1")
    if coding.lower() != b"chunked":
        raise UnsupportedFraming(f"Transfer-Encoding: {shown(coding)}: only chunked is understood")


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    """-> method, target, whether it is HTTP/1.1."""
    found = REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest(f"this is no request line: {shown(line)}")
    method, target, version = found[1], found[2], found[3]
    if method == b"CONNECT":
        raise BadRequest("CONNECT: this is no tunnel to elsewhere")
    if version not in (b"1.1", b"1.0"):
        remedy = "; a gRPC client asks for a worker's address (GET /), and calls it" if version == b"2.0" else ""
        raise UnsupportedVersion(f"HTTP/{version.decode()}: only HTTP/1.1 and 1.0 are spoken here{remedy}")
    if len(target) > MAX_TARGET:
        raise TargetTooLong(f"the request target has {len(target)} bytes; at most {MAX_TARGET} are read")
    if b"#" in target:
        raise BadRequest(f"{shown(target)}: a fragment is not for a server")
    return remember(_known_requests, line, (method, target, version == b"1.1"))


def _length(value: bytes) -> int:
    known = _known_lengths.get(value)
    if known is not None:
        return known
    if not value.isdigit() or len(value) > 18:
        raise BadRequest(f"Content-Length must be one whole number, not {shown(value)}")
    return remember(_known_lengths, value, int(value))


def _absolute(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """-> path and query, authority: that of an absolute target wins over the Host field (RFC 9112 3.2.2)."""
    scheme, slashes, rest = target.partition(b"://")
    if not slashes or scheme.lower() not in (b"http", b"https") or not target.isascii() or b"#" in target:
        raise BadRequest(f"{method.decode()} {shown(target)}: the request target must be a path")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    if authority[:1] in (b"", b":") or b"@" in authority:
        raise BadRequest(f"{method.decode()} {shown(target)}: no host, or more than a host")
    return path if path[:1] == b"/" else b"/" + path, authority


def without(kept: list[bytes], names: set[bytes]) -> list[bytes]:
    """The lines but those of `names` (lower case)."""
    return [line for line in kept if line.partition(b":")[0].lower() not in names]


def origin(peer: str, scheme: str, host: bytes, before: bytes = b"") -> bytes:
    """The lines that tell a worker where a request came from. Raises BadRequest for a host that is none.

    Written anew: what a client says of its origin is worth nothing. `before`: the X-Forwarded-For of a proxy that is
    trusted, to which its own address is added.
    """
    if not HOST.fullmatch(host):
        raise BadRequest(f"Host: {shown(host)} is not a host")
    peer = peer or "unknown"
    quoted = b'"%b"' % host if host else b'""'
    chain = b"".join(b"for=%b, " % _node(node) for node in before.split(b",") if node.strip())
    return (
        b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b"Forwarded: %bfor=%b;host=%b;proto=%b\r\n"
        % (
            before + b", " if before else b"",
            peer.encode(),
            scheme.encode(),
            host,
            chain,
            _node(peer.encode()),
            quoted,
            scheme.encode(),
        )
    ) + VIA


def _node(text: bytes) -> bytes:
    """An address as RFC 7239 6 writes it."""
    text = text.strip(b' \t"[]')
    if re.fullmatch(rb"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", text):
        return b'"[%b]"' % text
    return text if re.fullmatch(rb"[A-Za-z0-9._-]+", text) else b"unknown"


class AnswerHead:
    """A worker's. `length`: of the body; None: chunked; -1: up to the connection's end. `kept`: lines for the client."""

    __slots__ = ("first", "keep_alive", "kept", "length", "noted", "status")

    def __init__(
        self,
        status: int,
        first: bytes,
        length: int | None,
        keep_alive: bool,
        noted: dict[bytes, bytes],
        kept: list[bytes],
    ) -> None:
        self.status, self.first, self.length, self.keep_alive = status, first, length, keep_alive
        self.noted, self.kept = noted, kept

    def to_client(self, *added: bytes) -> bytes:
        """`added`: whole lines, the framing among them."""
        return b"".join([self.first, *self.kept, *added, VIA, b"\r\n"])


def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    """-> status, the line as we write it, whether it is HTTP/1.1."""
    found = STATUS_LINE.fullmatch(line)
    if found is None:
        raise WorkerAnswersBadly(f"the worker's answer is not HTTP/1: {shown(line)}")
    ours = b"HTTP/1.1 %b %b\r\n" % (found[2], found[3] or b"")
    return remember(_known_statuses, line, (int(found[2]), ours, found[1] == b"1"))


def parse_answer(raw: bytes, method: bytes) -> AnswerHead:
    """`raw`: the status line and the fields, up to the empty line; `method`: of the request. Raises WorkerAnswersBadly."""
    lines = raw.split(b"\r\n")
    line = lines.pop(0)
    status, ours, http11 = _known_statuses.get(line) or _read_status_line(line)
    keep_alive = http11
    length: int | None = -1  # up to the end of the connection
    try:
        noted, kept = ANSWER_LINES.read(lines)
        said = noted.pop(b"content-length", None)
        if said is not None:
            length = _length(said)
        if noted:
            if b"transfer-encoding" in noted:
                _check_chunked(noted[b"transfer-encoding"], said, http11)
                length = None
            if b"connection" in noted:
                keep_alive, kept = _answer_connection(noted[b"connection"], http11, kept)
    except (BadRequest, UnsupportedFraming) as error:
        raise WorkerAnswersBadly(f"the worker's answer is malformed: {error}") from None
    if status < 200 or status == 204:
        length, kept = 0, without(kept, {b"content-length"}) if said is not None else kept
    elif status == 304 or method == b"HEAD":
        length = 0
    return AnswerHead(status, ours, length, keep_alive and length != -1, noted, kept)


def _answer_connection(value: bytes, http11: bool, kept: list[bytes]) -> tuple[bool, list[bytes]]:
    listed = {token.strip(b" \t") for token in value.lower().split(b",")}
    # A worker's odd Connection field is not the client's mistake: what must stay stays, and nothing is refused.
    if listed - {b"close", b"keep-alive", b"upgrade"}:
        kept = without(kept, listed - NEVER_LISTED)
    return b"close" not in listed and (http11 or b"keep-alive" in listed), kept


def shown(value: bytes) -> str:
    """For a message: at most 80 characters, nothing that a terminal would obey."""
    return ascii(value[:80].decode("latin-1"))[1:-1]
