"""What is said of instances by peers that do not own them, and who of the owners only relays what it says. Sans-io.

* What waits is served once it was dialled. What is claimed is somebody else's row: whoever claims it is an heir.
* A relayed row is served because it was reached, not because its worker is connected: it is dialled again after
  `AGAIN_SECONDS`, and at once when there is a doubt. At most `DIALS` in a second, those not asked for longest first: the
  thousands of rows that a hub relays take their turns.
"""

from __future__ import annotations

from collections import OrderedDict

from .row import Word

AGAIN_SECONDS = 10.0
DIALS = 100
LONG_AGO = float("-inf")

Words = dict[str, dict[str, Word]]  # id -> peer -> what it said


class Hearsay:
    """A peer has at most one word about an id here: it waits, or is a claim. `count` and `bytes` are of all words."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self._waiting: Words = {}
        self._claims: Words = {}
        self._asked: OrderedDict[str, float] = OrderedDict()  # relayed rows, and when they were reached; in that order
        self._rest_until = LONG_AGO

    # -- words -----------------------------------------------------------------------------------------------------

    def wait(self, peer: str, word: Word) -> None:
        self._say(self._waiting, peer, word)

    def claim(self, peer: str, word: Word) -> None:
        self._say(self._claims, peer, word)

    def waiting(self, id: str, peer: str) -> Word | None:
        return self._waiting.get(id, {}).get(peer)

    def claims(self, id: str) -> dict[str, Word]:
        return dict(self._claims.get(id, {}))

    def word(self, id: str, peer: str) -> Word | None:
        return self.waiting(id, peer) or self._claims.get(id, {}).get(peer)

    def speakers(self, id: str) -> set[str]:
        return self._waiting.get(id, {}).keys() | self._claims.get(id, {}).keys()

    def forget(self, id: str, peer: str) -> Word | None:
        """-> what it had said."""
        for words in (self._waiting, self._claims):
            word = words.get(id, {}).pop(peer, None)
            if word is not None:
                if not words[id]:
                    del words[id]
                self.count -= 1
                self.bytes -= word.size
                return word
        return None

    def _say(self, words: Words, peer: str, word: Word) -> None:
        self.forget(word.instance.id, peer)
        words.setdefault(word.instance.id, {})[peer] = word
        self.count += 1
        self.bytes += word.size

    # -- rows that were only relayed ---------------------------------------------------------------------------------

    def reached(self, id: str, now: float) -> None:
        """It is served, and only relayed."""
        self._asked.pop(id, None)
        self._asked[id] = now

    def settle(self, id: str) -> None:
        """It is gone, or its owner speaks for himself."""
        self._asked.pop(id, None)

    def doubt(self, id: str) -> None:
        """If it is a relayed one: its turn is now."""
        if id in self._asked:
            self._asked[id] = LONG_AGO
            self._asked.move_to_end(id, last=False)

    def due(self, now: float) -> list[str]:
        """Which are to be dialled now."""
        if now < self._rest_until:
            return []
        ids: list[str] = []
        while len(ids) < DIALS and self._asked and next(iter(self._asked.values())) + AGAIN_SECONDS <= now:
            ids.append(next(iter(self._asked)))
            self.reached(ids[-1], now)
        if len(ids) == DIALS:
            self._rest_until = now + 1
        return ids

    def next(self) -> float | None:
        """When `due` has some to name."""
        if not self._asked:
            return None
        return max(next(iter(self._asked.values())) + AGAIN_SECONDS, self._rest_until)

    def __repr__(self) -> str:
        return f"<Hearsay {self.count} words, {len(self._asked)} relayed>"
