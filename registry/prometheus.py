"""What Prometheus reads: the list of what to scrape, and the registry's own numbers. Pure.

Formats: https://prometheus.io/docs/prometheus/latest/http_sd/ and the text exposition format 0.0.4. A list that may be
incomplete is not written at all: an empty list deletes all targets, an error keeps them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from .consul.entries import tags_of
from .instance import Instance

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The hub's counts -> name, kind and meaning of the metric.
METRICS = {
    "peers": ("fairway_registry_peers", "gauge", "connections that exchange seaport rows"),
    "watchers": ("fairway_registry_watchers", "gauge", "look-ups that wait for a change"),
    "suspects": ("fairway_registry_suspects", "gauge", "instances held although nothing is heard of them"),
    "changes": ("fairway_registry_changes_total", "counter", "changes that readers were told"),
    "refused": ("fairway_registry_refused_total", "counter", "registrations that were refused"),
    "http_requests": ("fairway_registry_http_requests_total", "counter", "requests over HTTP"),
    "dns_queries": ("fairway_registry_dns_queries_total", "counter", "questions over DNS"),
    "joined": ("fairway_registry_peers_total", "counter", "connections that ever exchanged seaport rows"),
}


def targets(instances: Iterable[Instance]) -> bytes:
    """One group an instance, whatever its state: what is ill is worth looking at. Tags as Consul's discovery has them."""
    groups = [
        {
            "targets": [str(instance.address)],
            "labels": {
                "__meta_fairway_service": instance.service,
                "__meta_fairway_version": instance.version,
                "__meta_fairway_id": instance.id,
                "__meta_fairway_model": ",".join(instance.models),
                "__meta_fairway_state": instance.state if instance.enabled else "disabled",
                "__meta_fairway_tags": "".join(f",{tag}" for tag in tags_of(instance)) + ",",
            },
        }
        for instance in instances
    ]
    return json.dumps(groups).encode()


def metrics(instances: Iterable[Instance], index: int, counters: Mapping[str, int]) -> bytes:
    """The text of /metrics."""
    lines: list[str] = []
    states = Counter((i.service, i.state if i.enabled else "disabled") for i in instances)
    family(lines, "fairway_registry_instances", "gauge", "registered instances")
    lines += [
        f'fairway_registry_instances{{service="{label(service)}",state="{state}"}} {number}'
        for (service, state), number in sorted(states.items())
    ]
    family(lines, "fairway_registry_index", "gauge", "the newest change's number")
    lines.append(f"fairway_registry_index {index}")
    for key, (name, kind, help) in METRICS.items():
        family(lines, name, kind, help)
        lines.append(f"{name} {counters.get(key, 0)}")
    return "\n".join([*lines, ""]).encode()


def family(lines: list[str], name: str, kind: str, help: str) -> None:
    lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
