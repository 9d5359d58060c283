"""ZooKeeper's nodes, and the transactions that write rows and marks there. Pure.

    /PATH/v1/SERVICE/ID    ephemeral, or persistent if it has a principal
    /PATH/marks/ID         persistent

Law: nothing is written on the strength of what was read if that is no longer so. A node that was removed and made anew
counts its versions from 0 again, so that a version alone does not tell our row from an heir's. Therefore whoever removes
what another wrote changes the SERVICE node in the same transaction, and each transaction that touches a row there asks
first whether that node is still as it was read, before the row was.

Format: paths and documents as in `document.py`, and ZooKeeper's data model (zookeeper.apache.org, Programmer's Guide): an
ephemeral node's owner is the session that made it, for ever; `.` and `..` are no names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..changes import Gone, Mark, Put
from ..errors import InvalidInstance
from ..instance import Instance
from . import document
from .document import Row
from .outbox import Entry


@dataclass(frozen=True)
class Node:
    """As it was read. `owner`: the session with which it ends, 0: it stays. `born`: which transaction made it, and when."""

    value: bytes
    version: int = 0
    owner: int = 0
    born: tuple[int, int] = 0, 0


@dataclass(frozen=True)
class Create:
    path: str
    value: bytes = b""
    ephemeral: bool = False


@dataclass(frozen=True)
class Set:
    path: str
    value: bytes
    version: int


@dataclass(frozen=True)
class Delete:
    path: str
    version: int


@dataclass(frozen=True)
class Check:
    path: str
    version: int


Operation = Create | Set | Delete | Check


class Layout(document.Layout):
    """Of one registry: the nodes under `/path`, a path without slashes at its ends."""

    def row(self, instance: Instance) -> str:
        return _legal(super().row(instance))

    def mark(self, id: str) -> str:
        return _legal(super().mark(id))


class Transaction:
    """`seen`: the touched nodes and their parents, the parents read first. `add` entries, then write `operations`."""

    def __init__(
        self, layout: Layout, seen: Mapping[str, Node | None], where: Mapping[str, str], uid: str, session: int
    ) -> None:
        self._layout, self._seen, self._where = layout, seen, where
        self._uid, self._session = uid, session
        self._fences: dict[str, bool] = {}  # service node -> whether a row there was taken from another
        self._operations: list[Operation] = []

    @property
    def operations(self) -> list[Operation]:
        return [*(self._fence(path, taken) for path, taken in self._fences.items()), *self._operations]

    def add(self, entry: Entry) -> bool:
        """Whether anything is, or is left, as the entry wants it; False: it is another's, and stays so."""
        match entry.change:
            case Put():
                return self._put(entry, entry.change)
            case Gone(instance, principal):
                path, mark = self._layout.row(instance), self._layout.mark(instance.id)
                paths = {path} | ({self._where.get(instance.id, path)} if principal else set())
                found = [path for path in sorted(paths) if self._seen[path] and (principal or self._ours(path))]
                for path in found:
                    self._remove(path)
                if found and (node := self._seen[mark]):
                    self._operations.append(Delete(mark, node.version))
                return bool(found)
            case Mark(id, enabled):
                path = self._layout.mark(id)
                node = self._seen[path]
                if enabled and node:
                    self._operations.append(Delete(path, node.version))
                elif not enabled:
                    self._operations.append(Set(path, entry.value, node.version) if node else Create(path, entry.value))
        return True

    def _put(self, entry: Entry, put: Put) -> bool:
        path = self._layout.row(put.instance)
        node, before = self._seen[path], self._where.get(put.instance.id, path)
        owner = 0 if put.principal else self._session
        if entry.again and node and not self._ours(path):
            return False
        if before != path and self._seen[before]:
            self._remove(before)
        self._fences.setdefault(parent(path), False)
        if node and node.owner == owner:
            if node.value != entry.value:
                self._operations.append(Set(path, entry.value, node.version))
            return True
        if node:
            self._remove(path)
        self._operations.append(Create(path, entry.value, bool(owner)))
        return True

    def _remove(self, path: str) -> None:
        node, service = self._seen[path], parent(path)
        assert node is not None
        self._fences[service] = self._fences.get(service, False) or not self._ours(path)
        self._operations.append(Delete(path, node.version))

    def _fence(self, service: str, taken: bool) -> Operation:
        node = self._seen[service]
        if node is None:
            return Create(service)
        return Set(service, node.value, node.version) if taken else Check(service, node.version)

    def _ours(self, path: str) -> bool:
        node = self._seen[path]
        try:
            found = node and self._layout.read(path, node.value)
        except InvalidInstance:
            return False
        return isinstance(found, Row) and found.writer == self._uid


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def _legal(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.replace('.', '%2E')}" if name in (".", "..") else path
