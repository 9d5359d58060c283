"""A bench's outcome as tables for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from .config import LoadSettings
from .course import Level, Result
from .tally import NOT_SENT, PARTS, PERCENTILES, WAITED, Figures

LATENCIES = (*PERCENTILES, "max")
OWN_LIMIT = 0.9  # of a core: above it, it is this program that is measured
LATE, LATE_SECONDS = 0.1, 0.001  # of the mean latency, and at all: above both, this machine is part of what is measured
ENOUGH = {"p99.9": 1000}  # answers; of fewer it is their maximum by another name
NAMES_SHOWN = 5  # of pictures that were set aside
NOTES = {
    "closed": "clients: each waits for its answer, so a server that stalls is asked less meanwhile (closed loop)",
    "open": "/s: requests come at random, whatever is answered; latency from when each was due (open loop)",
}


def text(result: Result) -> str:
    """All that is worth reading, a paragraph each."""
    rows = [(level, level.figures()) for level in result.levels]
    parts = [_levels(rows), _parts(rows), _errors(rows), _workers(rows), *_remarks(result, rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _levels(rows: Sequence[tuple[Level, Figures]]) -> str:
    if not rows:
        return "nothing was measured"
    head = [
        "",
        "load",
        "sent",
        "answered",
        "rate/s",
        "MB/s",
        *(f"{name} ms" for name in LATENCIES),
        "errors",
        "own CPU",
    ]
    judged = any(level.stable is not None for level, _ in rows)
    head += ["stable"] if judged else []
    lines = [head]
    for level, found in rows:
        line = [level.way.name, str(level.demand), str(found.sent), str(found.answered)]
        line += [f"{found.rate:.1f}", f"{found.bytes_per_second / 1e6:.2f}"]
        line += [_milliseconds(found.latency[name]) if _known(name, found) else "-" for name in LATENCIES]
        line += [str(found.failed), f"{found.client_cpu:.0%}"]
        line += [f"{'yes' if level.stable else 'no'}, of {len(level.windows)}"] if judged else []
        lines.append(line)
    loops = dict.fromkeys(level.demand.loop for level, _ in rows)
    return "\n".join((_aligned(lines, left=2), "", *(NOTES[loop] for loop in loops)))


def _known(name: str, found: Figures) -> bool:
    return bool(found.latency) and found.answered >= ENOUGH.get(name, 0)


def _parts(rows: Sequence[tuple[Level, Figures]]) -> str:
    if not any("network" in found.parts for _, found in rows):
        return "where the time went is not known: the workers' answers have no Server-Timing" if rows else ""
    lines = [["mean (p99), ms", "load", *PARTS]]
    for level, found in rows:
        known = (found.parts.get(part) for part in PARTS)
        cells = [f"{_milliseconds(one[0])} ({_milliseconds(one[1])})" if one else "-" for one in known]
        lines.append([level.way.name, str(level.demand), *cells])
    return _aligned(lines, left=2)


def _errors(rows: Sequence[tuple[Level, Figures]]) -> str:
    lines = []
    for level, found in rows:
        for kind, count in found.errors.items():
            example = found.examples.get(kind, "")
            lines.append([level.way.name, str(level.demand), str(count), kind, example])
    if not lines:
        return ""
    kinds = {line[3] for line in lines}
    remark = ""
    if late := [kind for kind in sorted(WAITED) if kind in kinds]:
        remark += f"\n{' and '.join(late)}: in the percentiles, with the time it waited"
    if NOT_SENT in kinds:
        remark += f"\n{NOT_SENT}: not in the percentiles, which would be worse"
    return "errors\n" + _aligned(lines, left=2, texts=(3, 4)) + remark


def _workers(rows: Sequence[tuple[Level, Figures]]) -> str:
    told: dict[str, dict[str, int]] = {}
    for level, found in rows:
        counts = told.setdefault(level.way.name, {})
        for worker, count in found.workers.items():
            counts[worker] = counts.get(worker, 0) + count
    lines = [f"{name}: {_shares(counts)}" for name, counts in told.items()]
    return "answered by\n" + "\n".join(lines) if lines else ""


def _shares(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{worker} {count / total:.1%}" for worker, count in counts.items()) or "the door does not tell"


def _remarks(result: Result, rows: Sequence[tuple[Level, Figures]]) -> Iterable[str]:
    yield from warnings(result, rows)
    if cut_off := sum(found.cut_off for _, found in rows):
        yield f"cut off: {cut_off} under way at the interruption; in the percentiles, with the time they had waited"
    if result.set_aside:
        names = list(result.set_aside)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        first = result.set_aside[names[0]]
        yield f"not sent: {len(names)} pictures: {', '.join(names[:NAMES_SHOWN])}{more}; the first because {first}"


def warnings(result: Result, rows: Sequence[tuple[Level, Figures]]) -> list[str]:
    """What makes figures mean something else than they seem to."""
    found = []
    busy = [f"{level.way.name} {level.demand}" for level, one in rows if one.client_cpu > OWN_LIMIT]
    if busy:
        found.append(
            f"warning: at {', '.join(busy)} this program used more than {OWN_LIMIT:.0%} of a core: it was the limit, or "
            "near it, and the server may do better; spread the load over several of them"
        )
    late = [(level, one) for level, one in rows if _late(one)]
    if late:
        level, one = max(late, key=lambda row: row[1].parts["client"][0])
        found.append(
            f"warning: requests were sent late, at {level.way.name} {level.demand} by "
            f"{_milliseconds(one.parts['client'][0])} ms on average: this machine had no time for this program; "
            "the latencies hold that as well"
        )
    shaky = [f"{level.way.name} {level.demand}" for level in result.levels if level.stable is False]
    if shaky:
        found.append(f"warning: not stable: {', '.join(shaky)}")
    if result.ended:
        found.append(f"warning: ended before its time: {result.ended}")
    return found


def _late(found: Figures) -> bool:
    mean = found.parts.get("client", (0.0, 0.0))[0]
    return mean > LATE_SECONDS and mean > LATE * found.latency["mean"]


def document(settings: LoadSettings, result: Result) -> dict[str, Any]:
    """Everything, for JSON. Times in milliseconds, but for what is called seconds."""
    rows = [(level, level.figures()) for level in result.levels]
    return {
        "started": datetime.fromtimestamp(result.started, UTC).isoformat(timespec="seconds"),
        "client": {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "settings": {
            "url": list(settings.url),
            "via": list(settings.via),
            "images": str(settings.images),
            "service": settings.service,
            "model": settings.model,
            "seconds": settings.seconds,
            "warm_up": settings.warm_up,
            "repeat_until_stable": settings.repeat_until_stable,
            "timeout_seconds": settings.timeout_seconds,
            "max_in_flight": settings.max_in_flight,
            "sample": settings.sample,
            "seed": settings.seed,
        },
        "pictures": result.pictures,
        "set_aside": result.set_aside,
        "ended": result.ended,
        "warnings": warnings(result, rows),
        "levels": [_level(level, found) for level, found in rows],
    }


def _level(level: Level, found: Figures) -> dict[str, Any]:
    closed = level.demand.loop == "closed"
    return {
        "way": level.way.name,
        "url": level.way.url,
        "via": level.way.via,
        "loop": level.demand.loop,
        "clients": int(level.demand.size) if closed else None,
        "rate_asked": None if closed else level.demand.size,
        "windows": [
            {"seconds": _rounded(one.seconds), "rate": _rounded(one.rate), "p50": _rounded(one.median * 1000)}
            for one in level.windows
        ],
        "stable": level.stable,
        "seconds": _rounded(found.seconds),
        "sent": found.sent,
        "answered": found.answered,
        "cut_off": found.cut_off,
        "rate": _rounded(found.rate),
        "megabytes_per_second": _rounded(found.bytes_per_second / 1e6),
        "latency_ms": {name: _rounded(seconds * 1000) for name, seconds in found.latency.items()},
        "parts_ms": {
            part: {"mean": _rounded(mean * 1000), "p99": _rounded(p99 * 1000)}
            for part, (mean, p99) in found.parts.items()
        },
        "errors": found.errors,
        "examples": found.examples,
        "workers": found.workers,
        "client_cpu": _rounded(found.client_cpu),
        "histogram": found.histogram,
    }


COLUMNS = (
    "way", "url", "via", "loop", "clients", "rate_asked", "stable", "seconds", "sent", "answered", "cut_off", "failed",
    "rate", "megabytes_per_second", "mean_ms", *(f"{name}_ms" for name in LATENCIES),
    *(f"{part}_{what}_ms" for part in PARTS for what in ("mean", "p99")), "client_cpu", "errors", "workers",
)  # fmt: skip


def table(result: Result) -> str:
    """CSV (RFC 4180): a line for each level; errors and workers as `name=count`, with spaces between."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for level in result.levels:
        found = _level(level, level.figures())
        row = {**found, "failed": sum(found["errors"].values())}
        row |= {f"{name}_ms": value for name, value in found["latency_ms"].items()}
        row |= {f"{part}_{what}_ms": v for part, both in found["parts_ms"].items() for what, v in both.items()}
        row |= {name: " ".join(f"{k}={n}" for k, n in found[name].items()) for name in ("errors", "workers")}
        writer.writerow(row)
    return out.getvalue()


def _aligned(lines: Sequence[Sequence[str]], left: int, texts: Sequence[int] = ()) -> str:
    """The first `left` columns, and `texts`, begin at the left; the others, numbers, end at the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    places = set(range(left)) | set(texts)
    return "\n".join(
        "  ".join(c.ljust(w) if i in places else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip


def _milliseconds(seconds: float) -> str:
    """Three digits, more or less."""
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _rounded(value: float) -> float:
    return round(value, 4)
