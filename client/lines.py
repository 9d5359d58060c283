"""Those who wait for a worker, for each service in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Place:
    """`await called(seconds)`; whoever then looks in vain keeps the place, and waits again."""

    def __init__(self, exclude: Collection[str]) -> None:
        self.exclude = exclude
        self._turn = asyncio.get_running_loop().create_future()

    @property
    def was_called(self) -> bool:
        return self._turn.done()

    def call(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)

    async def called(self, seconds: float) -> None:
        """Until it is called, for `seconds` at the most."""
        await asyncio.wait((self._turn,), timeout=max(seconds, 0.0))
        if self._turn.done():
            self._turn = asyncio.get_running_loop().create_future()


class Lines:
    def __init__(self) -> None:
        self._lines: dict[str, dict[Place, None]] = {}  # none is empty: strangers may name services as they like

    @contextmanager
    def join(self, service: str, exclude: Collection[str]) -> Iterator[Place]:
        """`exclude`: ids of workers that are not waited for."""
        place = Place(exclude)
        line = self._lines.setdefault(service, {})
        line[place] = None
        try:
            yield place
        finally:
            del line[place]
            if place.was_called:  # just as it gave up: others may want what it was called for
                for other in line:
                    other.call()
            if not line:
                del self._lines[service]

    def call(self, service: str, id: str) -> None:
        """This worker has room for one: for the first who waits for it and has not been called."""
        for place in self._lines.get(service, ()):
            if id not in place.exclude and not place.was_called:
                place.call()
                return

    def call_all(self) -> None:
        for line in self._lines.values():
            for place in line:
                place.call()

    def __repr__(self) -> str:
        return f"<Lines { ({service: len(line) for service, line in self._lines.items()}) }>"
