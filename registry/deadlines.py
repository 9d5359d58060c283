"""When which of many things is due, where most deadlines are put off long before they come. Sans-io: `now` is an argument.

A thing has one deadline and one entry in the heap, however often it is put off: the entry stays where it is, and is put
in its new place when it comes up.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    def __init__(self) -> None:
        self._due: dict[T, float] = {}
        self._queued: dict[T, float] = {}  # where its entry is; it may be earlier than it is due
        self._heap: list[tuple[float, int, T]] = []
        self._order = count()

    def put(self, thing: T, when: float) -> None:
        """Its only deadline from now on."""
        self._due[thing] = when
        if when < self._queued.get(thing, float("inf")):
            self._push(thing, when)

    def drop(self, thing: T) -> None:
        """Never, until it is put again."""
        self._due.pop(thing, None)

    def take(self, now: float) -> T | None:
        """One that is due, which then has no deadline any more; None if none is."""
        due = self.next()
        if due is None or due > now:
            return None
        _, _, thing = heapq.heappop(self._heap)
        del self._queued[thing], self._due[thing]
        return thing

    def next(self) -> float | None:
        """When the next one is due."""
        while self._heap:
            when, _, thing = self._heap[0]
            due = self._due.get(thing)
            if self._queued.get(thing) == when and due == when:
                return when
            heapq.heappop(self._heap)
            if self._queued.get(thing) == when:
                del self._queued[thing]
                if due is not None:
                    self._push(thing, due)
        return None

    def _push(self, thing: T, when: float) -> None:
        self._queued[thing] = when
        heapq.heappush(self._heap, (when, next(self._order), thing))

    def __len__(self) -> int:
        return len(self._due)
