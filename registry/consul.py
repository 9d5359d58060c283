"""The catalog as Consul's HTTP API shows it: the two reads people type. Pure.

Shapes: Consul's /v1/catalog/services and /v1/health/service/:name. Unknown services are `[]`, never 404, as there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .instance import Instance

STATUS = {"starting": "critical", "passing": "passing", "draining": "critical", "critical": "critical"}


def catalog_services(services: Mapping[str, Iterable[Instance]]) -> dict[str, list[str]]:
    """`{name: [tags]}`; the tags are the versions on offer."""
    return {name: sorted({i.version for i in instances if i.version}) for name, instances in sorted(services.items())}


def health_service(instances: Iterable[Instance], passing: bool) -> list[dict[str, Any]]:
    """One object an instance: Node, Service, Checks. `passing` leaves out all others."""
    return [_entry(instance) for instance in instances if not passing or STATUS[instance.state] == "passing"]


def _entry(instance: Instance) -> dict[str, Any]:
    tags = [instance.version] if instance.version else []
    meta = {key: value if isinstance(value, str) else json.dumps(value) for key, value in instance.meta.items()}
    return {
        "Node": {"Node": instance.address.host, "Address": instance.address.host, "Datacenter": "fairway", "Meta": {}},
        "Service": {
            "ID": instance.id,
            "Service": instance.service,
            "Tags": tags,
            "Address": instance.address.host,
            "Port": instance.address.port,
            "Meta": meta,
            "Weights": {"Passing": 1, "Warning": 1},
        },
        "Checks": [
            {
                "Node": instance.address.host,
                "CheckID": f"service:{instance.id}",
                "Name": "connection",
                "Status": STATUS[instance.state],
                "Notes": "",
                "Output": instance.state,
                "ServiceID": instance.id,
                "ServiceName": instance.service,
                "ServiceTags": tags,
            }
        ],
    }
