"""What is still to be written to an engine, in order, and who waits for it. Pure.

Law: of each row, and of each mark, only the last word is kept: an engine that is away for long costs no more memory than
the registrations themselves, and what was said before the last word is as good as said once that is. A mark ends with
its row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..changes import Change, Gone, Mark, Put

Name = tuple[str, str]  # "row" or "mark", and the instance's id


class Receipt:
    """One call of `write`: `over(error)` is called when each of its changes was settled; `error` is the first, or None."""

    def __init__(self, changes: int, over: Callable[[Exception | None], None]) -> None:
        self._left, self._over = changes, over
        self._error: Exception | None = None

    def settle(self, error: Exception | None) -> None:
        self._left -= 1
        self._error = self._error or error
        if not self._left:
            self._over(self._error)


@dataclass(eq=False)
class Entry:
    """`value`: as the engine is to hold it. `again`: it lost it; to be written only if nobody else did so meanwhile."""

    change: Change
    value: bytes = b""
    receipts: list[Receipt] = field(default_factory=list)
    again: bool = False
    settled: bool = False

    @property
    def name(self) -> Name:
        if isinstance(self.change, Mark):
            return "mark", self.change.id
        return "row", self.change.instance.id

    def settle(self, error: Exception | None = None) -> None:
        if not self.settled:
            self.settled = True
            for receipt in self.receipts:
                receipt.settle(error)


class Outbox:
    """`add`, `take` some, then settle each, or `put_back` what could not be written."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Name, Entry] = OrderedDict()

    def add(self, entry: Entry) -> None:
        """It takes the place of what waited under its name, and goes to the end: order among the last words is kept."""
        old = self._entries.pop(entry.name, None)
        if old is not None and entry.again and not old.again:
            entry = old
        elif old is not None:
            entry.receipts = [*old.receipts, *entry.receipts]
            self._keep_end(old, entry)
        if isinstance(entry.change, Gone) and (mark := self._entries.pop(("mark", entry.name[1]), None)):
            entry.receipts = [*mark.receipts, *entry.receipts]  # it ends with its row
        self._entries[entry.name] = entry

    def take(self, most: int, touched: Callable[[Entry], Iterable[str]]) -> list[Entry]:
        """The first, as far as they touch no key twice, and no more than `most` together."""
        taken: list[Entry] = []
        keys: set[str] = set()
        for entry in self._entries.values():
            mine = set(touched(entry))
            if taken and (len(keys) + len(mine) > most or mine & keys):
                break
            taken.append(entry)
            keys |= mine
        for entry in taken:
            del self._entries[entry.name]
        return taken

    def put_back(self, entries: Iterable[Entry]) -> None:
        """To the front, in their order; those settled are left out, and who was overtaken waits for the later word."""
        for entry in reversed([entry for entry in entries if not entry.settled]):
            later = self._entries.get(entry.name)
            end = self._entries.get(("row", entry.name[1]))
            if isinstance(entry.change, Mark) and later is None and end and isinstance(end.change, Gone):
                later = end  # it would end with its row
            if later is not None and not (later.again and not entry.again):
                later.receipts = [*entry.receipts, *later.receipts]
                self._keep_end(entry, later)
                continue
            self._entries[entry.name] = entry
            self._entries.move_to_end(entry.name, last=False)

    def _keep_end(self, old: Entry, later: Entry) -> None:
        """A row that ended and began anew in one is not marked, unless it was since."""
        mark = ("mark", old.name[1])
        if isinstance(old.change, Gone) and isinstance(later.change, Put) and mark not in self._entries:
            self._entries[mark] = Entry(Mark(old.name[1], True))

    def discard(self, name: Name) -> Entry | None:
        return self._entries.pop(name, None)

    def tell(self, error: Exception) -> None:
        """Whoever waits learns of `error`; what is to be written stays."""
        for entry in self._entries.values():
            for receipt in entry.receipts:
                receipt.settle(error)
            entry.receipts = []

    def close(self, error: Exception) -> None:
        while self._entries:
            self._entries.popitem()[1].settle(error)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
