"""Our rows as services of Consul's, both ways. Pure.

Shapes: Consul's PUT /v1/agent/service/register and GET /v1/health/service/:name. What Consul has a place for stands there;
texts of the owner's `meta` are Meta as they are; the rest of the document is Meta as JSON, its keys begin with `fairway-`.
A row that lives by its writer has the TTL check that Consul itself would name `service:ID`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from ..changes import Mark, Put
from ..check import Check
from ..errors import InvalidInstance, StoreRefused
from ..instance import Instance, State

OURS = "fairway-"
WRITER, PRINCIPAL = "fairway-writer", "fairway-principal"
MOST_PAIRS, LONGEST_VALUE = 64, 512  # Consul's limits of Meta
KEY = re.compile(r"(?!consul-)[A-Za-z0-9_-]{1,128}")  # Consul's rule; `consul-` is its own
PLACED = ("id", "role", "host", "port", "tags")  # words of the document that are fields of a service
NO_REASON = "Maintenance mode is enabled for this service, but no reason was provided"  # Consul's words for none
EXPIRED = "TTL expired"  # how Consul begins the output of a TTL check that nobody passed in time
FORGOTTEN_AFTER, FORGOTTEN_AFTER_AT_REST = (
    "1m",
    "10m",
)  # 1m is Consul's least; it would forget a worker that drains for long


def check_id(instance_id: str) -> str:
    """Of the check that its writer passes."""
    return f"service:{instance_id}"


def status_of(instance: Instance) -> str:
    """What its writer says of it, in Consul's words: only what may be sent to is passing."""
    return "passing" if instance.state == "passing" else "critical"


def registration(put: Put, writer: str, ttl_seconds: float) -> dict[str, Any]:
    """The body that registers `put`. Raises StoreRefused if it fits not into a service's Meta."""
    instance = put.instance
    body: dict[str, Any] = {
        "ID": instance.id,
        "Name": instance.service,
        "Address": instance.address.host,
        "Port": instance.address.port,
        "Tags": list(instance.tags),
        "Meta": _pairs(instance, {WRITER: writer} | ({PRINCIPAL: put.principal} if put.principal else {})),
        "Weights": {"Passing": max(1, instance.weight), "Warning": 1},
    }
    if put.principal:
        # Those that are passed are passed to the registry that was asked to; Consul would never hear of it.
        body["Checks"] = [_definition(check) for check in instance.checks if check.kind != "ttl"]
    else:
        forgotten = FORGOTTEN_AFTER if instance.state == "passing" else FORGOTTEN_AFTER_AT_REST
        body["Check"] = {
            "CheckID": check_id(instance.id),
            "Name": "heartbeat",
            "TTL": duration(ttl_seconds),
            "Status": status_of(instance),
            "DeregisterCriticalServiceAfter": forgotten,
        }
    return body


def check_ids(put: Put) -> set[str]:
    """Of the checks that `registration` defines."""
    return {c.id for c in put.instance.checks if c.kind != "ttl"} if put.principal else {check_id(put.instance.id)}


def duration(seconds: float) -> str:
    """As Go reads it: `10s`, `0.25s`."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


@dataclass(frozen=True)
class Entry:
    """One instance of a listing. `alive`: its writer was heard of within the TTL. `writer` is "" where it is none of us."""

    put: Put
    writer: str = ""
    alive: bool = True
    mark: Mark | None = None
    index: int = 0


def entries(body: object) -> dict[str, Entry]:
    """What /v1/health/service/:name says, by id. What is no instance (no port, no JSON of Consul's) is left out."""
    found: dict[str, Entry] = {}
    for raw in body if isinstance(body, list) else ():
        try:
            entry = _entry(raw)
        except (InvalidInstance, KeyError, TypeError, ValueError, AttributeError):
            continue
        known = found.get(entry.put.instance.id)  # registered at two agents: the living, then the newer
        if known is None or (entry.alive, entry.index) > (known.alive, known.index):
            found[entry.put.instance.id] = entry
    return found


def next_index(before: int, told: str | None) -> int:
    """What to ask with next: X-Consul-Index, 0 (from anew) when it went backwards, never less than 1 otherwise."""
    try:
        index = max(1, int(told or 0))
    except ValueError:
        index = 1
    return 0 if index < before else index


def _definition(check: Check) -> dict[str, Any]:
    said: dict[str, Any] = {
        "CheckID": check.id,
        "Name": check.name or check.id,
        "Status": check.status,
        "Interval": duration(check.interval_seconds),
        "Timeout": duration(check.timeout_seconds),
    }
    if check.kind == "http":
        said |= {"HTTP": check.target, "Method": check.method, "TLSSkipVerify": check.tls_skip_verify}
        said |= {"Header": {name: list(values) for name, values in check.header.items()}} if check.header else {}
        said |= {"Body": check.body} if check.body else {}
    else:
        said["TCP"] = check.target
    if check.notes:
        said["Notes"] = check.notes
    if check.deregister_after_seconds:
        said["DeregisterCriticalServiceAfter"] = duration(check.deregister_after_seconds)
    if check.successes_before_passing:
        said["SuccessBeforePassing"] = check.successes_before_passing
    if check.failures_before_critical:
        said["FailuresBeforeCritical"] = check.failures_before_critical
    return said


def _pairs(instance: Instance, first: Mapping[str, str]) -> dict[str, str]:
    document = {name: value for name, value in instance.as_meta().items() if name not in PLACED}
    if instance.weight > 0:  # Consul knows no weight of 0
        document.pop("weight", None)
    said, rest = dict(first), {}
    for name, value in document.items():
        plain = isinstance(value, str) and name in instance.meta and not name.startswith(OURS)
        key, text = (name, value) if plain else (OURS + name, json.dumps(value))
        if KEY.fullmatch(key) and key not in said and _size(text) <= LONGEST_VALUE:
            said[key] = text
        else:
            rest[name] = value
    parts = _parts(rest)
    if len(said) + len(parts) > MOST_PAIRS:
        said, parts = dict(first), _parts(document)
    if len(said) + len(parts) > MOST_PAIRS:
        raise StoreRefused(
            f"{instance.id}: its document has {sum(map(len, parts.values()))} characters; Consul holds at most "
            f"{MOST_PAIRS} times {LONGEST_VALUE} of Meta for a service"
        )
    return said | parts


def _parts(rest: Mapping[str, Any]) -> dict[str, str]:
    """What fits in no pair of its own, as one JSON text in pieces."""
    text = json.dumps(rest) if rest else ""
    return {f"{OURS}-{n}": text[at : at + LONGEST_VALUE] for n, at in enumerate(range(0, len(text), LONGEST_VALUE))}


def _size(text: str) -> int:
    """In bytes, as Consul counts; a text that is no UTF-8 fits nowhere."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return LONGEST_VALUE + 1


def _document(pairs: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """-> our words, the owner's."""
    words: dict[str, Any] = {}
    pieces: dict[int, str] = {}
    theirs: dict[str, str] = {}
    for key, text in pairs.items():
        if not key.startswith(OURS):
            theirs[key] = text
        elif key.startswith(OURS + "-") and key[len(OURS) + 1 :].isdecimal():
            pieces[int(key[len(OURS) + 1 :])] = text
        elif key not in (WRITER, PRINCIPAL):
            words[key.removeprefix(OURS)] = json.loads(text)
    if pieces:
        words |= json.loads("".join(pieces[n] for n in sorted(pieces)))
    if "version" in theirs:  # what people write who register with curl
        words.setdefault("version", theirs.pop("version"))
    return words, theirs


def _entry(raw: Any) -> Entry:
    """Raises what a dict that is none raises, and InvalidInstance."""
    service, node = raw["Service"], raw["Node"]
    id, pairs = service["ID"], service.get("Meta") or {}
    words, theirs = _document(pairs)
    words |= {"role": service["Service"], "port": service["Port"], "host": service.get("Address") or node["Address"]}
    words["tags"] = service.get("Tags") or []
    words.setdefault("weight", (service.get("Weights") or {}).get("Passing", 1))
    instance = Instance.from_meta(id, words, words["host"])
    instance = replace(instance, meta={**theirs, **instance.meta})
    writer = pairs.get(WRITER, "")
    principal = pairs.get(PRINCIPAL, "" if writer else "consul")
    alive, mark = True, None
    for check in raw.get("Checks") or ():
        if check["Status"] != "critical":
            continue
        name = check["CheckID"]
        if name in (f"_service_maintenance:{id}", "_node_maintenance"):
            reason = check.get("Notes") or ""
            mark = Mark(id, False, "" if reason.startswith(NO_REASON) else reason)
        elif name == check_id(id) and not principal:
            output = str(check.get("Output"))
            alive = not output.startswith(EXPIRED)
            if instance.state == "passing" and output not in get_args(State):  # which it says until its next beat
                instance = replace(instance, state="critical")
        else:
            instance = replace(instance, state="critical")
    return Entry(Put(instance, principal), writer, alive, mark, service.get("ModifyIndex", 0))
