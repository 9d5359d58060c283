"""What lies under a path in an engine of others' making: rows and marks, each a JSON document with its writer's name. Pure.

    /PATH/v1/SERVICE/ID    {"writer": uid, "principal": "…", …Instance.as_meta()}     SERVICE and ID percent-encoded
    /PATH/marks/ID         {"writer": uid, "reason": "…"}: an operator disabled it; nothing there: enabled

Law: what was written is read again as it was, and whatever a stranger left there raises InvalidInstance and nothing else.

Format: our own. JSON is RFC 8259's, without NaN and Infinity; percent-encoding RFC 3986's, of all but its unreserved
characters. A surrogate, which a name may have from JSON, is encoded as if UTF-8 had a place for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ..changes import Mark, Put
from ..errors import InvalidInstance, StoreRefused
from ..instance import Instance
from ..wire import MAX_ROW
from .outbox import Entry


@dataclass(frozen=True)
class Row:
    """A row as it was found: who wrote it, and what."""

    writer: str
    put: Put


class Layout:
    """Of one registry: where things lie under `/path`, a path without slashes at its ends."""

    def __init__(self, path: str) -> None:
        self.root = f"/{path}/"
        self.rows, self.marks = self.root + "v1", self.root + "marks"  # the folders: without a slash at the end
        self._rows, self._marks = self.rows + "/", self.marks + "/"

    def row(self, instance: Instance) -> str:
        """The path of its row."""
        return f"{self._rows}{_segment(instance.service)}/{_segment(instance.id)}"

    def mark(self, id: str) -> str:
        """The path of its mark."""
        return self._marks + _segment(id)

    def touched(self, entry: Entry, where: Mapping[str, str]) -> set[str]:
        """Paths that writing it reads or changes; `where`: id -> where its row is known to be, whoever's."""
        if isinstance(entry.change, Mark):
            return {self.mark(entry.change.id)}
        instance = entry.change.instance
        paths = {self.row(instance), where.get(instance.id, self.row(instance))}
        return paths if isinstance(entry.change, Put) else paths | {self.mark(instance.id)}  # it ends with its row

    def read(self, path: str, value: bytes) -> Row | Mark | None:
        """What lies at `path`; None for one of others that only begins as ours do. Raises InvalidInstance."""
        rows, marks = path.removeprefix(self._rows), path.removeprefix(self._marks)
        if rows == path and marks == path:
            return None
        said = _object(value)
        if marks != path:
            reason = said.get("reason")
            return Mark(_text(marks), False, reason if isinstance(reason, str) else "")
        service, _, id = rows.partition("/")
        writer, principal = said.pop("writer", None), said.pop("principal", None)
        if not isinstance(writer, str) or not isinstance(principal, str):
            raise InvalidInstance("it does not say who its writer and its principal are")
        instance = Instance.from_meta(_text(id), said, "")
        if self.row(instance) != path:
            raise InvalidInstance(f"it is a {instance.service!r}, and lies among those of {_text(service)!r}")
        return Row(writer, Put(instance, principal))

    def is_row(self, path: str) -> bool:
        """Or something else that lies among rows."""
        return path.startswith(self._rows)

    def id_of(self, path: str) -> str | None:
        """Of a row's path; None for any other."""
        return _id(path.rpartition("/")[2]) if path.startswith(self._rows) else None

    def marked_by(self, path: str) -> str | None:
        """The id of a mark's path; None for any other."""
        return _id(path.removeprefix(self._marks)) if path.startswith(self._marks) else None


def document(put: Put, writer: str) -> bytes:
    """The value of a row. Raises StoreRefused for what is no JSON, or too large for a row on any other way."""
    words = {"writer": writer, "principal": put.principal}
    # Our two words win over words of its owner's: nobody passes for another writer.
    value = _dump(put.instance.id, put.instance.as_meta() | words)
    if (size := len(value) - len(_dump(put.instance.id, words)) + 1) > MAX_ROW:
        raise StoreRefused(f"{put.instance.id}: its document has {size} bytes; at most {MAX_ROW} are accepted")
    return value


def mark_document(mark: Mark, writer: str) -> bytes:
    """The value of a mark. Raises StoreRefused."""
    value = _dump(mark.id, {"writer": writer, "reason": mark.reason})
    if len(value) > MAX_ROW:
        raise StoreRefused(f"{mark.id}: its mark has {len(value)} bytes; at most {MAX_ROW} are accepted")
    return value


def _segment(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _text(segment: str) -> str:
    """Raises InvalidInstance for what is no percent-encoded UTF-8: a stranger's."""
    try:
        return unquote(segment, errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidInstance(f"{segment!r} is not percent-encoded UTF-8") from error


def _id(segment: str) -> str | None:
    try:
        return _text(segment)
    except InvalidInstance:
        return None


def _dump(id: str, value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreRefused(f"{id}: it cannot be written as JSON: {error}") from error


def _object(value: bytes) -> dict[str, Any]:
    if len(value) > 2 * MAX_ROW:
        raise InvalidInstance(
            f"it has {len(value)} bytes; a document of ours has at most {MAX_ROW}, and two words more"
        )
    try:
        said = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidInstance("it is not JSON") from error
    if not isinstance(said, dict):
        raise InvalidInstance("it is not a JSON object")
    return said
