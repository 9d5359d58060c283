"""The zone: which names there are, and what each of them means. Sans-io.

    [TAG.]SERVICE.service[.fairway].fairway.            A, AAAA, SRV, TXT, ANY: the instances that serve
    _SERVICE._tcp[.service][.fairway].fairway.          the same, as RFC 2782 writes it
    _SERVICE._TAG.service[.fairway].fairway.            and with a tag
    NODE.node[.fairway].fairway.                        A, AAAA: a host on which instances run
    HEX.addr[.fairway].fairway.                         A, AAAA: the address itself, 8 or 32 hexadecimal digits
    fairway.                                            SOA, NS; ns.fairway. is this server

Names and meanings are those of Consul's DNS (its docs, discovery/dns); the data centre is called `fairway`, as on HTTP.

* Names are without case; of services whose names differ in nothing else, one is seen, in lower case if there is such.
* Tags are compared in their normal form: lower case, and `-` for whatever is no letter, digit or _. A version is a tag:
  1.2.3 is asked for as 1-2-3, v1-2-3 or 1.2.3. Where a name can be split in several ways, the longest service wins.
* A node is a host: 10-0-0-1 (or 10.0.0.1), 2001-0db8-… with all its digits, gpu1-lan.
* Suspects are left out while there is anybody else; an instance whose address no record can hold is left out always.
* An SRV target is HEX.addr, which says its address by itself, or the host name that was registered. Such a name is not
  ours to resolve: it has no A and no AAAA here, and nothing is ever a CNAME.
* Nothing serves under a name: it is not there (NXDOMAIN). Of what is there, another type is empty (NOERROR). While the
  catalog is uncertain, neither is said of instances: we do not know (SERVFAIL).
* How far an answer may lag is bounded by what it costs to make: of up to 32 instances not at all, of thousands 50 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Protocol, TypeVar

from .dns import Answer, Rcode, Record, Type, address, name_of, ns, of_question, soa, srv, txt
from .errors import ConfigurationError, WireError
from .instance import Instance

DATACENTER = "fairway"
MOST_NAME = 64  # bytes of the zone's name: so that SOA fits the smallest answer to the longest question
FRESH = 32  # so many instances are looked at whenever they have changed
SECONDS_EACH, MOST_SECONDS = 20e-6, 0.05
MAX_VIEWS = 1_000  # services remembered
EPOCH_BITS = 20  # above them an index names the hub's life: a serial number that grows, and nobody transfers the zone
NOT_IN_A_TAG = re.compile(r"[^a-z0-9_]+")

Many = TypeVar("Many")


class Source(Protocol):
    """What is asked of a catalog."""

    @property
    def uncertain(self) -> bool: ...
    def instances(self, service: str | None = None) -> list[Instance]: ...
    def services(self) -> dict[str, list[Instance]]: ...
    def index_of(self, service: str | None = None) -> int: ...


@dataclass(slots=True)
class View:
    """What serves under one name. Good while the catalog's index is `index`, and until `stale_at` anyhow."""

    service: str
    index: int
    stale_at: float
    serving: list[Instance]
    tagged: dict[str, list[Instance]] | None = field(default=None, repr=False)

    def of(self, tag: str | None) -> list[Instance]:
        """Who has `tag`, in normal form; None: all. The sound ones, if there are any."""
        found = self.serving if tag is None else self._by_tag().get(tag, [])
        return [i for i in found if not i.suspect] or found

    def _by_tag(self) -> dict[str, list[Instance]]:
        if self.tagged is None:
            self.tagged = {}
            for instance in self.serving:
                version = instance.version.removeprefix("v")
                words = [*instance.tags, version, f"v{version}"] if version else instance.tags
                for tag in dict.fromkeys(map(tag_of, words)):
                    self.tagged.setdefault(tag, []).append(instance)
        return self.tagged


@dataclass(frozen=True, slots=True)
class Directory:
    """What a catalog cannot be asked for: services without regard to case, and hosts."""

    index: int
    stale_at: float
    services: dict[str, str]  # lower case -> as registered
    nodes: dict[str, str]  # name -> host


@dataclass(frozen=True, slots=True)
class Reply:
    """`view`: what it was made of, if it may be kept while that is good."""

    answer: Answer
    view: View | None = None


class Zone:
    def __init__(self, catalog: Source, *, name: str = "fairway.", ttl: int = 0, draw: Callable[[], float]) -> None:
        """`ttl`: seconds. `draw`: as random.Random().random. Raises ConfigurationError."""
        try:
            self.wire = name_of(name)
            if not 1 < len(self.wire) <= MOST_NAME:
                raise WireError(f"{name!r} is too short or too long: expected at most {MOST_NAME - 2} characters")
        except WireError as error:
            raise ConfigurationError(f"--dns-zone: {error}") from error
        if not 0 <= ttl < 1 << 31:
            raise ConfigurationError(f"--dns-ttl {ttl}: expected 0 or more seconds")
        self.labels = tuple(name.lower().removesuffix(".").split("."))
        self.hosts: list[str] = []  # addresses of ns.ZONE: where we listen
        self._catalog, self._ttl, self._draw = catalog, ttl, draw
        self._views: dict[str, View] = {}
        self._directory: Directory | None = None
        self._server, self._mailbox = b"\x02ns" + self.wire, b"\x0ahostmaster" + self.wire

    @property
    def uncertain(self) -> bool:
        return self._catalog.uncertain

    def good(self, view: View, now: float) -> bool:
        return now < view.stale_at or view.index == self._catalog.index_of(view.service)

    def resolve(self, labels: Sequence[str], type: int, now: float, most: int) -> Reply | None:
        """What is to be said of a name of class IN. None: it is none of ours. `labels`: lower case.

        `most`: no more records than this are of use; of more, so many are drawn by lot.
        """
        inner = len(labels) - len(self.labels)
        if inner < 0 or tuple(labels[inner:]) != self.labels:
            return None
        left = list(labels[:inner])
        if left and left[-1] == DATACENTER and left.pop() and not left:
            return self._nothing()
        if any("." in label for label in left):
            return self._unknown()  # a dot inside a label is none between two
        match left:
            case []:
                return self._apex(type)
            case ["ns"]:
                return self._found(self._addresses(self.hosts, type))
            case ["service" | "node" | "addr" | "_tcp"]:
                return self._nothing()  # the name is there, since there are names below it
            case [*words, "service"]:
                return self._service(words, type, now, most)
            case [first, *_, "_tcp"] if first.startswith("_"):
                return self._service(left, type, now, most)
            case [*words, "node"]:
                host = self._look_up(now).nodes.get(tag_of(".".join(words)))
                return self._missing() if host is None else self._found(self._addresses([host], type))
            case [digits, "addr"] if host := of_hex(digits):
                return self._found(self._addresses([host], type))
        return self._unknown()

    # -- instances -------------------------------------------------------------------------------------------------

    def _service(self, words: list[str], type: int, now: float, most: int) -> Reply:
        view, found = self._find(words, now)
        if view is None or not found:
            # Below `_tag` there may be something: who looks for it label by label must not be told to stop.
            return self._nothing() if len(words) == 1 and words[0].startswith("_") else self._missing()
        records: list[Record] = []
        if type in (Type.SRV, Type.ANY):
            records += [record for i in self._some(found, most) if (record := self._srv(i))]
        if type in (Type.A, Type.AAAA, Type.ANY):
            hosts = list(dict.fromkeys(i.address.host for i in found))
            records += self._addresses(self._some(hosts, most), type)
        if type == Type.TXT:
            records = [self._txt(i) for i in self._some(found, most)]
        if not records and self.uncertain:
            return Reply(Answer(Rcode.SERVFAIL))
        distinct = {record.wire: record for record in records}
        return Reply(self._found(list(distinct.values())).answer, view)

    def _find(self, words: list[str], now: float) -> tuple[View | None, list[Instance]]:
        if len(words) > 1 and words[0].startswith("_") and words[-1].startswith("_"):
            view, tag = self._view(".".join(words[:-1])[1:], now), words[-1][1:]
            return view, view.of(None if tag == "tcp" else tag_of(tag)) if view else []
        for split in range(len(words)):
            view = self._view(".".join(words[split:]), now)
            if view and (found := view.of(tag_of(".".join(words[:split])) if split else None)):
                return view, found
        return None, []

    def _view(self, name: str, now: float) -> View | None:
        known = self._views.get(name)
        if known is not None and self.good(known, now):
            return known
        service, instances = name, self._catalog.instances(name)
        if not instances and (service := self._look_up(now).services.get(name, "")):
            instances = self._catalog.instances(service)
        self._views.pop(name, None)
        if not instances:
            return None
        if len(self._views) >= MAX_VIEWS:
            del self._views[next(iter(self._views))]
        serving = [instance for instance in instances if instance.serving]
        view = View(service, self._catalog.index_of(service), now + patience(len(instances)), serving)
        self._views[name] = view
        return view

    def _look_up(self, now: float) -> Directory:
        index, known = self._catalog.index_of(), self._directory
        if known is not None and (known.index == index or now < known.stale_at):
            return known
        services = self._catalog.services()
        hosts = dict.fromkeys(i.address.host for instances in services.values() for i in instances)
        self._directory = Directory(
            index,
            now + patience(len(services) + sum(map(len, services.values()))),
            {name.lower(): name for name in sorted(services)},
            {node_of(host): host for host in hosts},
        )
        return self._directory

    def _some(self, many: list[Many], most: int) -> list[Many]:
        """In random order, and at most so many of them."""
        many, count = many.copy(), len(many)
        for place in range(min(most, count)):
            other = place + int(self._draw() * (count - place))
            many[place], many[other] = many[other], many[place]
        return many[:most]

    # -- records ---------------------------------------------------------------------------------------------------

    def _addresses(self, hosts: Iterable[str], type: int) -> list[Record]:
        sizes = {Type.A.value: (4,), Type.AAAA.value: (16,), Type.ANY.value: (4, 16)}.get(type, ())
        return [of_question(address(raw, self._ttl)) for host in hosts if len(raw := packed(host)) in sizes]

    def _srv(self, instance: Instance) -> Record | None:
        host, port = instance.address.host, instance.address.port
        if raw := packed(host):
            digits = raw.hex().encode()
            target = bytes([len(digits)]) + digits + b"\x04addr" + self.wire
            return srv(1, instance.weight, port, target, self._ttl, (address(raw, self._ttl),))
        name = host_name(host)
        return srv(1, instance.weight, port, name, self._ttl) if name else None

    def _txt(self, instance: Instance) -> Record:
        """Key=value strings as in RFC 6763: id, address, version, and one for each model and tag."""
        words = [f"id={instance.id}", f"address={instance.address}"]
        words += [f"version={instance.version}"] if instance.version else []
        words += [f"model={model}" for model in instance.models] + [f"tag={tag}" for tag in instance.tags]
        return txt(words, self._ttl)

    def _apex(self, type: int) -> Reply:
        records = [of_question(self._soa())] if type in (Type.SOA, Type.ANY) else []
        if type in (Type.NS, Type.ANY):
            glue = tuple(address(raw, self._ttl) for host in self.hosts if (raw := packed(host)))
            records.append(ns(self._server, self._ttl, glue))
        return self._found(records)

    def _soa(self) -> bytes:
        return soa(self._server, self._mailbox, self._catalog.index_of() >> EPOCH_BITS, self._ttl)

    # -- replies ---------------------------------------------------------------------------------------------------

    def _found(self, records: list[Record]) -> Reply:
        return Reply(Answer(Rcode.NOERROR, records)) if records else self._nothing()

    def _nothing(self) -> Reply:
        """The name is there, and has no record of this type."""
        return Reply(Answer(Rcode.NOERROR, authority=self._soa(), zone_size=len(self.wire)))

    def _unknown(self) -> Reply:
        return Reply(Answer(Rcode.NXDOMAIN, authority=self._soa(), zone_size=len(self.wire)))

    def _missing(self) -> Reply:
        return Reply(Answer(Rcode.SERVFAIL)) if self.uncertain else self._unknown()


def patience(instances: int) -> float:
    """Seconds for which what was made of so many is good enough, however often they change: a share of the cost."""
    return 0.0 if instances <= FRESH else min(MOST_SECONDS, instances * SECONDS_EACH)


@lru_cache(1 << 14)
def tag_of(text: str) -> str:
    """Normal form of a tag, a version, a host name."""
    return NOT_IN_A_TAG.sub("-", text.lower())


@lru_cache(1 << 14)
def packed(host: str) -> bytes:
    """4 or 16 bytes; none for a name, and for an address that means something on its own link only."""
    try:
        found = ip_address(host)
    except ValueError:
        return b""
    if isinstance(found, IPv6Address):
        if found.scope_id:
            return b""
        found = found.ipv4_mapped or found
    return found.packed


def node_of(host: str) -> str:
    raw = packed(host)
    return tag_of(ip_address(raw).exploded if raw else host)


def of_hex(digits: str) -> str | None:
    try:
        return str(ip_address(bytes.fromhex(digits))) if len(digits) in (8, 32) else None
    except ValueError:
        return None


def host_name(host: str) -> bytes | None:
    try:
        return None if ":" in host or "%" in host else name_of(host)
    except WireError:
        return None
