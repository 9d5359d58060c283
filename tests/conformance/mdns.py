"""The engine `mdns://` on loopback: there is no process, only multicast. A group of its own keeps runs apart."""

from __future__ import annotations

import secrets
import socket
import struct

from .engines import Engine

GROUP, PORT = "224.0.0.251", 5353  # mDNS


class MdnsEngine(Engine):
    name = "mdns"
    restarts = durable = marks = False
    lists = False  # packets may be lost: who was not heard yet is heard a beat later
    settle_seconds, ttl_seconds = 10.0, 15.0

    @classmethod
    def missing(cls) -> str | None:
        return multicast_missing()

    async def start(self) -> None:
        self.url = f"mdns://127.0.0.1/{secrets.token_hex(8)}"

    async def stop(self) -> None:
        pass


def multicast_missing(interface: str = "127.0.0.1") -> str | None:
    """Why a datagram to many cannot be sent and received over this interface; None if it can."""
    mine = secrets.token_bytes(8)  # no DNS message: whoever else hears it drops it
    membership = socket.inet_aton(GROUP) + socket.inet_aton(interface)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying,
    ):
        try:
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            hearing.bind(("", PORT))
            hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            hearing.settimeout(2.0)
            saying.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            saying.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, struct.pack("B", 1))
            saying.sendto(mine, (GROUP, PORT))
            while hearing.recv(9000) != mine:
                pass
        except OSError as error:
            return f"there is no multicast over {interface} here: {error}"
    return None
