"""DNS messages taken apart, by nothing of ours: what a resolver sees. And questions, as resolvers write them."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65, "IXFR": 251,
    "AXFR": 252, "ANY": 255,
}  # fmt: skip
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")


@dataclass(frozen=True)
class Found:
    name: str
    type: str
    ttl: int
    value: str


@dataclass(frozen=True)
class Message:
    id: int
    rcode: str
    aa: bool
    tc: bool
    rd: bool
    ra: bool
    question: tuple[str, int, int] | None
    answers: list[Found]
    authority: list[Found]
    additional: list[Found]
    opt: tuple[int, int] | None  # size, ttl
    size: int

    @property
    def values(self) -> list[str]:
        return [record.value for record in self.answers]


def question(
    name: str,
    type: str | int = "A",
    *,
    id: int = 7,
    qclass: int = 1,
    flags: int = 0x0100,
    edns: int | None = None,
    version: int = 0,
    do: bool = False,
    options: bytes = b"",
) -> bytes:
    labels = [label.encode() for label in name.removesuffix(".").split(".")] if name != "." else []
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    number = TYPES[type] if isinstance(type, str) else type
    packet = struct.pack("!6H", id, flags, 1, 0, 0, int(edns is not None)) + wire + struct.pack("!HH", number, qclass)
    if edns is not None:
        ttl = version << 16 | (0x8000 if do else 0)
        packet += struct.pack("!BHHIH", 0, 41, edns, ttl, len(options)) + options
    return packet


def parse(packet: bytes) -> Message:
    """Raises AssertionError, or an IndexError or struct.error, for what is no proper answer."""
    id, flags, questions, *counts = struct.unpack_from("!6H", packet)
    assert flags & 0x8000, "not an answer"
    assert flags >> 11 & 15 == 0 or not sum(counts)
    assert not flags & 0x0070, "Z, AD and CD are not for us to set"
    at, asked = 12, None
    assert questions <= 1
    if questions:
        name, at = _name(packet, at)
        asked = (name, *struct.unpack_from("!HH", packet, at))
        at += 4
    sections: list[list[Found]] = []
    opt: tuple[int, int] | None = None
    for count in counts:
        section: list[Found] = []
        for _ in range(count):
            name, at = _name(packet, at)
            kind, qclass, ttl, length = struct.unpack_from("!HHIH", packet, at)
            at += 10
            if kind == 41:
                assert opt is None
                assert name == "."
                opt = (qclass, ttl)
                assert length == 0
            else:
                assert qclass == 1
                word = next((word for word, number in TYPES.items() if number == kind), str(kind))
                section.append(Found(name, word, ttl, _value(packet, word, at, length)))
            at += length
        sections.append(section)
    assert at == len(packet), "bytes left over"
    rcode = (flags & 15) | ((opt[1] >> 24) << 4 if opt else 0)
    word = RCODES[rcode] if rcode < len(RCODES) else str(rcode)
    aa, tc, rd, ra = (bool(flags & bit) for bit in (0x0400, 0x0200, 0x0100, 0x0080))
    answers, authority, additional = sections
    return Message(id, word, aa, tc, rd, ra, asked, answers, authority, additional, opt, len(packet))


def _name(packet: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    after = 0
    while length := packet[at]:
        if length >= 0xC0:
            to = (length & 0x3F) << 8 | packet[at + 1]
            assert to < at, "a pointer points to what was there before"
            after, at = after or at + 2, to
            continue
        assert length < 64
        labels.append(packet[at + 1 : at + 1 + length].decode("latin-1"))
        assert len(labels[-1]) == length
        at += length + 1
    return ".".join(labels) + ".", after or at + 1


def _value(packet: bytes, type: str, at: int, length: int) -> str:
    raw = packet[at : at + length]
    assert len(raw) == length
    if type in ("A", "AAAA"):
        return str(ipaddress.ip_address(raw))
    if type == "SRV":
        target, end = _name(packet, at + 6)
        assert end == at + length
        assert length - 6 == len(target) + 1, "RFC 2782: its target is never compressed"
        return " ".join([*map(str, struct.unpack_from("!HHH", raw)), target])
    if type == "NS":
        return _name(packet, at)[0]
    if type == "SOA":
        server, at = _name(packet, at)
        mailbox, at = _name(packet, at)
        return " ".join([server, mailbox, *map(str, struct.unpack_from("!5I", packet, at))])
    if type == "TXT":
        words, start = [], 0
        while start < length:
            end = start + 1 + raw[start]
            assert end <= length
            words.append(raw[start + 1 : end].decode())
            start = end
        return " ".join(words)
    return raw.hex()
