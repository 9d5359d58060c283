"""The rows, and what readers see of them: each change is said once, and counted. Sans-io.

What an owner says, what its silence means, what checks say and what an operator says are put together here; whose word
counts is decided in `catalog.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .changes import Change, Dial, Gone, Mark, Put, Refused, Released
from .index import Index
from .instance import EVERYTHING, Instance, Query, State
from .lease import Silence
from .owners import Owners
from .row import Row, Word

Event = Change | Refused | Released | Dial


class Board:
    def __init__(self, epoch: int) -> None:
        self.owners = Owners(self._population)
        self._index = Index(epoch)
        self._rows: dict[str, Row] = {}
        self._services: dict[str, dict[str, Row]] = {}
        self._bytes = 0  # of their documents
        self._marks: dict[str, Mark] = {}

    # -- readers ---------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Instance | None:
        row = self._rows.get(id)
        return row.shown if row else None

    def owner_of(self, id: str) -> str | None:
        row = self._rows.get(id)
        return row.owner if row else None

    def principal_of(self, id: str) -> str | None:
        """None: no such row. Empty: a connection made it."""
        row = self._rows.get(id)
        return row.principal if row else None

    def reason_of(self, id: str) -> str | None:
        """The operator's words, if it is marked as not to be used."""
        mark = self._marks.get(id)
        return mark.reason if mark else None

    def instances(self, service: str | None = None) -> list[Instance]:
        """In the order of registration, suspects last."""
        rows = self._rows if service is None else self._services.get(service, {})
        found = [row.shown for row in rows.values() if row.shown]
        return sorted(found, key=lambda i: i.suspect) if any(i.suspect for i in found) else found

    def query(self, query: Query = EVERYTHING) -> list[Instance]:
        return [i for i in self.instances(query.service or None) if query.matches(i)]

    def services(self) -> dict[str, list[Instance]]:
        return {name: self.instances(name) for name in self._services}

    def index_of(self, service: str | None = None) -> int:
        """Grows with every change of the service (None: of any). At least 1; survives the service's end."""
        return self._index.of(service)

    def knows_index(self, index: int) -> bool:
        """False: another life, or another hub, gave it out."""
        return self._index.knows(index)

    @property
    def index(self) -> int:
        return self._index.of(None)

    # -- what is said of a row, whoever owns it ----------------------------------------------------------------------

    def judge(self, id: str, state: State) -> list[Event]:
        """What the checks of a row say."""
        row = self._rows.get(id)
        if row is None:
            return []
        row.measured, row.unheard = state, False
        return self._refresh(row)

    def touch(self, id: str) -> str | None:
        """Something about it changed that only some readers see, as the words of its checks. -> its service."""
        row = self._rows.get(id)
        if row is None:
            return None
        self._index.grow(row.instance.service)
        return row.instance.service

    def mark(self, id: str, enabled: bool, reason: str = "") -> list[Event]:
        """An operator's word, whoever owns the row."""
        if id not in self._rows:
            return [Refused(id, "there is no such instance")]
        return self._mark(Mark(id, enabled, reason))

    def _mark(self, mark: Mark) -> list[Event]:
        if self._marks.get(mark.id, Mark(mark.id, True)) == mark:
            return []
        if mark.enabled:
            del self._marks[mark.id]
        else:
            self._marks[mark.id] = mark
        row = self._rows.get(mark.id)
        return [mark, *(self._refresh(row) if row else [])]

    # -- rows ------------------------------------------------------------------------------------------------------

    def _add(self, row: Row) -> list[Event]:
        self._bytes += row.word.size
        self._file(row)
        return self._refresh(row)

    def _change(self, row: Row, word: Word) -> list[Event]:
        """Its owner says something new, maybe of another service; what readers are to see of it, `_refresh` says."""
        moved = row.instance.service != word.instance.service
        events = self._remove(row, keep=True) if moved else []
        self._bytes += word.size - row.word.size
        row.word = word
        if moved:
            self._file(row)
        return events

    def _file(self, row: Row) -> None:
        self._rows[row.instance.id] = row
        self._services.setdefault(row.instance.service, {})[row.instance.id] = row

    def _remove(self, row: Row, keep: bool = False) -> list[Event]:
        """`keep`: it goes on under another service's name, and keeps its mark."""
        id, service = row.instance.id, row.instance.service
        if not keep:
            self._bytes -= row.word.size
        del self._rows[id]
        del self._services[service][id]
        if not self._services[service]:
            del self._services[service]
        shown, row.shown = row.shown or row.instance, None
        self._index.grow(service)
        lifted: list[Event] = [Mark(id, True)] if not keep and id in self._marks else []
        if lifted:
            del self._marks[id]
        return [Gone(shown, row.principal), *lifted]

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _silence(self, row: Row) -> Silence:
        if row.unheard:
            return Silence.RESTORED
        return self.owners.silence(row.owner, row.instance.service)

    def _refresh(self, row: Row) -> list[Event]:
        seen = row.look(self._silence(row), enabled=row.instance.id not in self._marks)
        if seen == row.shown:
            return []
        row.shown = seen
        self._index.grow(seen.service)
        return [Put(seen, row.principal)]

    def _refresh_owned(self, peer: str) -> list[Event]:
        return [event for id in self.owners[peer].owned for event in self._refresh(self._rows[id])]

    def _refresh_silent(self, services: Iterable[str]) -> list[Event]:
        """Whether many are silent has changed: all who are look different now."""
        silent = dict.fromkeys(peer for service in services for peer in self.owners.silent(service))
        return [event for peer in silent for event in self._refresh_owned(peer)]

    def _population(self, service: str) -> int:
        return len(self._services.get(service, ()))
