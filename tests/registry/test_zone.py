"""The zone's rules: which names there are, who is told of under them, and when we say that we do not know."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fairway.registry.catalog import Catalog
from fairway.registry.changes import Put
from fairway.registry.dns import Query, read
from fairway.registry.errors import ConfigurationError
from fairway.registry.instance import Address, Instance
from fairway.registry.nameserver import Nameserver
from fairway.registry.zone import Zone, node_of, packed, patience

from .dns_answers import Message, parse, question

ZONE = "fairway."


def instance(id: str, host: str = "10.0.0.1", port: int = 9001, service: str = "classify", **more: object) -> Instance:
    return Instance(id, service, Address(host, port), **more)  # type: ignore[arg-type]


class Place:
    """A catalog and a name server over it, with a clock that is moved by hand."""

    def __init__(self, *instances: Instance, zone: str = ZONE, ttl: int = 0) -> None:
        self.catalog = Catalog(["0.0.0.0/0", "::/0"], epoch=1_700_000_000)
        self.now = 0.0
        self.put(*instances)
        draw = random.Random(1).random
        self.zone = Zone(self.catalog, name=zone, ttl=ttl, draw=draw)
        self.server = Nameserver(self.zone, draw)

    def put(self, *instances: Instance) -> None:
        for each in instances:
            events = self.catalog.register("token:1", each, each.address.host, self.now)
            assert all(isinstance(event, Put) for event in events), events

    def restored(self, *instances: Instance) -> None:
        """Known from a former life: suspect until they are heard of."""
        self.catalog.restore([Put(each, "token:1") for each in instances], until=self.now + 10)
        self.catalog.uncertain = False

    def ask(self, name: str, type: str | int = "A", *, stream: bool = False, edns: int | None = 4096) -> Message:
        return parse(self.server.answer(question(name, type, edns=edns), self.now, stream=stream))

    def values(self, name: str, type: str = "A") -> list[str]:
        message = self.ask(name, type)
        assert message.rcode == "NOERROR", message
        return sorted(message.values)


CROWD = (
    instance("a", port=9001, version="1.2.3", tags=("gpu", "A 100")),
    instance("b", "10.0.0.2", 9002, version="v2.0.0-rc.1", tags=("cpu",), weight=7),
    instance("c", "2001:db8::5", 9003, models=("mobilenet", "yolo")),
)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type", "values"),
    [
        ("classify.service.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("classify.service.fairway.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("CLASSIFY.Service.FairWay", "A", ["10.0.0.1", "10.0.0.2"]),
        ("classify.service.fairway", "AAAA", ["2001:db8::5"]),
        ("gpu.classify.service.fairway", "A", ["10.0.0.1"]),
        ("GPU.classify.service.fairway", "A", ["10.0.0.1"]),
        ("a-100.classify.service.fairway", "A", ["10.0.0.1"]),
        ("1-2-3.classify.service.fairway", "A", ["10.0.0.1"]),
        ("v1-2-3.classify.service.fairway", "A", ["10.0.0.1"]),
        ("1.2.3.classify.service.fairway", "A", ["10.0.0.1"]),
        ("v1.2.3.classify.service.fairway.fairway", "A", ["10.0.0.1"]),
        ("2-0-0-rc-1.classify.service.fairway", "A", ["10.0.0.2"]),
        ("_classify._tcp.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("_classify._tcp.service.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("_classify._tcp.service.fairway.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("_classify._tcp.fairway.fairway", "A", ["10.0.0.1", "10.0.0.2"]),
        ("_classify._gpu.service.fairway", "A", ["10.0.0.1"]),
        ("_classify._1-2-3.service.fairway", "A", ["10.0.0.1"]),
        ("_CLASSIFY._TCP.fairway", "SRV", [
            "1 1 9001 0a000001.addr.fairway.",
            "1 1 9003 20010db8000000000000000000000005.addr.fairway.",
            "1 7 9002 0a000002.addr.fairway.",
        ]),
        ("10-0-0-1.node.fairway", "A", ["10.0.0.1"]),
        ("10.0.0.1.node.fairway", "A", ["10.0.0.1"]),
        ("10-0-0-2.node.fairway.fairway", "ANY", ["10.0.0.2"]),
        ("2001-0db8-0000-0000-0000-0000-0000-0005.node.fairway", "AAAA", ["2001:db8::5"]),
        ("0a000001.addr.fairway", "A", ["10.0.0.1"]),
        ("0A0000FF.addr.fairway.fairway", "A", ["10.0.0.255"]),
        ("20010db8000000000000000000000005.addr.fairway", "AAAA", ["2001:db8::5"]),
        ("fairway", "NS", ["ns.fairway."]),
        ("fairway", "SOA", ["ns.fairway. hostmaster.fairway. 1700000000 3600 600 86400 0"]),
        ("FAIRWAY", "ANY", ["ns.fairway.", "ns.fairway. hostmaster.fairway. 1700000000 3600 600 86400 0"]),
    ],
)  # fmt: skip
def test_names(name: str, type: str, values: list[str]) -> None:
    assert Place(*CROWD).values(name, type) == values


@pytest.mark.parametrize(
    "name",
    [
        "nobody.service.fairway",
        "fpga.classify.service.fairway",
        "1-2-4.classify.service.fairway",
        "1-2.classify.service.fairway",
        "_classify._udp.service.fairway",
        "_classify._gpu.fairway",
        "classify._tcp.fairway",
        "classify.service.dc1.fairway",
        "classify.fairway",
        "classify",
        "classify.query.fairway",
        "10-0-0-9.node.fairway",
        "0a00000g.addr.fairway",
        "0a0000.addr.fairway",
        "x.0a000001.addr.fairway",
        "a.ns.fairway",
    ],
)
def test_what_is_not_there(name: str) -> None:
    message = Place(*CROWD).ask(name if "." in name else f"{name}.fairway", "A")
    assert message.rcode == "NXDOMAIN"
    assert message.aa
    assert not message.answers
    assert [(r.name, r.type) for r in message.authority] == [("fairway.", "SOA")]


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("classify.service.fairway", "MX"),
        ("classify.service.fairway", "HTTPS"),
        ("classify.service.fairway", "CNAME"),
        ("gpu.classify.service.fairway", "AAAA"),
        ("10-0-0-1.node.fairway", "AAAA"),
        ("0a000001.addr.fairway", "AAAA"),
        ("fairway", "A"),
        ("service.fairway", "A"),
        ("node.fairway", "NS"),
        ("addr.fairway", "NS"),
        ("_tcp.fairway", "SRV"),
        ("_tcp.service.fairway", "NS"),  # below it there may be something
        ("fairway.fairway", "A"),
        ("service.fairway.fairway", "A"),
        ("ns.fairway", "A"),  # nobody said where we listen
    ],
)
def test_what_is_there_but_has_no_such_record(name: str, type: str) -> None:
    message = Place(*CROWD).ask(name, type)
    assert message.rcode == "NOERROR"
    assert not message.answers
    assert [(r.name, r.type) for r in message.authority] == [("fairway.", "SOA")]


@pytest.mark.parametrize("name", ["example.com", ".", "com", "xfairway", "fairway.com", "classify.service.consul"])
def test_what_is_none_of_ours(name: str) -> None:
    message = Place(*CROWD).ask(name, "A")
    assert message.rcode == "REFUSED"
    assert not message.aa
    assert not message.ra
    assert not message.authority


def test_a_zone_of_another_name() -> None:
    place = Place(*CROWD, zone="Workers.Example.COM", ttl=30)
    message = place.ask("gpu.classify.service.workers.example.com", "SRV")
    assert message.values == ["1 1 9001 0a000001.addr.workers.example.com."]
    assert {r.ttl for r in message.answers + message.additional} == {30}
    assert place.ask("nobody.service.workers.example.com").authority[0].ttl == 30
    assert place.ask("classify.service.fairway").rcode == "REFUSED"
    assert place.ask("classify.service.example.com").rcode == "REFUSED"


def test_a_label_that_only_ends_like_the_zone_is_not_in_it() -> None:
    raw = b"\x08classify\x07service\x09x\x07fairway\0"
    packet = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0" + raw + b"\0\x01\0\x01"
    query: Query = read(packet)
    assert query.name == raw
    assert parse(Place(*CROWD).server.answer(packet, 0)).rcode == "REFUSED"


def test_a_dot_inside_a_label_parts_nothing() -> None:
    raw = b"\x0bclassify.v2\x07service\x07fairway\0"
    packet = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0" + raw + b"\0\x01\0\x01"
    place = Place(instance("a", service="classify.v2"))
    assert parse(place.server.answer(packet, 0)).rcode == "NXDOMAIN"
    assert place.values("classify.v2.service.fairway") == ["10.0.0.1"]


@pytest.mark.parametrize("zone", ["", ".", "a..b", "ä", "x" * 63, "a." * 40])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(ConfigurationError, match="--dns-zone"):
        Zone(Catalog(), name=zone, draw=random.random)


@pytest.mark.parametrize("ttl", [-1, 1 << 31])
def test_what_is_no_ttl(ttl: int) -> None:
    with pytest.raises(ConfigurationError, match="--dns-ttl"):
        Zone(Catalog(), ttl=ttl, draw=random.random)


def test_services_with_dots_and_capitals() -> None:
    place = Place(
        instance("a", "10.0.0.1", service="classify.v2"),
        instance("b", "10.0.0.2", service="v2", tags=("classify",)),
        instance("c", "10.0.0.3", service="ReSNet"),
        instance("d", "10.0.0.4", service="resnet.Large"),
        instance("e", "10.0.0.5", service="twin"),
        instance("f", "10.0.0.6", service="TWIN"),
    )
    assert place.values("classify.v2.service.fairway") == ["10.0.0.1"], "the longest service"
    assert place.values("_classify.v2._tcp.fairway") == ["10.0.0.1"]
    assert place.values("v2.service.fairway") == ["10.0.0.2"]
    assert place.values("resnet.service.fairway") == ["10.0.0.3"]
    assert place.values("RESNET.LARGE.service.fairway") == ["10.0.0.4"]
    assert place.values("Twin.service.fairway") == ["10.0.0.5"]


# -- who is told of ----------------------------------------------------------------------------------------------------


def test_addresses_of_targets_come_along() -> None:
    message = Place(*CROWD).ask("classify.service.fairway", "SRV")
    assert {(r.name, r.type, r.value) for r in message.additional} == {
        ("0a000001.addr.fairway.", "A", "10.0.0.1"),
        ("0a000002.addr.fairway.", "A", "10.0.0.2"),
        ("20010db8000000000000000000000005.addr.fairway.", "AAAA", "2001:db8::5"),
    }


def test_any_is_addresses_and_services() -> None:
    found = Place(*CROWD).ask("classify.service.fairway", "ANY").answers
    assert sorted(r.type for r in found) == ["A", "A", "AAAA", "SRV", "SRV", "SRV"]


def test_text() -> None:
    assert Place(*CROWD).values("classify.service.fairway", "TXT") == [
        "id=a address=10.0.0.1:9001 version=1.2.3 tag=gpu tag=A 100",
        "id=b address=10.0.0.2:9002 version=v2.0.0-rc.1 tag=cpu",
        "id=c address=[2001:db8::5]:9003 model=mobilenet model=yolo",
    ]


def test_workers_of_one_host_share_its_address() -> None:
    place = Place(*(instance(f"i{n}", port=9000 + n) for n in range(5)), instance("again", port=9000))
    assert place.values("classify.service.fairway") == ["10.0.0.1"]
    assert len(place.values("classify.service.fairway", "SRV")) == 5, "and no record is there twice"


def test_only_who_serves() -> None:
    place = Place(
        instance("good", "10.0.0.1"),
        instance("starting", "10.0.0.2", state="starting"),
        instance("draining", "10.0.0.3", state="draining"),
        instance("critical", "10.0.0.4", state="critical"),
        instance("disabled", "10.0.0.5"),
    )
    place.catalog.mark("disabled", enabled=False)
    assert place.values("classify.service.fairway") == ["10.0.0.1"]
    place.catalog.mark("good", enabled=False)
    assert place.ask("classify.service.fairway").rcode == "NXDOMAIN"
    place.catalog.mark("disabled", enabled=True)
    assert place.values("classify.service.fairway") == ["10.0.0.5"]


def test_suspects_only_if_there_is_nobody_else() -> None:
    place = Place()
    place.restored(instance("old", "10.0.0.8", tags=("gpu",)), instance("older", "10.0.0.9"))
    assert place.catalog.instances("classify")[0].suspect
    assert place.values("classify.service.fairway") == ["10.0.0.8", "10.0.0.9"]
    place.put(instance("new", "10.0.0.1"))
    assert place.values("classify.service.fairway") == ["10.0.0.1"]
    assert place.values("gpu.classify.service.fairway") == ["10.0.0.8"], "nobody else has the tag"


def test_host_names_are_targets_and_have_no_address_here() -> None:
    place = Place(
        instance("a", "gpu1.lan"), instance("b", "10.0.0.1"), instance("c", "fe80::1%eth0"), instance("d", "a..b")
    )
    message = place.ask("classify.service.fairway", "SRV")
    assert sorted(message.values) == ["1 1 9001 0a000001.addr.fairway.", "1 1 9001 gpu1.lan."]
    assert [r.value for r in message.additional] == ["10.0.0.1"]
    assert place.values("classify.service.fairway") == ["10.0.0.1"]
    assert place.ask("gpu1-lan.node.fairway").rcode == "NOERROR"
    assert place.values("gpu1-lan.node.fairway") == []


@pytest.mark.parametrize(
    ("host", "size", "node"),
    [
        ("10.0.0.1", 4, "10-0-0-1"),
        ("::1", 16, "0000-0000-0000-0000-0000-0000-0000-0001"),
        ("::ffff:10.0.0.1", 4, "10-0-0-1"),
        ("fe80::1%eth0", 0, "fe80-1-eth0"),
        ("GPU_1.Lan", 0, "gpu_1-lan"),
    ],
)
def test_hosts(host: str, size: int, node: str) -> None:
    assert len(packed(host)) == size
    assert node_of(host) == node


# -- not knowing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type", "rcode"),
    [
        ("classify.service.fairway", "A", "NOERROR"),
        ("classify.service.fairway", "SRV", "NOERROR"),
        ("gpu.classify.service.fairway", "AAAA", "SERVFAIL"),
        ("classify.service.fairway", "MX", "SERVFAIL"),
        ("nobody.service.fairway", "A", "SERVFAIL"),
        ("fpga.classify.service.fairway", "A", "SERVFAIL"),
        ("_nobody._tcp.fairway", "SRV", "SERVFAIL"),
        ("10-0-0-9.node.fairway", "A", "SERVFAIL"),
        ("classify.fairway", "A", "NXDOMAIN"),  # no such name will ever be
        ("fairway", "SOA", "NOERROR"),
        ("0a000001.addr.fairway", "A", "NOERROR"),
        ("example.com", "A", "REFUSED"),
    ],
)
@pytest.mark.parametrize("asked_before", [False, True])
def test_no_answer_is_empty_while_we_are_unsure(name: str, type: str, rcode: str, asked_before: bool) -> None:
    place = Place(*CROWD)
    if asked_before:
        place.ask(name, type)
    place.catalog.uncertain = True
    message = place.ask(name, type)
    assert message.rcode == rcode
    assert message.values or rcode != "NOERROR"
    if rcode == "SERVFAIL":
        assert not message.authority, "nothing that could be remembered"
    place.catalog.uncertain = False
    assert place.ask(name, type).rcode != "SERVFAIL"


# -- how it keeps up ---------------------------------------------------------------------------------------------------


def test_a_change_is_seen_at_once() -> None:
    place = Place(*CROWD)
    for host in ("10.0.0.7", "10.0.0.8"):
        assert host not in place.values("classify.service.fairway")
        assert place.ask(f"{node_of(host)}.node.fairway").rcode == "NXDOMAIN"
        place.put(instance(host, host))
        assert host in place.values("classify.service.fairway")
        assert place.values(f"{node_of(host)}.node.fairway") == [host]
    place.catalog.deregister("token:1", "10.0.0.7")
    assert "10.0.0.7" not in place.values("classify.service.fairway")
    for id in [i.id for i in place.catalog.instances()]:
        place.catalog.deregister("token:1", id)
    assert place.ask("classify.service.fairway").rcode == "NXDOMAIN"
    place.put(instance("back", "10.0.0.5", service="Classify"))
    assert place.values("classify.service.fairway") == ["10.0.0.5"]


def test_a_crowd_is_looked_at_now_and_then() -> None:
    place = Place(*(instance(f"i{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(1000)))
    place.put(instance("tagged", "10.9.9.9", tags=("one",)))
    assert place.values("one.classify.service.fairway") == ["10.9.9.9"]
    place.put(instance("tagged", "10.9.9.8", tags=("one",)))
    assert place.values("one.classify.service.fairway") == ["10.9.9.9"]
    place.now += patience(1001)
    assert place.values("one.classify.service.fairway") == ["10.9.9.8"]
    assert patience(1_000_000) <= 0.05
    assert patience(32) == 0


def test_of_a_crowd_everybody_has_its_turn() -> None:
    place = Place(*(instance(f"i{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(600)))
    seen: set[str] = set()
    for _ in range(100):
        message = place.ask("classify.service.fairway", "SRV", edns=None)
        assert message.tc
        assert len(message.values) == 8
        seen |= set(message.values)
        place.now += 0.5
    assert len(seen) > 300
    assert len(place.ask("classify.service.fairway", "SRV", stream=True).values) == 600


def test_a_weight_of_none_is_told() -> None:
    place = Place(replace(CROWD[0], weight=0))
    assert place.values("classify.service.fairway", "SRV") == ["1 0 9001 0a000001.addr.fairway."]
