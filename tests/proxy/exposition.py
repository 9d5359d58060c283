"""A strict reader of Prometheus' text format 0.0.4, from its specification: what a scraper would refuse fails here.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        return self.samples[suffix, tuple(sorted(labels.items()))]


def read(text: bytes) -> dict[str, Family]:
    """Name -> family. Each has HELP and TYPE just before its samples, once; nothing twice; histograms are cumulative."""
    decoded = text.decode("utf-8")
    assert decoded.endswith("\n")
    found: dict[str, Family] = {}
    helped: tuple[str, str] | None = None
    name = ""
    for line in decoded[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, name, help = line.split(" ", 3)
            assert re.fullmatch(NAME, name)
            assert name not in found
            helped = name, help
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert helped is not None
            assert typed == helped[0]
            assert kind in ("counter", "gauge", "histogram")
            assert typed.endswith("_total") is (kind == "counter")
            found[typed] = Family(kind, helped[1])
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            family = found[name]
            suffix = match[1].removeprefix(name)
            assert match[1].startswith(name)
            assert suffix in SUFFIXES.get(family.kind, ("",)), line
            pairs = [
                (key, re.sub(r"\\.", lambda e: ESCAPES[e[0]], value)) for key, value in PAIR.findall(match[2] or "")
            ]
            assert len({key for key, _ in pairs}) == len(pairs)
            key = suffix, tuple(sorted(pairs))
            assert key not in family.samples, line
            family.samples[key] = float(match[3])
            assert family.kind == "gauge" or family.samples[key] >= 0
    for family in found.values():
        assert family.samples
        if family.kind == "histogram":
            _cumulative(family)
    return found


def _cumulative(family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (suffix, labels), value in family.samples.items():
        if suffix == "_bucket":
            bound = float(dict(labels)["le"])
            series.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
    for labels, buckets in series.items():
        assert buckets == sorted(buckets), "bounds rise, and what is below them never falls"
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1] == (math.inf, family.samples["_count", labels])
        assert ("_sum", labels) in family.samples
