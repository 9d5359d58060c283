"""Heads on their way through: what is dropped, what is added, what is refused. Sans-io.

Heads are re-serialised, never copied raw; exactly one framing leaves us. Sources: RFC 9110 7.6 (connection-specific
fields, Via), RFC 9112 6.1 and 6.3 (framing), RFC 7239's older cousins X-Forwarded-*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import BadRequest, UnsupportedFraming, UnsupportedVersion

Fields = list[tuple[str, str]]

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
     "proxy-authenticate", "proxy-authorization", "expect")
)  # fmt: skip
# A client that could name these as connection-specific would make us strip what the worker relies on.
NEVER_LISTED = frozenset(("content-length", "content-type", "host", "content-encoding", "authorization"))
FORWARDED = frozenset(("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"))
OURS = frozenset(("x-fairway-service",))
VIA = "1.1 fairway"


def check_framing(fields: Sequence[tuple[str, str]], version: tuple[int, int]) -> None:
    """Refuses what two parsers could read in two ways. Raises BadRequest, UnsupportedFraming or UnsupportedVersion."""
    if version not in ((1, 0), (1, 1)):
        raise UnsupportedVersion(f"HTTP/{version[0]}.{version[1]}: only HTTP/1.1 and 1.0 are spoken here")
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    codings = [value for name, value in fields if name.lower() == "transfer-encoding"]
    hosts = [value for name, value in fields if name.lower() == "host"]
    if len(lengths) > 1 or any(not (value.isascii() and value.isdigit()) for value in lengths):
        raise BadRequest(f"Content-Length must be one whole number, not {', '.join(lengths)!r}")
    if codings and lengths:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other")
    if codings and version < (1, 1):
        raise BadRequest("Transfer-Encoding needs HTTP/1.1")
    if codings and [value.strip().lower() for value in codings] != ["chunked"]:
        raise UnsupportedFraming(f"Transfer-Encoding: {', '.join(codings)}: only chunked is understood")
    if len(hosts) > 1 or (version >= (1, 1) and not hosts):
        raise BadRequest(f"exactly one Host field is needed; there are {len(hosts)}")


def connection_listed(fields: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Names that Connection fields declare connection-specific. Raises BadRequest for the header-strip attack."""
    named = _listed(fields)
    if stolen := sorted(named & NEVER_LISTED):
        raise BadRequest(f"Connection must not list {', '.join(stolen)}")
    return frozenset(named - {"", "close"})


def upstream_fields(fields: Sequence[tuple[str, str]], peer: str, scheme: str, length: int | None) -> Fields:
    """The request head for a worker. `length`: of the body if known (0 sends none); None sends it chunked.

    X-Forwarded-* are written anew: what an untrusted client says of its origin is worth nothing.
    """
    dropped = HOP_BY_HOP | FORWARDED | OURS | connection_listed(fields) | {"content-length"}
    kept = [(name, value) for name, value in fields if name.lower() not in dropped]
    host = next((value for name, value in fields if name.lower() == "host"), "")
    kept += [("X-Forwarded-For", peer), ("X-Forwarded-Proto", scheme), ("X-Forwarded-Host", host), ("Via", VIA)]
    if length is None:
        kept.append(("Transfer-Encoding", "chunked"))
    elif length:
        kept.append(("Content-Length", str(length)))
    return kept


def downstream_fields(fields: Sequence[tuple[str, str]]) -> Fields:
    """The answer head for the client, without its framing."""
    # A worker's odd Connection field is not the client's mistake: what must stay stays, and nothing is refused.
    dropped = HOP_BY_HOP | (_listed(fields) - NEVER_LISTED) | {"content-length"}
    return [(name, value) for name, value in fields if name.lower() not in dropped] + [("Via", VIA)]


def _listed(fields: Iterable[tuple[str, str]]) -> frozenset[str]:
    tokens = (token for name, value in fields if name.lower() == "connection" for token in value.split(","))
    return frozenset(token.strip().lower() for token in tokens)
