"""Our rows as services of Consul's, both ways. Pure.

What a service of Consul's has a place for is written as `registry/consul` writes it; the rest of the document stands in its
Meta, as JSON, under keys that begin with `fairway-`. A row that lives by its writer has a TTL check; it is named as Consul
itself would name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, get_args

from ..changes import Mark, Put
from ..check import Check
from ..consul import as_registration, read_entry
from ..consul.registration import OURS as WORDS
from ..errors import InvalidInstance, StoreRefused
from ..instance import Instance, State

OURS = "fairway-"
WRITER, PRINCIPAL = "fairway-writer", "fairway-principal"
MOST_PAIRS, LONGEST_VALUE = 64, 512  # Consul's limits of Meta
KEY = re.compile(r"(?!consul-)[A-Za-z0-9_-]{1,128}")  # Consul's rule; `consul-` is its own
PLACED = ("id", "role", "host", "port", "tags", "weight")  # words of the document that are fields of a service
NO_REASON = "Maintenance mode is enabled for this service, but no reason was provided"  # Consul's words for none
EXPIRED = "TTL expired"  # how Consul begins the output of a TTL check that nobody passed in time
# Consul's least is one minute. It would forget a worker that drains for long: its check fails for as long.
FORGOTTEN_AFTER, FORGOTTEN_AFTER_AT_REST = 60.0, 600.0
ENDLESS = 10 * 365 * 86_400.0


def check_id(id: str) -> str:
    """Of the one check of instance `id`: as Consul itself would name it, if that is not too long."""
    return f"service:{id}" if len(id) <= 120 else f"service:{sha256(id.encode('utf-8', 'replace')).hexdigest()}"


def status_of(instance: Instance) -> str:
    """What its writer says of it, in Consul's words: only what may be sent to is passing."""
    return "passing" if instance.state == "passing" else "critical"


def registration(put: Put, writer: str, ttl_seconds: float) -> dict[str, Any]:
    """The body that registers `put`. Raises StoreRefused if it does not fit into a service's Meta."""
    instance, checks = put.instance, _checks(put, ttl_seconds)
    texts = {name: value for name, value in instance.meta.items() if isinstance(value, str) and name not in WORDS}
    texts = {name: value for name, value in texts.items() if _fits(name, value) and not name.startswith(OURS)}
    body = as_registration(replace(instance, meta=texts, checks=checks))
    said = {name: value for name, value in body["Meta"].items() if _fits(name, value)}
    document = {name: value for name, value in instance.as_meta().items() if name not in PLACED}
    if body["Weights"]["Passing"] != instance.weight:  # Consul knows no weight of 0
        document["weight"] = instance.weight
    if instance.tags == (instance.version,):  # which is how a registry of ours shows one that has none
        document["tags"] = list(instance.tags)
    first = {WRITER: writer} | ({PRINCIPAL: put.principal} if put.principal else {})
    body["Meta"] = _pairs(instance.id, first, said, document)
    return body


def check_ids(put: Put) -> set[str]:
    """Of the checks that `registration` defines."""
    return {check.id for check in _checks(put, 1.0)}


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
        except (InvalidInstance, KeyError, TypeError, ValueError, AttributeError, RecursionError):
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


def _checks(put: Put, ttl_seconds: float) -> tuple[Check, ...]:
    instance = put.instance
    if put.principal:
        # TTLs are passed at the registry that was asked to; Consul would never hear of it.
        asked = tuple(check for check in instance.checks if check.kind != "ttl")
        name = "looked after by those who read it"  # a registry of ours would look after one that has none
        return asked or (Check(check_id(instance.id), "ttl", ttl_seconds=ENDLESS, name=name, status="passing"),)
    return (
        Check(
            check_id(instance.id),
            "ttl",
            ttl_seconds=ttl_seconds,
            name="heartbeat",
            status="passing" if instance.state == "passing" else "critical",
            deregister_after_seconds=FORGOTTEN_AFTER if instance.state == "passing" else FORGOTTEN_AFTER_AT_REST,
        ),
    )


def _pairs(id: str, first: Mapping[str, str], said: Mapping[str, str], document: Mapping[str, Any]) -> dict[str, str]:
    """What `said` does not say has pairs of its own, if it fits and they are not too many; the rest goes in pieces."""
    single: dict[str, str] = {}
    rest: dict[str, Any] = {}
    for name, value in document.items():
        if name in said:
            continue
        key, text = OURS + name, json.dumps(value)
        if _fits(key, text) and key not in first:
            single[key] = text
        else:
            rest[name] = value
    meta = {**first, **said, **single, **_pieces(rest)}
    if len(meta) > MOST_PAIRS:
        meta = {**first, **_pieces(document)}
    if len(meta) > MOST_PAIRS:
        size = sum(map(len, meta.values()))
        raise StoreRefused(
            f"{id}: its document has {size} characters; Consul's Meta of a service holds {MOST_PAIRS} times {LONGEST_VALUE}"
        )
    return meta


def _pieces(rest: Mapping[str, Any]) -> dict[str, str]:
    text = json.dumps(rest) if rest else ""
    return {f"{OURS}-{n}": text[at : at + LONGEST_VALUE] for n, at in enumerate(range(0, len(text), LONGEST_VALUE))}


def _fits(key: str, text: str) -> bool:
    """Consul counts bytes; what is no UTF-8 fits nowhere."""
    try:
        return KEY.fullmatch(key) is not None and len(text.encode()) <= LONGEST_VALUE
    except UnicodeEncodeError:
        return False


def _split(pairs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """-> our words, the owner's. Raises ValueError."""
    words: dict[str, Any] = {}
    pieces: dict[int, str] = {}
    theirs: dict[str, Any] = {}
    for key, text in pairs.items():
        if not key.startswith(OURS):
            theirs[key] = text
        elif key.startswith(OURS + "-") and key[len(OURS) + 1 :].isdecimal():
            pieces[int(key[len(OURS) + 1 :])] = text
        elif key not in (WRITER, PRINCIPAL):
            words[key.removeprefix(OURS)] = json.loads(text)
    if pieces:
        words |= json.loads("".join(pieces[n] for n in sorted(pieces)))
    return words, theirs


def _entry(raw: Any) -> Entry:
    """Raises InvalidInstance, and what reading a dict raises that is none."""
    read = read_entry(raw)
    words, theirs = _split(read.meta)
    document = replace(read, state="passing", enabled=True, meta=theirs).as_meta()
    instance = Instance.from_meta(read.id, document | words, read.address.host)
    writer = read.meta.get(WRITER, "")
    principal = read.meta.get(PRINCIPAL, "" if writer else "consul")
    alive, mark = True, None
    for check in raw.get("Checks") or ():
        if check["Status"] != "critical":
            continue
        name, output = check["CheckID"], str(check.get("Output") or "")
        if name in (f"_service_maintenance:{read.id}", "_node_maintenance"):
            reason = check.get("Notes") or ""
            mark = Mark(read.id, False, "" if reason.startswith(NO_REASON) else reason)
        elif name != check_id(read.id) or principal:
            instance = replace(instance, state="critical")
        elif output.startswith(EXPIRED):
            alive = False
        elif instance.state == "passing" and output not in ("", *get_args(State)):  # its own until it is passed again
            instance = replace(instance, state="critical")
    return Entry(Put(instance, principal), writer, alive, mark, raw["Service"].get("ModifyIndex", 0))
