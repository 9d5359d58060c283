"""The interfaces of this machine over which others on the local network can be reached: those with an IPv4 address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ifaddr  # what zeroconf uses itself


@dataclass(frozen=True)
class Link:
    """An interface in use, by its IPv4 address."""

    index: int
    address: str
    network: ipaddress.IPv4Network


def links(wanted: Sequence[str] = ()) -> tuple[Link, ...]:
    """The usable ones of those with these addresses; of all but loopback if none are named."""
    found = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if not ip.is_IPv4 or not isinstance(ip.ip, str):
                continue
            network = ipaddress.IPv4Network((ip.ip, ip.network_prefix), strict=False)
            if (ip.ip in wanted if wanted else not network.is_loopback) and not _cut(adapter.name):
                found.add(Link(adapter.index or 0, ip.ip, network))
    return tuple(sorted(found, key=lambda link: (link.index, link.address)))


def _cut(name: str) -> bool:
    """Whether the kernel says that no packet gets through. `unknown`, loopback's state, is none of these."""
    try:
        state = Path("/sys/class/net", name.partition(":")[0], "operstate").read_text("ascii").strip()
    except OSError:  # not Linux
        return False
    return state in ("down", "lowerlayerdown", "notpresent", "dormant")
