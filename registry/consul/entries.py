"""The catalog in the shapes of Consul's reads: nodes, services, checks, and the entries made of them. Pure.

Shapes: Consul's /v1/agent/services, /v1/catalog/service/:name, /v1/health/service/:name and their kin. A node is a host.
Who registered by a connection (seaport's rows) has one check, "connection": its status is the instance's state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_args
from uuid import NAMESPACE_DNS, uuid5

from ..check import Check, Status
from ..errors import InvalidInstance
from ..health import WORST, Result
from ..instance import Address, Instance, State
from .durations import format_duration
from .registration import read_registration, shown_meta

DATACENTER = "fairway"
STATUS: Mapping[State, Status] = {
    "starting": "critical",
    "passing": "passing",
    "draining": "critical",
    "critical": "critical",
}
MAINTENANCE = "_service_maintenance:"


@dataclass(frozen=True)
class Look:
    """An instance and what is known of it: `results` by check id, and an operator's `reason` if it is disabled."""

    instance: Instance
    results: Mapping[str, Result] = field(default_factory=dict)
    reason: str = ""

    @property
    def status(self) -> Status | str:
        """`maintenance`, or the worst of its state and its checks: critical beats warning beats passing."""
        if not self.instance.enabled:
            return "maintenance"
        said = [self.result(check).status for check in self.instance.checks]
        return max((STATUS[self.instance.state], *said), key=WORST.__getitem__)

    @property
    def passing(self) -> bool:
        return self.status == "passing"

    def has(self, tags: Iterable[str]) -> bool:
        """All of them, in any case."""
        own = {tag.lower() for tag in tags_of(self.instance)}
        return all(tag.lower() in own for tag in tags)

    def result(self, check: Check) -> Result:
        """Before anything came of it, what its definition says."""
        return self.results.get(check.id) or Result(check.status)


def tags_of(instance: Instance) -> list[str]:
    """Its tags; of one that has none, its version: the old way to tell versions apart."""
    return list(instance.tags) or ([instance.version] if instance.version else [])


def catalog_services(services: Mapping[str, Iterable[Instance]]) -> dict[str, list[str]]:
    """`{name: [tags]}`."""
    return {
        name: sorted({tag for instance in instances for tag in tags_of(instance)})
        for name, instances in sorted(services.items())
    }


def health_entry(look: Look, index: int) -> dict[str, Any]:
    """One of /v1/health/service. `index`: of its last change."""
    return {
        "Node": node(look.instance.address.host, index),
        "Service": service(look.instance) | _indexes(index),
        "Checks": checks(look, index),
    }


def catalog_entry(instance: Instance, index: int) -> dict[str, Any]:
    """One of /v1/catalog/service: flat."""
    said = service(instance)
    of_node = node(instance.address.host, index)
    return {
        **{key: of_node[key] for key in ("ID", "Node", "Address", "Datacenter", "TaggedAddresses")},
        "NodeMeta": {},
        "ServiceKind": "",
        "ServiceID": said["ID"],
        "ServiceName": said["Service"],
        "ServiceTags": said["Tags"],
        "ServiceAddress": said["Address"],
        "ServiceTaggedAddresses": {},
        "ServiceWeights": said["Weights"],
        "ServiceMeta": said["Meta"],
        "ServicePort": said["Port"],
        "ServiceEnableTagOverride": False,
        **_indexes(index),
    }


def agent_entry(look: Look, index: int) -> dict[str, Any]:
    """One of /v1/agent/health/service."""
    return {"AggregatedStatus": look.status, "Service": service(look.instance), "Checks": checks(look, index)}


def node(host: str, index: int) -> dict[str, Any]:
    return {
        "ID": _node_id(host),
        "Node": host,
        "Address": host,
        "Datacenter": DATACENTER,
        "TaggedAddresses": {"lan": host, "wan": host},
        "Meta": {},
        **_indexes(index),
    }


def service(instance: Instance) -> dict[str, Any]:
    return {
        "ID": instance.id,
        "Service": instance.service,
        "Tags": tags_of(instance),
        "Address": instance.address.host,
        "TaggedAddresses": {},
        "Meta": shown_meta(instance),
        "Port": instance.address.port,
        "Weights": {"Passing": max(1, instance.weight), "Warning": 1},
        "EnableTagOverride": False,
        "Datacenter": DATACENTER,
    }


def checks(look: Look, index: int) -> list[dict[str, Any]]:
    """With Consul's own for what an operator disabled."""
    instance = look.instance
    found = []
    for check in instance.checks:
        result = look.result(check)
        how = {"Interval": format_duration(check.interval_seconds), "Timeout": format_duration(check.timeout_seconds)}
        found.append(
            _check(instance, check.id, check.name or check.id, result, check.notes, check.kind, index)
            | (how if check.kind != "ttl" else {"Interval": "", "Timeout": ""})
        )
    if not instance.checks:
        output = f"{instance.state}, not heard of for a while" if instance.suspect else instance.state
        result = Result(STATUS[instance.state], output)
        found.append(_check(instance, f"service:{instance.id}", "connection", result, "", "connection", index))
    if not instance.enabled:
        reason = look.reason or "Maintenance mode is enabled for this service, but no reason was provided."
        result = Result("critical")
        id = f"{MAINTENANCE}{instance.id}"
        found.append(_check(instance, id, "Service Maintenance Mode", result, reason, "maintenance", index))
    return found


def read_entry(raw: object) -> Instance:
    """One of /v1/health/service -> what it says of the instance, without its checks. Raises InvalidInstance.

    Where Service.Address is empty, Node.Address counts.
    """
    try:
        of_node, said, listed = raw["Node"], raw["Service"], raw["Checks"] or []  # type: ignore[index]
        body = {"Name": said["Service"], "ID": said["ID"], "Port": said["Port"], "Tags": said.get("Tags") or []}
        body |= {"Meta": said.get("Meta") or {}, "Address": said.get("Address") or of_node["Address"]}
        weight = (said.get("Weights") or {}).get("Passing", 1)
        statuses = [(str(check["CheckID"]), check["Status"]) for check in listed]
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidInstance(f"{raw!r:.80} is not an entry of /v1/health/service") from error
    instance = read_registration(body | {"Weights": {"Passing": weight}}, "")
    enabled = not any(id.startswith((MAINTENANCE, "_node_maintenance")) for id, _ in statuses)
    ill = any(status not in ("passing", "warning") for id, status in statuses if not id.startswith(MAINTENANCE))
    return Instance(
        instance.id,
        instance.service,
        Address(instance.address.host, instance.address.port),
        instance.version,
        "critical" if ill else "passing",
        instance.models,
        instance.meta,
        () if instance.tags == (instance.version,) else instance.tags,
        instance.weight,
        enabled,
    )


def is_status(text: str) -> bool:
    return text in get_args(Status)


def _check(instance: Instance, id: str, name: str, result: Result, notes: str, kind: str, index: int) -> dict[str, Any]:
    return {
        "Node": instance.address.host,
        "CheckID": id,
        "Name": name,
        "Status": result.status,
        "Notes": notes,
        "Output": result.output,
        "ServiceID": instance.id,
        "ServiceName": instance.service,
        "ServiceTags": tags_of(instance),
        "Type": kind,
        "Definition": {},
        **_indexes(index),
    }


def _indexes(index: int) -> dict[str, int]:
    """When a row was made is not kept; when it last changed is what readers compare."""
    return {"CreateIndex": 1, "ModifyIndex": index}


@lru_cache(4096)
def _node_id(host: str) -> str:
    """Consul's are UUIDs; the same host is the same node at every registry."""
    return str(uuid5(NAMESPACE_DNS, host))
