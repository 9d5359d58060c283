"""Where rows and marks lie in etcd, and the transactions that write them. Pure.

    /PREFIX/v1/SERVICE/ID    {"writer": uid, "principal": "…", …Instance.as_meta()}     SERVICE and ID percent-encoded
    /PREFIX/marks/ID         {"writer": uid, "reason": "…"}: an operator disabled it; no such key: enabled

Law: a condition is a transaction of its own within the batch's, so that one that does not hold keeps nothing else from
being written. What has no condition is not nested: etcd 3.4 does not ask whether a user may write what is.

Format: etcd's rpc.proto as JSON (etcd.io, API reference and "gRPC gateway"): keys and values in base64, 64-bit numbers as
texts, defaults left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ..changes import Mark, Put
from ..errors import InvalidInstance, StoreRefused
from ..instance import Instance
from ..wire import MAX_ROW

MAX_OPERATIONS = 100  # in one transaction; etcd refuses more than 128 unless told otherwise
Operation = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row as it was found: who wrote it, and what."""

    writer: str
    put: Put


class Layout:
    """Of one registry: the keys under `prefix`, a path without slashes at its ends."""

    def __init__(self, prefix: str) -> None:
        self.root = f"/{prefix}/"
        self._rows, self._marks = self.root + "v1/", self.root + "marks/"

    @property
    def everything(self) -> Operation:
        """The range that holds all keys of the registry."""
        return {"key": _encoded(self.root), "range_end": _encoded(self.root[:-1] + "0")}  # '0' comes right after '/'

    def row(self, instance: Instance) -> str:
        return f"{self._rows}{_segment(instance.service)}/{_segment(instance.id)}"

    def mark(self, id: str) -> str:
        return self._marks + _segment(id)

    def read(self, key: str, value: bytes) -> Row | Mark | None:
        """What lies at `key`; None for a key of others that only begins as ours do. Raises InvalidInstance."""
        rows, marks = key.removeprefix(self._rows), key.removeprefix(self._marks)
        if rows == key and marks == key:
            return None
        said = _object(value)
        if marks != key:
            reason = said.get("reason")
            return Mark(_text(marks), False, reason if isinstance(reason, str) else "")
        service, _, id = rows.partition("/")
        writer, principal = said.pop("writer", None), said.pop("principal", None)
        if not isinstance(writer, str) or not isinstance(principal, str):
            raise InvalidInstance("it does not say who its writer and its principal are")
        instance = Instance.from_meta(_text(id), said, "")
        if self.row(instance) != key:
            raise InvalidInstance(f"it is a {instance.service!r}, and lies among those of {_text(service)!r}")
        return Row(writer, Put(instance, principal))

    def id_of(self, key: str) -> str | None:
        """Of a row's key; None for any other."""
        return _text(key.rpartition("/")[2]) if key.startswith(self._rows) else None

    def marked_by(self, key: str) -> str | None:
        """The id of a mark's key; None for any other."""
        return _text(key.removeprefix(self._marks)) if key.startswith(self._marks) else None


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


def put(key: str, value: bytes, lease: str = "") -> Operation:
    request = {"key": _encoded(key), "value": base64.b64encode(value).decode()}
    return {"request_put": request | ({"lease": lease} if lease else {})}


def delete(key: str) -> Operation:
    return {"request_delete_range": {"key": _encoded(key)}}


def if_absent(key: str, *operations: Operation) -> Operation:
    """Else its answer holds what lies at `key`."""
    compare = {"key": _encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
    read = {"request_range": {"key": _encoded(key)}}
    return {"request_txn": {"compare": [compare], "success": list(operations), "failure": [read]}}


def if_ours(key: str, lease: str, revision: int, *operations: Operation) -> Operation:
    """If `key` is bound to `lease`, or else was last written at `revision`, or else is not there."""
    conditions = [("MOD", "mod_revision", str(revision)), ("CREATE", "create_revision", "0")]
    if lease:
        conditions.insert(0, ("LEASE", "lease", lease))
    nested: list[Operation] = []
    for target, field, value in reversed(conditions):
        compare = {"key": _encoded(key), "target": target, "result": "EQUAL", field: value}
        nested = [{"request_txn": {"compare": [compare], "success": list(operations), "failure": nested}}]
    return nested[0]


def outcome(answers: list[Operation]) -> list[Operation] | None:
    """What the operations of one change answer, within their condition if they had one; None: it did not hold."""
    met = True
    while answers and (inner := answers[0].get("response_txn")) is not None:
        answers, met = inner.get("responses", []), bool(inner.get("succeeded"))
        if met:
            break
    return answers if met else None


def _encoded(key: str) -> str:
    return base64.b64encode(key.encode("utf-8", "surrogatepass")).decode()


def _segment(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _text(segment: str) -> str:
    return unquote(segment, errors="surrogatepass")


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
