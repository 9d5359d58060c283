"""The peers that hold registrations by their connections: when each was heard, and who is silent. Sans-io.

A beat moves no deadline: one that comes up too early is put off then, so that ten thousand peers cost two moves each in a
time to live, however often they speak.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from .advertising import AllowList
from .deadlines import Deadlines
from .instance import Instance
from .lease import HOLD_SECONDS, Silence, is_mass, late_at, lost_at
from .row import Row

ENGINE = "engine"  # the owner of what other hubs wrote to the engine we share
RESTORED = "restored"  # the owner of what our own last life knew
DURABLE = "durable"  # the owner of what was registered over HTTP
SEAPORT_TIMEOUT = 45.0  # seconds; seaport's peers send a heartbeat every 15 s and give up after three
RECHECK_SECONDS = 1.0  # those that are held are looked at again this often
MAX_SERVICES = 10_000  # of which it is remembered that some were given up lately
OWN = AllowList()  # nobody's addresses but its own


class Rank(Enum):
    """What a peer is to a row that it registers, and somebody else has."""

    OWNER = "it takes it over"
    HEIR = "it claims it"
    STRANGER = "it may not have it"


@dataclass(slots=True, eq=False)
class Peer:
    name: str
    host: str
    heard: float
    principal: str = ""  # whose token it showed last
    direct: bool = False  # all it says is about itself
    hub: bool = False  # what it says is mostly about others, always
    fairway: bool = False  # it speaks more than seaport
    ttl: float = SEAPORT_TIMEOUT
    late: bool = False
    owned: dict[str, str] = field(default_factory=dict)  # id -> service
    claimed: set[str] = field(default_factory=set)  # ids it named that are somebody else's, or wait to be dialled


class Owners:
    """`population(service)` says how many instances there are, silent ones among them."""

    def __init__(self, population: Callable[[str], int]) -> None:
        self._population = population
        self._peers: dict[str, Peer] = {}
        self._deadlines: Deadlines[str] = Deadlines()
        self._late: dict[str, Counter[str]] = {}  # service -> late peers, and how many rows of each
        self._lost: dict[str, deque[tuple[float, int]]] = {}  # service -> when how many were given up lately
        self._mass: set[str] = set()  # services of which too many are silent at once

    def __contains__(self, name: str) -> bool:
        return name in self._peers

    def __getitem__(self, name: str) -> Peer:
        return self._peers[name]

    def __len__(self) -> int:
        return len(self._peers)

    def add(self, peer: Peer) -> None:
        self._peers[peer.name] = peer
        self._deadlines.put(peer.name, late_at(peer.heard, peer.ttl))

    def remove(self, name: str) -> Peer | None:
        """It keeps what it `owned`, for whoever clears up."""
        peer = self._peers.pop(name, None)
        self._deadlines.drop(name)
        if peer is not None and peer.late:
            self._recover(peer)
        return peer

    def known_as(self, name: str, principal: str) -> None:
        """Whose token it showed: nobody else takes its rows over."""
        if peer := self._peers.get(name):
            peer.principal = principal

    def alike(self, owner: str, peer: Peer) -> bool:
        """Whether `peer` may be `owner` come back. Of one that is no peer, an engine's, nothing is known."""
        known = self._peers.get(owner, peer)
        return (known.host, known.principal) == (peer.host, peer.principal)

    def rank(self, row: Row, peer: Peer, instance: Instance) -> Rank:
        """A row that was only relayed goes to whoever says so at its own address, whatever relays it."""
        if row.principal or (row.instance.service, row.instance.address) != (instance.service, instance.address):
            return Rank.STRANGER
        relay, host = self._peers.get(row.owner), instance.address.host
        if row.word.relayed and relay is not None and not OWN.objection(host, peer.host):
            if OWN.objection(host, relay.host):
                return Rank.OWNER
            # Both are there, and the one that has it may be the worker as well.
            return Rank.OWNER if peer.direct and peer.principal == relay.principal else Rank.HEIR
        if not self.alike(row.owner, peer):
            return Rank.STRANGER
        return Rank.OWNER if peer.direct or row.owner == RESTORED else Rank.HEIR

    def own(self, owner: str, id: str, service: str) -> None:
        """Owners that are no peers (an engine, the last life) are not kept here."""
        if peer := self._peers.get(owner):
            peer.owned[id] = service
            peer.claimed.discard(id)
            if peer.late:  # its address was reached while it was silent
                self._late.setdefault(service, Counter())[owner] += 1

    def disown(self, owner: str, id: str) -> None:
        peer = self._peers.get(owner)
        if peer is not None and (service := peer.owned.pop(id, None)) and peer.late:
            self._late[service][owner] -= 1
            if not self._late[service][owner]:
                del self._late[service][owner]
            if not self._late[service]:
                del self._late[service]

    def promise(self, peer: Peer, ttl: object) -> None:
        """How long a silence it asks to be allowed; what is no such number changes nothing."""
        if isinstance(ttl, int | float) and not isinstance(ttl, bool) and 1 <= ttl <= 3600 and ttl != peer.ttl:
            peer.ttl = float(ttl)
            self._deadlines.put(peer.name, late_at(peer.heard, peer.ttl))

    def beat(self, name: str, now: float) -> set[str] | None:
        """Heard of. If it was late: the services in which the look of those still silent may have changed."""
        peer = self._peers[name]
        peer.heard = now
        if not peer.late:
            return None
        self._recover(peer)
        self._deadlines.put(name, late_at(now, peer.ttl))
        return self._judge(set(peer.owned.values()), now)

    def silence(self, owner: str, service: str) -> Silence:
        peer = self._peers.get(owner)
        if peer is None or not peer.late:
            return Silence.FRESH
        return Silence.MASS_LATE if service in self._mass else Silence.LATE

    def silent(self, service: str) -> list[str]:
        return list(self._late.get(service, ()))

    def expire(self, now: float) -> tuple[list[str], set[str], list[str]]:
        """-> peers that just fell silent; services in which that looks different now; peers to be given up."""
        fallen: list[str] = []
        overdue: list[Peer] = []
        while (name := self._deadlines.take(now)) is not None:
            peer = self._peers[name]
            if now < late_at(peer.heard, peer.ttl):
                self._deadlines.put(name, late_at(peer.heard, peer.ttl))
                continue
            if not peer.late:
                self._fall(peer)
                fallen.append(peer.name)
            if now < lost_at(peer.heard, peer.ttl):
                self._deadlines.put(name, lost_at(peer.heard, peer.ttl))
            else:
                overdue.append(peer)
        looked_at = {service for name in fallen for service in self._peers[name].owned.values()}
        looked_at |= {service for peer in overdue for service in peer.owned.values()}
        changed = self._judge(looked_at, now)
        lost = [peer for peer in overdue if not self._held(peer, now)]
        for peer in lost:
            for service, rows in Counter(peer.owned.values()).items():
                self._lost.setdefault(service, deque()).append((now, rows))
                if len(self._lost) > MAX_SERVICES:
                    del self._lost[next(iter(self._lost))]
        return fallen, changed, [peer.name for peer in lost]

    def next_deadline(self) -> float | None:
        return self._deadlines.next()

    def _held(self, peer: Peer, now: float) -> bool:
        end = lost_at(peer.heard, peer.ttl) + HOLD_SECONDS
        if now >= end or self._mass.isdisjoint(peer.owned.values()):
            return False
        self._deadlines.put(peer.name, min(now + RECHECK_SECONDS, end))
        return True

    def _fall(self, peer: Peer) -> None:
        peer.late = True
        for service, rows in Counter(peer.owned.values()).items():
            self._late.setdefault(service, Counter())[peer.name] = rows

    def _recover(self, peer: Peer) -> None:
        peer.late = False
        for service in set(peer.owned.values()):
            self._late[service].pop(peer.name, None)
            if not self._late[service]:
                del self._late[service]
                self._mass.discard(service)

    def _judge(self, services: set[str], now: float) -> set[str]:
        """Whether many are silent in each of `services` -> those of which the answer changed."""
        before = self._mass & services
        for service in services:
            lately = self._lost.get(service, deque())
            ttl = max((self._peers[name].ttl for name in self._late.get(service, ())), default=0.0)
            while lately and now - lately[0][0] > ttl:
                lately.popleft()
            if not lately:
                self._lost.pop(service, None)
            gone = sum(rows for _, rows in lately)
            silent = sum(self._late.get(service, {}).values()) + gone
            if is_mass(silent, self._population(service) + gone):
                self._mass.add(service)
            else:
                self._mass.discard(service)
        return before ^ (self._mass & services)

    def __repr__(self) -> str:
        late = sum(peer.late for peer in self._peers.values())
        return f"{len(self._peers)} peers" + (f", {late} silent" if late else "")
