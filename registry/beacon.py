"""Says on the local network where a registry is: DNS-SD service `_fairway._tcp.local.`, found by `finder.py`.

TXT: `txtvers=1`, `version` of Fairway, `proto=1` (seaport rows and HTTP on one port), `tls=0` or `1`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .instance import Address
from .txt import pack

if TYPE_CHECKING:
    from .lan import Lan, Service

log = logging.getLogger("fairway.registry.beacon")

KIND = "_fairway._tcp.local."
PROTO = "1"
BEAT_SECONDS, TTL_SECONDS = 10.0, 30


class Beacon:
    """`interfaces`: IPv4 addresses of those to use; else the one the registry listens on, or all but loopback."""

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._interfaces = tuple(interfaces)
        self._lan: Lan | None = None

    async def start(self, address: Address, tls: bool = False) -> None:
        """Where the registry listens; 0.0.0.0 and :: stand for all addresses of this machine. Returns at once."""
        from .. import __version__
        from .lan import Lan  # and zeroconf with it

        everywhere = address.host in ("0.0.0.0", "::")
        if not everywhere and not _is_ipv4(address.host):
            log.warning("%s is not announced over mDNS: it tells IPv4 addresses only", address)
            return
        if address.loopback and not self._interfaces:
            log.warning("%s is not announced over mDNS: nobody else reaches a registry there", address)
            return
        words = {"txtvers": "1", "version": __version__, "proto": PROTO, "tls": str(int(tls))}
        txt = pack({key: value.encode() for key, value in words.items()})

        def turned(up: bool) -> None:
            if up:
                hosts = (address.host,) if not everywhere else tuple(link.address for link in lan.links)
                lan.replace([_service(hosts, address.port, txt)])

        named = () if everywhere else (address.host,)
        lan = self._lan = Lan(
            KIND, self._interfaces or named, turned=turned, beat_seconds=BEAT_SECONDS, ttl_seconds=TTL_SECONDS
        )
        await lan.start()

    async def close(self) -> None:
        """Says that it is over."""
        if self._lan is not None:
            await self._lan.close()


def _service(hosts: tuple[str, ...], port: int, txt: bytes) -> Service:
    from .lan import Service

    return Service(f"registry-{hosts[0].replace('.', '-')}-{port}", hosts, port, txt)


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
