"""Who is alive, and where: THE state machine. Messages and `now` in, changes out; it touches no socket and no clock.

Laws:
* A registration lives as long as the connection that made it, and a connection as long as something is heard on it.
* Only the connection that made a row changes or frees it. One exception: a peer of the same host that registers the same
  id at the same address is the same worker come back before its old connection was missed, and takes the row over.
* Addresses are where people's uploads are sent: a peer may advertise itself, or what the allow-list names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigurationError, InvalidInstance, WireError
from .instance import EVERYTHING, Address, Instance, Query, is_loopback
from .wire import Free, Helo, Message, Register, encode

SEAPORT_TIMEOUT = 45.0  # seconds; seaport's peers send a heartbeat every 15 s and give up after three
MAX_ROWS_PER_PEER = 1_000


@dataclass(frozen=True)
class Put:
    """`instance` is new, or changed."""

    instance: Instance


@dataclass(frozen=True)
class Gone:
    instance: Instance


@dataclass(frozen=True)
class Refused:
    """Nothing changed; `reason` is for the log and the operator."""

    id: str
    reason: str


Change = Put | Gone | Refused


@dataclass
class _Peer:
    host: str
    heard: float
    timeout: float = SEAPORT_TIMEOUT
    owned: set[str] = field(default_factory=set)


class Catalog:
    """All registrations of one hub. `allowed` names networks (CIDR) whose addresses anybody may advertise."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._networks = [_network(text) for text in allowed]
        self._peers: dict[str, _Peer] = {}
        self._rows: dict[str, tuple[Instance, str]] = {}  # id -> instance, the owning peer
        self.index = 1  # grows with every change

    def join(self, peer: str, host: str, now: float) -> None:
        self._peers[peer] = _Peer(host, now)

    def receive(self, peer: str, message: Message, now: float) -> list[Change]:
        """Any message is a sign of life; `register` and `free` may change something."""
        self._peers[peer].heard = now
        match message:
            case Register(id, meta):
                return [self._register(peer, id, dict(meta))]
            case Free(id):
                return self._free(peer, id)
            case Helo(_):
                return []
        return []

    def leave(self, peer: str) -> list[Change]:
        """The connection is over: all it registered is gone."""
        gone = self._peers.pop(peer, None)
        return [self._remove(id) for id in sorted(gone.owned)] if gone else []

    def silent(self, now: float) -> list[str]:
        """Peers not heard for longer than they promised to speak: close them, then `leave`."""
        return [name for name, peer in self._peers.items() if now - peer.heard >= peer.timeout]

    def next_deadline(self) -> float | None:
        """When to ask `silent` again."""
        return min((peer.heard + peer.timeout for peer in self._peers.values()), default=None)

    def query(self, query: Query = EVERYTHING) -> list[Instance]:
        """In the order of registration."""
        return [instance for instance, _ in self._rows.values() if query.matches(instance)]

    def services(self) -> dict[str, list[Instance]]:
        found: dict[str, list[Instance]] = {}
        for instance, _ in self._rows.values():
            found.setdefault(instance.service, []).append(instance)
        return found

    def _register(self, peer: str, id: str, meta: dict[str, Any]) -> Change:
        host = self._peers[peer].host
        try:
            instance = Instance.from_meta(id, meta, host)
            self._check_address(instance.address, host)
            encode(Register(id, instance.as_meta()))  # it may have grown: a row nobody can be told is not taken
        except (InvalidInstance, WireError) as error:
            return Refused(id, str(error))
        if id in self._rows:
            known, owner = self._rows[id]
            if owner != peer and (known.address != instance.address or self._peers[owner].host != host):
                return Refused(id, "somebody else owns this id")
            self._peers[owner].owned.discard(id)
        elif len(self._peers[peer].owned) >= MAX_ROWS_PER_PEER:
            return Refused(id, f"one peer may hold at most {MAX_ROWS_PER_PEER} registrations")
        ttl = meta.get("ttl_seconds")
        if isinstance(ttl, int | float) and not isinstance(ttl, bool) and 1 <= ttl <= 3600:
            self._peers[peer].timeout = float(ttl)
        self._peers[peer].owned.add(id)
        self._rows[id] = (instance, peer)
        self.index += 1
        return Put(instance)

    def _free(self, peer: str, id: str) -> list[Change]:
        if id not in self._rows:
            return []
        if self._rows[id][1] != peer:
            return [Refused(id, "only its owner may free it")]
        self._peers[peer].owned.discard(id)
        return [self._remove(id)]

    def _remove(self, id: str) -> Gone:
        self.index += 1
        return Gone(self._rows.pop(id)[0])

    def _check_address(self, address: Address, peer_host: str) -> None:
        if address.host == peer_host or (address.loopback and is_loopback(peer_host)):
            return
        try:
            advertised = ipaddress.ip_address(address.host)
        except ValueError:
            advertised = None
        if advertised is None or not any(advertised in network for network in self._networks):
            raise InvalidInstance(
                f"{address.host} is not the peer's own address ({peer_host}) and not on the registry's --allow list"
            )

    def __repr__(self) -> str:
        return f"<Catalog [{len(self._rows)} instances of {len(self.services())} services | {len(self._peers)} peers]>"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(f"--allow: {text!r} is not a network: expected e.g. 10.0.0.0/8") from error
