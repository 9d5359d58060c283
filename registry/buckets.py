"""How much each source may still be sent: one bucket each, in a bounded table. Sans-io; `now` in seconds.

Over UDP anybody can ask in another's name. An answer is larger than its question, so without a bound we would be a
weapon: who is over it is answered with nothing but "ask over TCP", which a forger cannot.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm of ATM, ITU-T I.371).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

MAX_SOURCES = 10_000


class Buckets:
    """Each source is sent `rate` bytes a second, and up to `burst` bytes at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._depth = rate, burst / rate
        self._full_at: dict[bytes, float] = {}  # the one that was sent something longest ago first

    def take(self, source: bytes, size: int, now: float) -> bool:
        """Whether `source` may be sent `size` bytes more. A newcomer may not while the table is full of busy ones."""
        full_at = max(self._full_at.get(source, 0.0), now)
        if full_at - now > self._depth or not (source in self._full_at or self._room(now)):
            return False
        self._full_at.pop(source, None)
        self._full_at[source] = full_at + size / self._rate
        return True

    def _room(self, now: float) -> bool:
        for _ in range(2):  # more than one newcomer brings, so the table shrinks when it may
            oldest = next(iter(self._full_at), None)
            if oldest is not None and self._full_at[oldest] <= now:
                del self._full_at[oldest]
        return len(self._full_at) < MAX_SOURCES

    def __len__(self) -> int:
        return len(self._full_at)


@lru_cache(MAX_SOURCES)
def source_of(host: str) -> bytes:
    """An IPv4 address; of an IPv6 address the network, /64, since one host may have all of it."""
    found = ip_address(host.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).packed[:8]
