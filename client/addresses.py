"""Workers' addresses, as handed out by a proxy: kept for their time, used in turn, passed by when they fail. Sans-io.

Who failed is passed by for a while, in favour of others, also when the proxy names it again: it judges by what it sees
itself, and may not have seen it yet. Whoever fails again and again is passed by for longer, up to five minutes.
"""

from __future__ import annotations

from collections.abc import Collection

from ..registry.lookup import Lookup

AGAIN_SECONDS = 0.25  # between two look-ups, where all that are held have failed: they may be all there are
LONGEST_REST = 300.0  # seconds


class AddressCache:
    """Addresses are `http://HOST:PORT/`. `now`: any monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._urls: list[str] = []
        self._turn = 0
        self._asked = self._until = 0.0
        self._resting: dict[str, tuple[float, int]] = {}  # address -> until when, after how many failures in a row

    def fill(self, lookup: Lookup, now: float) -> None:
        """Replaces what is held; the proxy's order is kept: it names the next in turn first."""
        self._urls = [f"http://{instance.address}/" for instance in lookup.instances]
        self._turn, self._asked, self._until = 0, now, now + lookup.ttl_seconds
        over = [url for url, (until, _) in self._resting.items() if now > until + LONGEST_REST]
        for url in over:
            del self._resting[url]

    def keep(self, until: float) -> None:
        """The proxy is away: what it said last holds on."""
        self._until = until

    @property
    def known(self) -> int:
        """How many are held, fresh or not."""
        return len(self._urls)

    def fresh(self, now: float) -> bool:
        """Whether the proxy need not be asked. Where all that are held have failed it may know others, but not at once."""
        if not self._urls or now >= self._until:
            return False
        return now < self._asked + AGAIN_SECONDS or not all(self.resting(url, now) for url in self._urls)

    def next(self, now: float, avoid: Collection[str] = ()) -> str:
        """The next in turn outside `avoid`, one that does not rest if there is one; or else anyone. Only while `known`."""
        count = len(self._urls)
        order = [self._urls[(self._turn + i) % count] for i in range(count)]
        others = [url for url in order if url not in avoid] or order
        chosen = next((url for url in others if not self.resting(url, now)), others[0])
        self._turn = (self._turn + order.index(chosen) + 1) % count
        return chosen

    def failed(self, url: str, now: float, seconds: float, ill: bool = True) -> None:
        """To be passed by for `seconds`, doubled each time in a row. Not `ill`: it only has too much to do."""
        until, times = self._resting.get(url, (0.0, 0))
        if not ill:
            self._resting[url] = (max(until, now + seconds), times)
        elif now >= until:  # else it was sent before: one crash with many in flight is one crash
            self._resting[url] = (now + min(seconds * 2 ** min(times, 10), LONGEST_REST), times + 1)

    def answered(self, url: str) -> None:
        self._resting.pop(url, None)

    def resting(self, url: str, now: float) -> bool:
        return url in self._resting and now < self._resting[url][0]

    def __repr__(self) -> str:
        return f"<AddressCache {len(self._urls)} workers>"
