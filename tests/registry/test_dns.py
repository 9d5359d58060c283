"""The codec: what is read, what is not, and that answers hold what they should within their bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.registry.dns import (
    MOST_UDP,
    Answer,
    Query,
    Rcode,
    Record,
    address,
    is_query,
    labels_of,
    name_of,
    ns,
    of_question,
    read,
    refusal,
    soa,
    srv,
    txt,
)
from fairway.registry.errors import WireError

from .dns_answers import parse, question

HEAD = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
HEAD_AND_ONE = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 1)
NAME = b"\x08classify\x07service\x07fairway\0"
ASKED = NAME + b"\0\x01\0\x01"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def test_a_plain_question() -> None:
    query = read(HEAD + b"\x08cLaSSify\x07service\x07FAIRWAY\0\0\x21\0\x01")
    assert query == Query(7, 0x0100, NAME, 33, 1, b"\x08cLaSSify\x07service\x07FAIRWAY\0\0\x21\0\x01")
    assert query.edns is None
    assert query.udp_limit == 512
    assert labels_of(query.name) == ("classify", "service", "fairway")


@pytest.mark.parametrize(("said", "limit"), [(0, 512), (511, 512), (512, 512), (1232, 1232), (65535, MOST_UDP)])
def test_edns(said: int, limit: int) -> None:
    query = read(question("a.fairway", edns=said, do=True, options=b"\0\x0a\0\x08abcdefgh"))
    assert (query.edns, query.version, query.dnssec, query.udp_limit) == (said, 0, True, limit)


def test_the_capital_of_a_type_is_no_letter() -> None:
    assert read(HEAD + NAME + b"\0\x41\0\x01").type == 0x41


def test_a_signature_beside_the_question_is_stepped_over() -> None:
    tsig = b"\x03key\xc0\x0c" + struct.pack("!HHIH", 250, 255, 0, 3) + b"abc"
    packet = struct.pack("!6H", 7, 0, 1, 0, 0, 2) + ASKED + tsig + OPT
    assert read(packet).edns == 1232


@pytest.mark.parametrize(
    "packet",
    [
        HEAD,
        HEAD + NAME,
        HEAD + ASKED[:-1],
        HEAD + ASKED + b"\0",
        HEAD + b"\xc0\x0c\0\x01\0\x01",  # a pointer to itself
        HEAD + b"\x01a\xc0\x0c\0\x01\0\x01",  # a loop
        HEAD + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01",
        HEAD + b"\x3f" + b"a" * 62 + b"\0\0\x01\0\x01",
        HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x01\0\x01",  # 257 bytes of name
        HEAD + b"\x01a" * 127 + b"\x01\0\0\x01\0\x01",
        HEAD + NAME + b"\0\x29\0\x01",  # OPT is asked for
        HEAD_AND_ONE + ASKED,
        HEAD_AND_ONE + ASKED + OPT[:-1],
        HEAD_AND_ONE + ASKED + b"\x01a" + OPT,
        HEAD_AND_ONE + ASKED + b"\0\0\x29\x04\xd0\0\0\0\0\0\x05abcd",
        HEAD_AND_ONE + ASKED + b"\xc0",
        struct.pack("!6H", 7, 0, 1, 0, 0, 2) + ASKED + OPT + OPT,
        struct.pack("!6H", 7, 0, 1, 0, 0, 4) + ASKED + b"\0\0\x01\0\x01\0\0\0\0\0\0" * 4,
        struct.pack("!6H", 7, 0, 0, 0, 0, 0),
        struct.pack("!6H", 7, 0, 2, 0, 0, 0) + ASKED + ASKED,
        struct.pack("!6H", 7, 0, 1, 1, 0, 0) + ASKED,
        struct.pack("!6H", 7, 0, 1, 0, 1, 0) + ASKED,
        HEAD + ASKED + b"\0" * 5000,
    ],
)
def test_what_is_malformed(packet: bytes) -> None:
    with pytest.raises(WireError):
        read(packet)


def test_the_longest_name_there_may_be() -> None:
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255
    assert read(HEAD + longest + b"\0\x01\0\x01").name == longest


def test_what_is_dropped() -> None:
    assert not is_query(b"")
    assert not is_query(HEAD[:11])
    assert not is_query(b"\0\x07\x81\x80" + HEAD[4:] + ASKED)
    assert is_query(HEAD)


@pytest.mark.parametrize("text", ["", "..", "a..b", ".a", "a" * 64, "ä.b", ".".join(["a" * 63] * 4)])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(WireError):
        name_of(text)


def test_names() -> None:
    assert name_of("Classify.Service.fairway.") == name_of("classify.service.fairway") == NAME
    assert name_of(".") == b"\0"


VALID = st.builds(
    question,
    st.sampled_from(["a.fairway", "classify.service.fairway", "_a._tcp.FairWay", "x" * 63 + ".fairway"]),
    st.integers(0, 65535),
    id=st.integers(0, 65535),
    qclass=st.sampled_from([1, 1, 1, 3, 255]),
    flags=st.sampled_from([0, 0x0100, 0x0110, 0x0120]),
    edns=st.none() | st.integers(0, 65535),
    version=st.sampled_from([0, 0, 1]),
    do=st.booleans(),
    options=st.binary(max_size=20),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good packet with some of its bytes changed, taken out, doubled: lengths, counts and pointers among them."""
    packet = bytearray(draw(VALID))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(packet)))
        match draw(st.integers(0, 3)):
            case 0:
                packet[at : at + 1] = draw(
                    st.binary(min_size=1, max_size=1) | st.sampled_from([b"\xc0", b"\xff", b"\0"])
                )
            case 1:
                del packet[at : at + draw(st.integers(1, 5))]
            case 2:
                packet[at:at] = draw(st.binary(max_size=5))
            case 3:
                packet[at:at] = packet[: draw(st.integers(0, len(packet)))]
    return bytes(packet)


@given(st.binary(max_size=600) | st.binary(max_size=80).map(HEAD_AND_ONE.__add__) | mutated())
@settings(max_examples=1000, deadline=1000)
def test_whatever_is_sent_is_read_or_refused(packet: bytes) -> None:
    try:
        query = read(packet)
    except WireError:
        return
    assert packet[12:].startswith(query.question)
    assert query.question[:-4].lower() == query.name
    assert len(query.name) <= 255
    assert sum(len(label) + 1 for label in labels_of(query.name)) + 1 == len(query.name)


@given(VALID)
def test_what_is_well_formed_is_read(packet: bytes) -> None:
    (type,) = struct.unpack_from("!H", packet, packet.index(b"\0", 12) + 1)
    if type == 41:
        return
    query = read(packet)
    assert query.id == packet[0] << 8 | packet[1]
    assert query.type == type


# -- answers -----------------------------------------------------------------------------------------------------------

V4 = [bytes([10, 0, n >> 8, n & 255]) for n in range(5000)]


def srvs(count: int, hosts: int = 5000) -> list[Record]:
    made = []
    for n in range(count):
        raw = V4[n % hosts]
        target = b"\x08" + raw.hex().encode() + b"\x04addr\x07fairway\0"
        made.append(srv(1, 1, 9000 + n, target, 0, (address(raw, 0),)))
    return made


def asked(type: str = "SRV", edns: int | None = None) -> Query:
    return read(question("Big.service.Fairway", type, id=4711, edns=edns))


def test_an_answer_is_what_a_resolver_reads() -> None:
    message = parse(Answer(Rcode.NOERROR, srvs(2)).write(asked(), 512))
    assert (message.id, message.rcode, message.aa, message.tc, message.rd, message.ra) == (
        4711,
        "NOERROR",
        True,
        False,
        True,
        False,
    )
    assert message.question == ("Big.service.Fairway.", 33, 1), "case is echoed as it came"
    assert [(r.name, r.type, r.ttl, r.value) for r in message.answers] == [
        ("Big.service.Fairway.", "SRV", 0, "1 1 9000 0a000000.addr.fairway."),
        ("Big.service.Fairway.", "SRV", 0, "1 1 9001 0a000001.addr.fairway."),
    ]
    assert [(r.name, r.value) for r in message.additional] == [
        ("0a000000.addr.fairway.", "10.0.0.0"),
        ("0a000001.addr.fairway.", "10.0.0.1"),
    ]
    assert message.opt is None


def test_an_address_that_many_share_is_told_once() -> None:
    message = parse(Answer(Rcode.NOERROR, srvs(6, hosts=1)).write(asked(), 512))
    assert len(message.answers) == 6
    assert len(message.additional) == 1


@pytest.mark.parametrize(
    ("count", "answers", "addresses", "cut"),
    [(7, 7, 7, False), (8, 8, 8, False), (9, 9, 6, False), (11, 11, 1, False), (12, 8, 8, True), (1000, 8, 8, True)],
)
def test_a_plain_answer_holds_eight_with_their_addresses(count: int, answers: int, addresses: int, cut: bool) -> None:
    """That addresses are missing is no reason for TC (RFC 2181 section 9); that answers are is."""
    message = parse(Answer(Rcode.NOERROR, srvs(count)).write(asked(), 512))
    assert (len(message.answers), len(message.additional), message.tc) == (answers, addresses, cut)


def test_edns_is_answered_with_edns() -> None:
    query = read(question("a.fairway", "SRV", edns=4096, do=True))
    message = parse(Answer(Rcode.NOERROR, srvs(50)).write(query, query.udp_limit))
    assert len(message.answers) == len(message.additional) == 50
    assert not message.tc
    assert message.opt == (1232, 0x8000), "RFC 3225: DO is copied"


def test_a_code_beyond_15_is_in_opt() -> None:
    query = read(question("a.fairway", edns=512, version=1))
    assert parse(Answer(Rcode.BADVERS).write(query, 512)).rcode == "16"


def test_a_stream_holds_all_and_never_says_that_it_does_not() -> None:
    message = parse(Answer(Rcode.NOERROR, srvs(800)).write(asked(), 65_535, stream=True))
    assert (len(message.answers), len(message.additional), message.tc) == (800, 800, False)
    assert [r.name for r in message.additional] == [r.value.split()[3] for r in message.answers], "beyond 16 KiB too"
    message = parse(Answer(Rcode.NOERROR, srvs(5000)).write(asked(), 65_535, stream=True))
    assert 900 < len(message.answers) == len(message.additional)
    assert not message.tc
    assert message.size > 65_000


def test_everybody_is_first_as_often() -> None:
    answer = Answer(Rcode.NOERROR, [of_question(address(raw, 0)) for raw in V4[:5]])
    firsts = [parse(answer.write(asked("A"), 512, turn / 100)).values[0] for turn in range(100)]
    assert {value: firsts.count(value) for value in firsts} == {f"10.0.0.{n}": 20 for n in range(5)}


def test_absence_names_the_zone_by_pointing_into_the_question() -> None:
    zone = name_of("fairway")
    authority = soa(b"\x02ns" + zone, b"\x0ahostmaster" + zone, 5, 30)
    message = parse(Answer(Rcode.NXDOMAIN, authority=authority, zone_size=len(zone)).write(asked(), 512))
    assert message.rcode == "NXDOMAIN"
    assert [(r.name, r.type, r.ttl, r.value) for r in message.authority] == [
        ("Fairway.", "SOA", 30, "ns.fairway. hostmaster.fairway. 5 3600 600 86400 30")
    ]


def test_absence_fits_whatever_is_asked() -> None:
    zone = name_of("a" * 62)
    authority = soa(b"\x02ns" + zone, b"\x0ahostmaster" + zone, 5, 0)
    name = ".".join(["b" * 63, "c" * 63, "d" * 62, "a" * 62])
    query = read(question(name, edns=0))
    assert len(query.name) > 250
    packet = Answer(Rcode.NXDOMAIN, authority=authority, zone_size=len(zone)).write(query, 512)
    assert parse(packet).authority
    assert len(packet) <= 512


def test_a_text_that_does_not_fit_a_string_is_left_out() -> None:
    record = txt(["id=a", "x" * 256, "ü" * 127, "y" * 255], 0)
    assert parse(Answer(Rcode.NOERROR, [record]).write(asked("TXT"), 4096)).values == [f"id=a {'ü' * 127} {'y' * 255}"]
    assert parse(Answer(Rcode.NOERROR, [txt(["x" * 256], 0)]).write(asked("TXT"), 512)).values == [""]


def test_a_refusal_has_the_same_id_and_nothing_else() -> None:
    message = parse(refusal(b"\x12\x34\x29\x20" + b"\xff" * 8, Rcode.NOTIMP))
    assert (message.id, message.rcode, message.question, message.rd) == (0x1234, "NOTIMP", None, True)


ADDRESSES = st.sampled_from([4, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
NAMES = st.lists(st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), min_size=1, max_size=3).map(".".join).map(name_of)
PORTS = st.integers(1, 65535)
RECORDS = st.one_of(
    st.builds(lambda raw: of_question(address(raw, 5)), ADDRESSES),
    st.builds(
        lambda port, name, raws: srv(1, 2, port, name, 5, tuple(address(raw, 5) for raw in raws)),
        PORTS,
        NAMES,
        st.lists(ADDRESSES, max_size=3),
    ),
    st.builds(lambda name, raw: ns(name, 5, (address(raw, 5),)), NAMES, ADDRESSES),
    st.builds(lambda words: txt(words, 5), st.lists(st.text(max_size=90), max_size=12)),
)


@given(
    st.lists(RECORDS, max_size=60),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
    st.none() | st.integers(0, 65535),
)
@settings(max_examples=300, deadline=2000)
def test_whatever_is_answered_fits_and_can_be_read(
    records: list[Record], turn: float, stream: bool, edns: int | None
) -> None:
    query = asked("ANY", edns)
    limit = 65_535 if stream else query.udp_limit
    packet = Answer(Rcode.NOERROR, records).write(query, limit, turn, stream=stream)
    message = parse(packet)
    assert len(packet) <= limit
    assert (message.opt is not None) == (edns is not None)
    everything = [r.value for r in parse(Answer(Rcode.NOERROR, records).write(query, 1 << 20)).answers]
    assert len(everything) == len(records)
    rest = everything.copy()
    for value in message.values:
        rest.remove(value)  # raises if it is told twice, or was never there
    if stream:
        assert not rest
        assert not message.tc
    else:
        assert message.tc == bool(rest)
    targets = {r.value.split()[-1] for r in message.answers if r.type in ("SRV", "NS")}
    assert {r.name for r in message.additional} <= targets
