"""What is asked of a service: the definition of a check, JSON <-> Check. Pure.

Shapes: Consul's /v1/agent/check/register, which are those of `Check` in /v1/agent/service/register as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from ..check import Check, Kind, Status
from ..errors import InvalidInstance
from ..instance import Address
from .durations import format_duration, parse_duration

LEAST_INTERVAL = 1.0  # seconds; Consul's least as well
MOST_TIMEOUT = 60.0
LEAST_DEREGISTER_AFTER = 60.0  # Consul's least as well
# `[::1]`, `10.0.0.7`, `localhost`; then perhaps a port, a path, a query. Nothing that two readers could read differently.
URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?((?:/[!-\"$-~]*)?)")
FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
FIELD_VALUE = re.compile(r"[\t\x20-\x7e]{0,1024}")
METHOD = re.compile(r"[A-Z]{1,16}")
FRAMING = frozenset(("connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"))
OTHER_KINDS = ("args", "script", "grpc", "udp", "h2ping", "dockercontainerid", "aliasservice", "aliasnode", "osservice")


def read_check(said: Mapping[str, Any], usual_id: str) -> Check:
    """`said`: what `read_keys` made of its JSON. Raises InvalidInstance."""
    id = read_id(said.get("checkid") or said.get("id") or usual_id, "CheckID")
    where = f"check {id!r:.140}"
    for key in OTHER_KINDS:
        if said.get(key):
            raise InvalidInstance(f"{where}: {key} is not supported: expected TTL, HTTP or TCP")
    kinds = [kind for kind in ("ttl", "http", "tcp") if said.get(kind)]
    if len(kinds) != 1:
        raise InvalidInstance(f"{where}: expected exactly one of TTL, HTTP and TCP, found {', '.join(kinds) or 'none'}")
    kind = cast(Kind, kinds[0])
    try:
        seconds = {key: parse_duration(said.get(key, 0)) for key in ("interval", "timeout")}
        ttl = parse_duration(said.get("ttl", 0))
        after = parse_duration(said.get("deregistercriticalserviceafter", 0))
    except InvalidInstance as error:
        raise InvalidInstance(f"{where}: {error}") from error
    if kind == "ttl" and not ttl:
        raise InvalidInstance(f"{where}: TTL must be more than 0")
    if kind != "ttl" and not seconds["interval"]:
        raise InvalidInstance(f"{where}: Interval is missing: expected e.g. 10s")
    status = said.get("status") or "critical"
    if status not in ("passing", "warning", "critical"):
        raise InvalidInstance(f"{where}: Status is {status!r:.40}: expected passing, warning or critical")
    check = Check(
        id,
        kind,
        target="" if kind == "ttl" else _text(said, kind, where),
        ttl_seconds=ttl,
        interval_seconds=max(LEAST_INTERVAL, seconds["interval"]) if kind != "ttl" else Check.interval_seconds,
        timeout_seconds=min(MOST_TIMEOUT, seconds["timeout"] or Check.timeout_seconds),
        name=_text(said, "name", where),
        notes=_text(said, "notes", where),
        status=cast(Status, status),
        method=_method(said, where),
        header=_header(said.get("header", {}), where),
        body=_text(said, "body", where),
        tls_skip_verify=said.get("tlsskipverify", False) is True,
        deregister_after_seconds=max(LEAST_DEREGISTER_AFTER, after) if after else 0.0,
        successes_before_passing=_count(said, "successbeforepassing", where),
        failures_before_critical=_count(said, "failuresbeforecritical", where),
    )
    if kind != "ttl":
        destination(check)
    return check


def as_check(check: Check) -> dict[str, Any]:
    """A check's definition, in the words of a registration. What is as usual is left out."""
    said: dict[str, Any] = {"CheckID": check.id, "Name": check.name or check.id, "Status": check.status}
    if check.kind == "ttl":
        said["TTL"] = format_duration(check.ttl_seconds)
    else:
        said |= {
            check.kind.upper(): check.target,
            "Interval": format_duration(check.interval_seconds),
            "Timeout": format_duration(check.timeout_seconds),
        }
    if check.kind == "http":
        said |= {"Method": check.method} if check.method != "GET" else {}
        said |= {"Header": {name: list(values) for name, values in check.header.items()}} if check.header else {}
        said |= {"Body": check.body} if check.body else {}
        said |= {"TLSSkipVerify": True} if check.tls_skip_verify else {}
    said |= {"Notes": check.notes} if check.notes else {}
    for key, count in (
        ("SuccessBeforePassing", check.successes_before_passing),
        ("FailuresBeforeCritical", check.failures_before_critical),
    ):
        said |= {key: count} if count else {}
    if check.deregister_after_seconds:
        said["DeregisterCriticalServiceAfter"] = format_duration(check.deregister_after_seconds)
    return said


def destination(check: Check) -> Address:
    """Where asking it connects to; not to be asked of a TTL check. Raises InvalidInstance."""
    if check.kind == "tcp":
        return Address.parse(check.target, "127.0.0.1")
    found = URL.fullmatch(check.target)
    if not found or len(check.target) > 2048:
        raise InvalidInstance(
            f"{check.target!r:.140} is no URL to ask: expected http:// or https://, ADDRESS:PORT/PATH"
        )
    return Address(found[2].strip("[]"), int(found[3] or (443 if found[1] == "https" else 80)))


def path_of(check: Check) -> str:
    """Path and query of an HTTP check, as they go over the wire."""
    found = URL.fullmatch(check.target)
    return (found[4] if found else "") or "/"


def read_keys(raw: object, what: str) -> dict[str, Any]:
    """Its keys in lower case, without underscores; null is as good as not there."""
    if not isinstance(raw, Mapping):
        raise InvalidInstance(f"{raw!r:.80} is not {what}: expected a JSON object")
    return {key.lower().replace("_", ""): value for key, value in raw.items() if value is not None}


def read_id(value: object, key: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 128 or not value.isprintable():
        raise InvalidInstance(f"{key} is {value!r:.140}: expected a text of 1 to 128 printable characters")
    return value


def _text(said: Mapping[str, Any], key: str, where: str) -> str:
    value = said.get(key, "")
    if not isinstance(value, str):
        raise InvalidInstance(f"{where}: {key} is {value!r:.80}: expected a text")
    return value


def _count(said: Mapping[str, Any], key: str, where: str) -> int:
    value = said.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
        raise InvalidInstance(f"{where}: {key} is {value!r:.80}: expected a whole number from 0 to 1000")
    return value


def _method(said: Mapping[str, Any], where: str) -> str:
    method = (_text(said, "method", where) or "GET").upper()
    if not METHOD.fullmatch(method):
        raise InvalidInstance(f"{where}: Method is {method!r:.40}: expected e.g. GET")
    return method


def _header(raw: object, where: str) -> dict[str, tuple[str, ...]]:
    """Nothing that would say where one request ends and the next begins."""
    if not isinstance(raw, Mapping):
        raise InvalidInstance(f"{where}: Header is {raw!r:.80}: expected an object of lists of texts")
    for name, values in raw.items():
        if not FIELD_NAME.fullmatch(name) or name.lower() in FRAMING - {"host"}:
            raise InvalidInstance(f"{where}: {name!r:.80} is not a header that a check may send")
        if not isinstance(values, list) or not all(isinstance(v, str) and FIELD_VALUE.fullmatch(v) for v in values):
            raise InvalidInstance(f"{where}: Header {name} is {values!r:.80}: expected a list of printable texts")
    return {name: tuple(values) for name, values in raw.items()}
