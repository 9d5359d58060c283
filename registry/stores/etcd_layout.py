"""etcd's keys, and the transactions that write rows and marks there. Pure.

Law: a condition is a transaction of its own within the batch's, so that one that does not hold keeps nothing else from
being written. What has no condition is not nested: etcd 3.4 does not ask whether a user may write what is.

Format: keys and values as in `document.py`; etcd's rpc.proto as JSON (etcd.io, API reference and "gRPC gateway"): keys and
values in base64, 64-bit numbers as texts, defaults left out.
"""

from __future__ import annotations

import base64
from typing import Any

from . import document as documents
from .document import Row, document, mark_document

__all__ = (
    "MAX_OPERATIONS", "Layout", "Operation", "Row",
    "delete", "document", "if_absent", "if_ours", "mark_document", "outcome", "put",
)  # fmt: skip

MAX_OPERATIONS = 100  # in one transaction; etcd refuses more than 128 unless told otherwise
Operation = dict[str, Any]


class Layout(documents.Layout):
    """Of one registry: the keys under `/path`, a path without slashes at its ends."""

    @property
    def everything(self) -> Operation:
        """The range that holds all keys of the registry."""
        return {"key": _encoded(self.root), "range_end": _encoded(self.root[:-1] + "0")}  # '0' comes right after '/'


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
