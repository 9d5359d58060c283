"""What a worker says about itself through Consul's HTTP API, and back: JSON <-> Instance with its checks. Pure.

Shapes: Consul's PUT /v1/agent/service/register and /v1/agent/check/register. Keys are taken in any case, with or without
underscores (`ServiceID`, `service_id`, `serviceid`), as Consul takes them.

What differs, and why:
* A registration without any check gets one of ours: the registry dials the address every five seconds. Consul would call
  such a service healthy for ever; here no dead address is served for long. It yields to the first check that is given.
* Checks are TTL, HTTP and TCP. The registry runs no scripts.
* An id is unique in the whole registry, not on one agent: agents there are none.
* `Meta` named `version` and `models` (names, separated by commas) are the instance's own. What else has the name of a word
  of ours is kept aside, and shown again as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..check import Check, Status
from ..errors import InvalidInstance
from ..instance import NAME, Address, Instance
from .definitions import as_check, read_check, read_id, read_keys

MAX_CHECKS = 16  # of one instance: each costs the registry a connection now and then
DIALLED = "Fairway dials it"
ASIDE = "consul_meta"  # where metadata go that have the name of a word of ours
OURS = {
    *("role", "version", "state", "models", "tags", "weight", "enabled", "suspect", "checks"),
    *("id", "host", "port", "token", "ttl_seconds", ASIDE),
}
NOT_OURS = ("connect", "proxy", "socketpath")  # the mesh's


def read_registration(raw: object, peer_host: str) -> Instance:
    """The body of a service's registration, `peer_host` being who sent it. Raises InvalidInstance."""
    said = read_keys(raw, "a registration")
    name = said.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidInstance(f"Name is {name!r:.140}: expected letters, digits, '_', '.', '-', at most 128")
    id = read_id(said.get("id") or name, "ID")
    for key in NOT_OURS:
        if said.get(key):
            raise InvalidInstance(f"{key} is not supported: this registry is no service mesh")
    if said.get("kind", "") not in ("", "typical"):
        raise InvalidInstance(f"Kind is {said['kind']!r:.40}: only ordinary services can be registered")
    for key in ("namespace", "partition"):
        if said.get(key, "") not in ("", "default"):
            raise InvalidInstance(f"{key} is {said[key]!r:.40}: there is only one, the default")
    port, host = said.get("port", 0), said.get("address", "") or peer_host
    if not port:
        raise InvalidInstance("Port is missing: expected the number of the port that the service listens on")
    if not isinstance(host, str):
        raise InvalidInstance(f"Address is {host!r:.80}: expected an IP address, or nothing for the caller's own")
    tags = said.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInstance(f"Tags is {tags!r:.80}: expected a list of texts")
    version, models, meta = _read_meta(said.get("meta", {}))
    address = Address(host, port)
    checks = _read_checks(said, id)
    return Instance(id, name, address, version, "passing", models, meta, tuple(tags), _weight(said), checks=checks)


def read_check_registration(raw: object) -> tuple[str, Check]:
    """-> the id of the service it belongs to, and the check. Raises InvalidInstance."""
    said = read_keys(raw, "a check")
    service = said.get("serviceid")
    if not service:
        raise InvalidInstance(
            "ServiceID is missing: here every check belongs to a service, there are no checks of nodes"
        )
    name = said.get("name") or said.get("checkid") or said.get("id")
    return read_id(service, "ServiceID"), read_check(said, read_id(name, "CheckID"))


def joined(
    instance: Instance, before: Instance | None, results: Mapping[str, Status], replace_checks: bool = False
) -> Instance:
    """`instance`, just registered, with all the checks it is to have, and what is known of their results (by check id).

    What was registered `before` under the same id keeps its checks, unless `replace_checks`.
    """
    checks = (
        {} if replace_checks or before is None else {check.id: check for check in before.checks if not dials(check)}
    )
    checks |= {check.id: check for check in instance.checks}
    if len(checks) > MAX_CHECKS:
        raise InvalidInstance(f"{len(checks)} checks: at most {MAX_CHECKS} are asked for one instance")
    known = checks.values() or [dialling(instance)]
    return replace(instance, checks=tuple(replace(c, status=results.get(c.id, c.status)) for c in known))


def dialling(instance: Instance) -> Check:
    """The check that whoever has none gets."""
    return Check(
        f"service:{instance.id}",
        "tcp",
        str(instance.address),
        interval_seconds=5.0,
        timeout_seconds=2.0,
        name=DIALLED,
        deregister_after_seconds=600.0,
    )


def dials(check: Check) -> bool:
    """Whether it is one that `dialling` made."""
    return check.kind == "tcp" and check.name == DIALLED


def as_registration(instance: Instance) -> dict[str, Any]:
    """The body that registers it, at a Consul or here."""
    return {
        "ID": instance.id,
        "Name": instance.service,
        "Address": instance.address.host,
        "Port": instance.address.port,
        "Tags": list(instance.tags),
        "Meta": shown_meta(instance),
        "Weights": {"Passing": max(1, instance.weight), "Warning": 1},
        "Checks": [as_check(check) for check in instance.checks],
    }


def shown_meta(instance: Instance) -> dict[str, str]:
    """`Meta`: texts only, as Consul's. What is no text is written as JSON."""
    meta = dict(instance.meta)
    aside = meta.get(ASIDE)
    if isinstance(aside, Mapping) and all(isinstance(value, str) for value in aside.values()):
        del meta[ASIDE]
        meta |= aside
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()}
    shown |= {"version": instance.version} if instance.version else {}
    shown |= {"models": _write_names(instance.models)} if instance.models else {}
    return shown


def _read_meta(raw: object) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """-> version, models, the rest."""
    if not isinstance(raw, Mapping) or not all(isinstance(value, str) for value in raw.values()):
        raise InvalidInstance(f"Meta is {raw!r:.80}: expected an object whose values are texts")
    meta: dict[str, Any] = {key: value for key, value in raw.items() if key not in OURS}
    aside = {key: value for key, value in raw.items() if key in OURS and key not in ("version", "models")}
    return raw.get("version", ""), _read_names(raw.get("models", "")), meta | ({ASIDE: aside} if aside else {})


def _write_names(names: Sequence[str]) -> str:
    return ",".join(names) if all(_read_names(name) == (name,) for name in names) else json.dumps(list(names))


def _read_names(text: str) -> tuple[str, ...]:
    if text.startswith("["):
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _read_checks(said: Mapping[str, Any], id: str) -> tuple[Check, ...]:
    listed = said.get("checks", [])
    if not isinstance(listed, list):
        raise InvalidInstance(f"Checks is {listed!r:.80}: expected a list of checks")
    raws = [raw for raw in (said.get("check"), *listed) if raw]
    if len(raws) > MAX_CHECKS:
        raise InvalidInstance(f"{len(raws)} checks: at most {MAX_CHECKS} are asked for one instance")
    checks: dict[str, Check] = {}
    for number, raw in enumerate(raws, 1):
        keys = read_keys(raw, "a check")
        usual = f"service:{id}" if len(raws) == 1 else f"service:{id}:{number}"
        check = read_check(keys, read_id(keys.get("checkid") or keys.get("id") or usual, "CheckID"))
        if check.id in checks:
            raise InvalidInstance(f"two checks have the id {check.id!r}")
        checks[check.id] = check
    return tuple(checks.values())


def _weight(said: Mapping[str, Any]) -> int:
    weights = read_keys(said.get("weights", {}), "Weights")
    weight = weights.get("passing", 1)
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= 65535:
        raise InvalidInstance(f"Weights.Passing is {weight!r:.40}: expected a whole number from 1 to 65535")
    return weight
