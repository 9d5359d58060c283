"""Which addresses may be advertised: they are where people's uploads are sent, and where the registry dials. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from .errors import ConfigurationError
from .instance import is_loopback

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AllowList:
    """A peer may advertise itself, or what one of `networks` (CIDR) contains."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = [_network(text) for text in networks]

    def objection(self, host: str, peer_host: str) -> str | None:
        """Why `peer_host` may not advertise `host`; None if it may."""
        if host == peer_host or (is_loopback(host) and is_loopback(peer_host)):
            return None
        try:
            advertised = ipaddress.ip_address(host)
        except ValueError:
            advertised = None
        if advertised is not None and (
            str(advertised) == peer_host or any(advertised in network for network in self._networks)
        ):
            return None
        return f"{host} is not the peer's own address ({peer_host}) and not on the registry's --allow list"


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(f"--allow: {text!r} is not a network: expected e.g. 10.0.0.0/8") from error
