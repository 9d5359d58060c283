"""DNS messages: a query read, an answer written. Knows no zone, no cache and no socket. Sans-io.

A query is read strictly: one question, no name compression in it (there is nothing before it to point to), no bytes left
over. Nothing is followed and nothing is allocated by what a stranger's length says, so there are no loops and no growth.

Answers are kept as records ready to be sent; what differs from one asking to the next is the id, the question as it was
typed (0x20), which record comes first, and how much fits.

Formats: RFC 1035 section 4 (messages; names of at most 255 bytes), RFC 2782 (SRV, whose target is never compressed),
RFC 3596 (AAAA), RFC 6891 (EDNS), RFC 2181 section 9 (what sets TC).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

from .errors import WireError

MAX_QUERY = 4096  # bytes; a question, OPT and a signature are far less
MAX_ADDITIONAL = 3  # OPT, TSIG, SIG(0): nothing else has a place beside a question
LEAST_UDP, MOST_UDP = 512, 4096  # bytes of an answer: what every client takes; what we send to one that takes more
MAX_MESSAGE = 65_535
OUR_UDP_SIZE = 1232  # what we take ourselves: a packet that is nowhere fragmented (DNS flag day 2020)

IN = 1
HEADER = struct.Struct("!6H")
QUESTION_TAIL = struct.Struct("!HH")
RECORD_HEAD = struct.Struct("!HHIH")  # type, class, ttl, length of rdata
POINTER = struct.Struct("!H")
OPT_RECORD = struct.Struct("!BHHIH")
QUESTION_NAME = b"\xc0\x0c"  # a pointer to the question's name, which always begins at byte 12
MOST_POINTED = 0x3FFF  # a pointer has 14 bits
QR, AA, TC, RD, DO = 0x8000, 0x0400, 0x0200, 0x0100, 0x8000


class Type(IntEnum):
    A = 1
    NS = 2
    SOA = 6
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16  # its upper bits go into OPT


@dataclass(frozen=True, slots=True)
class Query:
    """`name` is in wire form, lower case; `question` is what is to be echoed, byte by byte."""

    id: int
    flags: int
    name: bytes
    type: int
    qclass: int
    question: bytes
    edns: int | None = None  # the size the asker takes over UDP; None: it said nothing of EDNS
    version: int = 0
    dnssec: bool = False

    @property
    def udp_limit(self) -> int:
        return LEAST_UDP if self.edns is None else min(max(self.edns, LEAST_UDP), MOST_UDP)

    def opt(self, rcode: int = 0) -> bytes:
        if self.edns is None:
            return b""
        return OPT_RECORD.pack(0, Type.OPT, OUR_UDP_SIZE, (rcode >> 4) << 24 | (DO if self.dnssec else 0), 0)


def is_query(packet: bytes) -> bool:
    """What is too short to be answered, or an answer itself, is dropped: two servers must not talk for ever."""
    return len(packet) >= HEADER.size and not packet[2] & 0x80


def opcode(packet: bytes) -> int:
    return packet[2] >> 3 & 15


def read(packet: bytes) -> Query:
    """A standard query (`is_query`, opcode 0). Raises WireError: FORMERR."""
    if len(packet) > MAX_QUERY:
        raise WireError(f"a query of {len(packet)} bytes: expected at most {MAX_QUERY}")
    try:
        id, flags, questions, answers, authorities, additional = HEADER.unpack_from(packet)
        if questions != 1 or answers or authorities or additional > MAX_ADDITIONAL:
            raise WireError("expected one question and at most OPT and signatures beside it")
        at = HEADER.size
        while length := packet[at]:
            if length > 63:
                raise WireError("a label of more than 63 bytes, or a pointer, in a question")
            at += length + 1
        at += 1
        if at - HEADER.size > 255:
            raise WireError("a name of more than 255 bytes")
        name = packet[HEADER.size : at].lower()
        type, qclass = QUESTION_TAIL.unpack_from(packet, at)
        at += QUESTION_TAIL.size
        question = packet[HEADER.size : at]
        edns, version, dnssec = None, 0, False
        for _ in range(additional):
            root = packet[at] == 0
            at = _after_name(packet, at)
            kind, size, ttl, length = RECORD_HEAD.unpack_from(packet, at)
            at += RECORD_HEAD.size + length
            if kind == Type.OPT:
                if edns is not None or not root:
                    raise WireError("OPT twice, or not at the root")
                edns, version, dnssec = size, ttl >> 16 & 255, bool(ttl & DO)
    except (IndexError, struct.error) as error:
        raise WireError("the packet ends in the middle of something") from error
    if at != len(packet):
        raise WireError(f"{len(packet)} bytes where the message has {at}")
    if type == Type.OPT:
        raise WireError("OPT is nothing to ask for")
    return Query(id, flags, name, type, qclass, question, edns, version, dnssec)


def _after_name(packet: bytes, at: int) -> int:
    """A pointer ends a name; where it points to is of no interest, so it is not followed."""
    end = at + 255
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63 or at >= end:
            raise WireError("a label of more than 63 bytes, or a name of more than 255")
        at += length + 1
    return at + 1


def labels_of(name: bytes) -> tuple[str, ...]:
    """Of a name in wire form. Bytes are characters: what is not ASCII matches nothing we have."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length].decode("latin-1"))
        at += length + 1
    return tuple(labels)


def name_of(text: str) -> bytes:
    """`a.b` or `a.b.` in wire form, lower case. Raises WireError."""
    labels = text.removesuffix(".").split(".") if text != "." else []
    if not text.isascii() or not all(0 < len(label) < 64 for label in labels):
        raise WireError(f"{text!r} is not a name: expected labels of 1 to 63 ASCII characters, with dots between them")
    wire = b"".join(bytes([len(label)]) + label.lower().encode() for label in labels) + b"\0"
    if len(wire) > 255:
        raise WireError(f"{text!r} is longer than a name may be")
    return wire


@dataclass(frozen=True, slots=True)
class Record:
    """One record whose owner is the question's name. `glue`: addresses of the name at `target_at` in its wire form."""

    wire: bytes
    target: bytes = b""
    target_at: int = 0
    glue: tuple[bytes, ...] = ()  # without their owner


def body(type: int, ttl: int, rdata: bytes) -> bytes:
    """A record without its owner."""
    return RECORD_HEAD.pack(type, IN, ttl, len(rdata)) + rdata


def address(packed: bytes, ttl: int) -> bytes:
    """A or AAAA without its owner, by the length of `packed`."""
    return body(Type.A if len(packed) == 4 else Type.AAAA, ttl, packed)


def of_question(body: bytes) -> Record:
    return Record(QUESTION_NAME + body)


def srv(priority: int, weight: int, port: int, target: bytes, ttl: int, glue: tuple[bytes, ...] = ()) -> Record:
    rdata = struct.pack("!HHH", priority, weight, port) + target
    return Record(QUESTION_NAME + body(Type.SRV, ttl, rdata), target, 2 + RECORD_HEAD.size + 6, glue)


def ns(target: bytes, ttl: int, glue: tuple[bytes, ...] = ()) -> Record:
    return Record(QUESTION_NAME + body(Type.NS, ttl, target), target, 2 + RECORD_HEAD.size, glue)


def txt(words: Iterable[str], ttl: int) -> Record:
    """What does not fit a string of 255 bytes is left out; a record has at least one string."""
    kept = [raw for word in words if len(raw := word.encode("utf-8", "replace")) < 256] or [b""]
    return of_question(body(Type.TXT, ttl, b"".join(bytes([len(raw)]) + raw for raw in kept)))


def soa(server: bytes, mailbox: bytes, serial: int, ttl: int) -> bytes:
    """Without its owner. `ttl` is also how long the absence of something may be remembered (RFC 2308)."""
    return body(Type.SOA, ttl, server + mailbox + struct.pack("!5I", serial & 0xFFFFFFFF, 3600, 600, 86400, ttl))


def refusal(packet: bytes, rcode: Rcode) -> bytes:
    """Of what cannot be read, or is not to be: the header alone. `packet` has at least 12 bytes."""
    id, flags = struct.unpack_from("!HH", packet)
    return HEADER.pack(id, QR | flags & 0x7900 | rcode, 0, 0, 0, 0)


class Answer:
    """Sections ready to be sent. `authority`: a record of the zone, whose name is the question's last `zone_size` bytes."""

    __slots__ = ("_authority", "_flags", "_glued", "_size", "_smallest", "_zone_size", "rcode", "records")

    def __init__(
        self,
        rcode: Rcode,
        records: Sequence[Record] = (),
        *,
        authority: bytes = b"",
        zone_size: int = 0,
        authoritative: bool = True,
    ) -> None:
        self.records = tuple(records)
        self._authority, self._zone_size, self.rcode = authority, zone_size, rcode
        self._flags = QR | (AA if authoritative else 0) | rcode & 15
        self._size = sum(len(record.wire) for record in self.records)
        self._smallest = min((len(record.wire) for record in self.records), default=1)
        self._glued = any(record.glue for record in self.records)

    def write(self, query: Query, limit: int, turn: float = 0.0, *, stream: bool = False) -> bytes:
        """At most `limit` bytes, which hold at least header, question and OPT. `turn`: in [0, 1), who comes first.

        TC is set if records are missing that a stream would carry; on a stream there is nothing greater to go to, and
        clients throw away what is marked so: there it is never set.
        """
        opt = query.opt(self.rcode)
        at = HEADER.size + len(query.question)
        room = limit - at - len(opt)
        whole = self._size <= room
        records = self._from(turn, len(self.records) if whole else room // self._smallest)
        if self._glued:
            written, glue = _with_glue(records, at, room - self._size if whole else room, whole)
        else:
            written, glue = [record.wire for record in records], []
            if not whole:
                written = written[: sum(end <= room for end in accumulate(map(len, written)))]
        flags = self._flags | query.flags & RD
        if not whole and not stream:
            flags |= TC
        head = HEADER.pack(query.id, flags, 1, len(written), 1 if self._authority else 0, len(glue) + bool(opt))
        if self._authority:
            zone = POINTER.pack(0xC000 | at - QUESTION_TAIL.size - self._zone_size)
            return b"".join((head, query.question, *written, zone, self._authority, *glue, opt))
        return b"".join((head, query.question, *written, *glue, opt))

    def _from(self, turn: float, most: int) -> tuple[Record, ...]:
        """At most so many records, beginning anywhere: `turn` says where."""
        count = len(self.records)
        if count < 2:
            return self.records[:most]
        first = int(turn * count)
        found = self.records[first : first + most]
        return found if len(found) == most else found + self.records[: min(most, count) - len(found)]


def _with_glue(records: Sequence[Record], at: int, room: int, whole: bool) -> tuple[list[bytes], list[bytes]]:
    """Records that begin at byte `at`, and addresses of their targets.

    `whole`: all records, and addresses while `room` lasts. Otherwise both share it: a record that is sent without its
    address costs its reader another question, and is no better than one that is not sent.
    """
    written: list[bytes] = []
    glue: list[bytes] = []
    told: set[bytes] = set()
    for record in records:
        wire, target = record.wire, record.target
        more: list[bytes] = []
        if record.glue and target not in told:
            where = at + record.target_at
            owner = POINTER.pack(0xC000 | where) if where <= MOST_POINTED else target
            more = [owner + address for address in record.glue]
        cost = sum(map(len, more)) + (0 if whole else len(wire))
        if cost <= room:
            room -= cost
            glue += more
            told.add(target)
        elif not whole:
            break
        written.append(wire)
        at += len(wire)
    return written, glue
