"""A packet in, a packet out: what of DNS a server decides, with answers kept ready. Sans-io; `now` in seconds.

Law: malformed is FORMERR, another opcode NOTIMP, another class, another zone and a zone transfer REFUSED; what is no
query gets no answer at all. Nothing a stranger asks makes us remember more: only answers about instances are kept, and
of those so many records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .dns import (
    HEADER,
    IN,
    MAX_MESSAGE,
    MOST_UDP,
    QR,
    RD,
    TC,
    Answer,
    Query,
    Rcode,
    Type,
    is_query,
    labels_of,
    opcode,
    read,
    refusal,
)
from .errors import WireError
from .zone import Reply, View, Zone

LEAST_RECORD = 16  # bytes of an A; so more records than limit / 16 are never of use
KEPT_SECONDS = 1.0  # then the lot is drawn again, even if nothing has changed
MAX_RECORDS = 50_000  # kept in all
REFUSED, BADVERS = Answer(Rcode.REFUSED, authoritative=False), Answer(Rcode.BADVERS, authoritative=False)


class Nameserver:
    """`draw`: as random.Random().random; it decides who comes first."""

    def __init__(self, zone: Zone, draw: Callable[[], float]) -> None:
        self.zone = zone
        self.counters: Counter[str] = Counter()  # queries by what was answered
        self._draw = draw
        self._kept: dict[tuple[bytes, int, bool], tuple[Answer, View, float]] = {}
        self._records = 0

    def answer(self, packet: bytes, now: float, *, stream: bool = False, allowed: bool = True) -> bytes:
        """Nothing for what is to be dropped. `stream`: it may have 64 KiB. `allowed`: False refuses whatever it is."""
        if not is_query(packet):
            self.counters["dropped"] += 1
            return b""
        if opcode(packet):
            self.counters["NOTIMP"] += 1
            return refusal(packet, Rcode.NOTIMP)
        try:
            query = read(packet)
        except WireError:
            self.counters["FORMERR"] += 1
            return refusal(packet, Rcode.FORMERR)
        answer = self._of(query, now, stream) if allowed else REFUSED
        self.counters[answer.rcode.name] += 1
        return answer.write(query, MAX_MESSAGE if stream else query.udp_limit, self._draw(), stream=stream)

    def _of(self, query: Query, now: float, stream: bool) -> Answer:
        if query.version:
            return BADVERS
        if query.qclass != IN or query.type in (Type.AXFR, Type.IXFR):
            return REFUSED
        key = (query.name, query.type, stream)
        if kept := self._kept.get(key):
            answer, view, until = kept
            if now < until and self.zone.good(view, now) and (answer.records or not self.zone.uncertain):
                return answer
        most = (MAX_MESSAGE if stream else MOST_UDP) // LEAST_RECORD
        reply = self.zone.resolve(labels_of(query.name), query.type, now, most)
        if reply is None:
            return REFUSED
        self._keep(key, reply, now)
        return reply.answer

    def _keep(self, key: tuple[bytes, int, bool], reply: Reply, now: float) -> None:
        self._forget(key)
        if reply.view is None:
            return
        while self._kept and self._records + len(reply.answer.records) > MAX_RECORDS:
            self._forget(next(iter(self._kept)))
        self._kept[key] = (reply.answer, reply.view, now + KEPT_SECONDS)
        self._records += 1 + len(reply.answer.records)

    def _forget(self, key: tuple[bytes, int, bool]) -> None:
        if kept := self._kept.pop(key, None):
            self._records -= 1 + len(kept[0].records)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {count}" for name, count in sorted(self.counters.items()))
        return f"<Nameserver {'.'.join(self.zone.labels)} [{told or 'nothing asked'} | {self._records} records kept]>"


def shortened(packet: bytes, answer: bytes) -> bytes:
    """`answer`, cut down to its question: who asked is to ask again over TCP. No longer than `packet`, the query."""
    id, flags, *_ = HEADER.unpack_from(answer)
    query = read(packet)
    return HEADER.pack(id, QR | TC | flags & RD, 1, 0, 0, 0) + query.question
