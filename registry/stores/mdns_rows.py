"""What was heard over mDNS, row by row: whom to believe, whom to ask, who is lost. Sans-io: `now` is an argument.

Anybody on the network may say anything, and packets come twice, late, or not at all. Law: of one id the word with the
latest stamp counts; once its end was said no older word brings it back; there are never more than MOST_ROWS.
"""

from __future__ import annotations

from collections import OrderedDict

from ..changes import Gone, Put
from ..hearing import Hearing
from ..instance import Instance
from .mdns_words import Word

MOST_ROWS = 1000
MOST_ENDS = 2000
END_SECONDS = 15.0  # for which an end is remembered: answers that were under way are long over


class Rows:
    """`hear` and `part` are what came; `due` is to be called every half second."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.most = most
        self.refused = 0  # words for which there was no room
        self._words: dict[str, Word] = {}
        self._hearing: Hearing[str] = Hearing()
        self._ends: OrderedDict[str, tuple[int, float]] = OrderedDict()  # id -> stamp, when

    def hear(self, word: Word, now: float) -> list[Put | Gone]:
        id = word.instance.id
        known = self._words.get(id)
        if word.stamp <= self._ended(id) or (known is not None and known != word and known.order >= word.order):
            return []
        if known is None and len(self._words) >= self.most:
            self.refused += 1
            return []
        self._words[id] = word
        self._hearing.heard(id, now)
        return [Put(word.instance)] if known is None or known.instance != word.instance else []

    def part(self, word: Word, now: float) -> list[Put | Gone]:
        """Its writer says that it is over."""
        id = word.instance.id
        self._end(id, word.stamp, now)
        known = self._words.get(id)
        if known is None or known.writer != word.writer or known.stamp > word.stamp:
            return []
        self.forget(id)
        return [Gone(known.instance)]

    def due(self, now: float) -> tuple[list[Instance], list[Put | Gone]]:
        """-> those to be asked, and the ends of those that did not answer."""
        while self._ends and next(iter(self._ends.values()))[1] + END_SECONDS <= now:
            self._ends.popitem(last=False)
        ask, lost = self._hearing.due(now)
        return [self._words[id].instance for id in ask], [Gone(self._words.pop(id).instance) for id in lost]

    def doubt(self, id: str, now: float) -> None:
        """Nobody listens at its address: if it does not answer very soon, it is lost."""
        self._hearing.doubt(id, now)

    def stamp(self, id: str) -> int:
        """Of the word that counts, or of its end; -1 if nothing was heard of it."""
        return max(self._ended(id), self._words[id].stamp if id in self._words else -1)

    def forget(self, id: str) -> None:
        self._words.pop(id, None)
        self._hearing.forget(id)

    def clear(self) -> None:
        """The network is another one, or was away: all is to be heard anew."""
        for id in list(self._words):
            self.forget(id)
        self._ends.clear()

    def _ended(self, id: str) -> int:
        return self._ends[id][0] if id in self._ends else -1

    def _end(self, id: str, stamp: int, now: float) -> None:
        before = self._ended(id)
        self._ends.pop(id, None)  # in the order of time
        self._ends[id] = max(before, stamp), now
        while len(self._ends) > MOST_ENDS:
            self._ends.popitem(last=False)

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"<Rows [{len(self._words)} of {self.most} | {len(self._ends)} ended lately]>"
