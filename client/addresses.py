"""Workers' addresses, as handed out by a proxy: kept for their time, used in turn. Sans-io."""

from __future__ import annotations

from collections.abc import Collection

from ..registry.lookup import Lookup


class AddressCache:
    def __init__(self) -> None:
        self._urls: list[str] = []
        self._turn = 0
        self._until = 0.0

    def fill(self, lookup: Lookup, now: float) -> None:
        """Replaces what is held; the proxy's order is kept: it names the next in turn first."""
        self._urls = [f"http://{instance.address}/" for instance in lookup.instances]
        self._turn, self._until = 0, now + lookup.ttl_seconds

    @property
    def known(self) -> int:
        """How many are held, fresh or not."""
        return len(self._urls)

    def fresh(self, now: float) -> bool:
        return self.known > 0 and now < self._until

    def next(self, avoid: Collection[str] = ()) -> str:
        """The next in turn, one outside `avoid` if there is one. Only while some are `known`."""
        for _ in self._urls:
            url = self._urls[self._turn % len(self._urls)]
            self._turn += 1
            if url not in avoid:
                return url
        return url

    def forget(self, url: str) -> None:
        """It did not answer: not used again until the proxy names it again."""
        if url in self._urls:
            self._urls.remove(url)

    def __repr__(self) -> str:
        return f"<AddressCache {len(self._urls)} workers>"
