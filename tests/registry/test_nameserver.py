"""Packet in, packet out: what is refused, what is kept, and that no packet does any harm."""

from __future__ import annotations

import random
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry import nameserver
from fairway.registry.buckets import MAX_SOURCES, Buckets, source_of
from fairway.registry.catalog import Catalog
from fairway.registry.instance import Address, Instance
from fairway.registry.nameserver import Nameserver, shortened
from fairway.registry.zone import MAX_VIEWS, Zone

from .dns_answers import parse, question
from .test_dns import VALID, mutated


def server(count: int = 3, services: int = 1) -> tuple[Nameserver, Catalog]:
    catalog = Catalog(["10.0.0.0/8"], epoch=1)
    for s in range(services):
        for n in range(count):
            where = Address(f"10.{s & 255}.{n >> 8}.{n & 255}", 9000)
            catalog.register("p", Instance(f"{s}-{n}", f"s{s}", where), "10.0.0.1", 0.0)
    draw = random.Random(3).random
    return Nameserver(Zone(catalog, draw=draw), draw), catalog


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (question("s0.service.fairway"), "NOERROR"),
        (question("s0.service.fairway", qclass=3), "REFUSED"),  # CHAOS
        (question("s0.service.fairway", qclass=255), "REFUSED"),
        (question("fairway", "AXFR"), "REFUSED"),
        (question("fairway", "IXFR"), "REFUSED"),
        (question("example.com"), "REFUSED"),
        (question("s0.service.fairway", edns=1232, version=1), "16"),
        (question("s0.service.fairway", flags=0x0900), "NOTIMP"),  # IQUERY
        (question("s0.service.fairway", flags=0x1000), "NOTIMP"),  # STATUS
        (question("s0.service.fairway", flags=0x2000), "NOTIMP"),  # NOTIFY
        (question("s0.service.fairway", flags=0x2800), "NOTIMP"),  # UPDATE
        (question("s0.service.fairway") + b"\0", "FORMERR"),
        (question("s0.service.fairway")[:-1], "FORMERR"),
        (question("s0.service.fairway", 41), "FORMERR"),
    ],
)
def test_codes(packet: bytes, rcode: str) -> None:
    answer = server()[0].answer(packet, 0.0)
    if rcode in ("NOTIMP", "FORMERR"):
        assert len(answer) == 12
        assert answer[:2] == packet[:2]
        assert ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP")[answer[3] & 15] == rcode
        assert answer[2] & 0x80
    else:
        message = parse(answer)
        assert message.rcode == rcode
        assert message.question is not None


@pytest.mark.parametrize("packet", [b"", b"\0" * 11, question("s0.service.fairway", flags=0x8000)])
def test_no_answer_at_all(packet: bytes) -> None:
    desk, _ = server()
    assert desk.answer(packet, 0.0) == b""
    assert desk.counters == {"dropped": 1}


def test_who_may_not_read_is_refused_whatever_it_is() -> None:
    desk, _ = server()
    for name in ("s0.service.fairway", "nobody.service.fairway", "fairway", "0a000001.addr.fairway"):
        desk.answer(question(name), 0.0)
        message = parse(desk.answer(question(name, edns=1232), 0.0, allowed=False))
        assert (message.rcode, message.values, message.authority) == ("REFUSED", [], [])


def test_an_answer_is_kept_and_its_case_is_not() -> None:
    desk, _ = server()
    for name in ("s0.service.fairway", "S0.SERVICE.FAIRWAY", "s0.SerVice.fairWay"):
        message = parse(desk.answer(question(name, id=len(name)), 0.0))
        assert message.question == (f"{name}.", 1, 1)
        assert len(message.values) == 3
    assert repr(desk) == "<Nameserver fairway [NOERROR 3 | 4 records kept]>"


def test_a_stream_and_a_datagram_do_not_share_what_is_kept() -> None:
    desk, _ = server(2000)
    assert parse(desk.answer(question("s0.service.fairway"), 0.0)).tc
    assert len(parse(desk.answer(question("s0.service.fairway"), 0.0, stream=True)).values) == 2000
    assert parse(desk.answer(question("s0.service.fairway", edns=4096), 0.0)).tc


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameserver, "MAX_RECORDS", 100)
    desk, _ = server(10, services=50)
    for s in range(50):
        assert len(parse(desk.answer(question(f"s{s}.service.fairway"), 0.0)).values) == 10
        assert desk._records <= 101
    assert sum(1 + len(answer.records) for answer, _, _ in desk._kept.values()) == desk._records
    for n in range(1000):
        desk.answer(question(f"x{n}.s1.service.fairway"), 0.0)
        desk.answer(question(f"x{n}.service.fairway", "SRV"), 0.0)
        desk.answer(question("s1.service.fairway", n % 200 + 300), 0.0)
    assert desk._records <= 101
    assert len(desk.zone._views) <= MAX_VIEWS


def test_a_name_in_many_parts_takes_no_longer_than_others() -> None:
    desk, catalog = server(10_000)
    worst = ".".join(["s0"] * 79) + ".service.fairway"
    began = time.perf_counter()
    for n in range(200):
        catalog.mark("0-0", enabled=bool(n % 2))
        assert parse(desk.answer(question(worst), n / 1e6)).rcode == "NXDOMAIN"
    assert time.perf_counter() - began < 5


DESK, _CATALOG = server(300, services=2)


@given(st.binary(max_size=300) | VALID | mutated(), st.booleans(), st.booleans())
@settings(max_examples=1500, deadline=1000)
def test_no_packet_does_any_harm(packet: bytes, stream: bool, allowed: bool) -> None:
    answer = DESK.answer(packet, 0.0, stream=stream, allowed=allowed)
    if len(packet) < 12 or packet[2] & 0x80:
        assert answer == b""
        return
    assert answer[:2] == packet[:2]
    assert answer[2] & 0x80
    assert answer[2] & 0x78 == packet[2] & 0x78
    assert len(answer) <= (65_535 if stream else 4096)
    if not packet[2] & 0x78:
        parse(answer)
    if len(answer) > len(packet):
        short = shortened(packet, answer)
        assert len(short) <= len(packet)
        message = parse(short)
        assert message.tc
        assert not message.answers


@given(
    st.lists(
        st.sampled_from(["s0", "S1", "service", "fairway", "node", "addr", "_s0", "_tcp", "_", "-", "0a000001"]),
        max_size=8,
    ),
    st.sampled_from(["A", "SRV", "ANY", "TXT", "SOA", "NS", "AXFR"]),
)
@settings(max_examples=500, deadline=1000)
def test_whatever_the_name_there_is_one_answer(labels: list[str], type: str) -> None:
    name = ".".join([*labels, "fairway"])
    message = parse(DESK.answer(question(name, type, edns=4096), 0.0))
    assert message.question is not None
    assert message.question[0] == f"{name}."
    if message.rcode in ("NXDOMAIN", "NOERROR"):
        assert bool(message.authority) == (not message.answers)
        assert {r.name for r in message.answers} <= {f"{name}."}
    else:
        assert (message.rcode, type) == ("REFUSED", "AXFR")


# -- how much one source is sent ---------------------------------------------------------------------------------------


def test_a_bucket_empties_and_fills() -> None:
    buckets = Buckets(rate=100, burst=1000)
    sent = sum(100 for _ in range(50) if buckets.take(b"a", 100, 0.0))
    assert sent == 1100, "what there is at once, and the one that empties it"
    assert buckets.take(b"b", 100, 0.0), "others have their own"
    assert not buckets.take(b"a", 100, 0.5)
    assert buckets.take(b"a", 100, 1.5)
    sent = sum(100 for second in range(100) if buckets.take(b"a", 100, 10 + second / 10))
    assert sent <= 2200


def test_the_table_is_bounded_and_forgets_who_is_quiet() -> None:
    buckets = Buckets(rate=100, burst=1000)
    for n in range(MAX_SOURCES):
        assert buckets.take(struct.pack("!I", n), 500, 0.0)
    assert not buckets.take(b"late", 10, 1.0), "while all are busy a newcomer is asked to come over TCP"
    assert buckets.take(struct.pack("!I", 5), 10, 1.0)
    assert len(buckets) == MAX_SOURCES
    assert buckets.take(b"late", 10, 6.0)
    for n in range(3000):
        buckets.take(b"late" + struct.pack("!I", n), 10, 7.0)
    assert len(buckets) < MAX_SOURCES


def test_sources() -> None:
    assert source_of("10.0.0.1") == source_of("::ffff:10.0.0.1") == b"\x0a\0\0\1"
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1") != source_of("2001:db8:0:1::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2%eth1")
