"""Usage: scripts/bench balancers [--requests 300000] [--seed 1] [--plots docs] [--quick]

Who gets the next, simulated: 1,000 workers, images of 10 KB to 10 MB, the real pools and balancers under a clock that is a
number. Tables in Markdown on standard output, plots (SVG) into a folder, unless that is empty. The same seed, the same
figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench_balancers_cluster import ONE_QUEUE, Case, Result, simulated
from tqdm import tqdm

LOADS = (0.5, 0.7, 0.85, 0.95)
OURS = ("round-robin", "least-loaded", "peak-ewma", "hash:X-Client")
QUICK_WORKERS, QUICK_REQUESTS = 50, 5_000

Found = dict[Case, Result]
Part = tuple[str, list[tuple[str, Case]]]  # a heading; lines, each a name and a case for any load


def parts(requests: int, workers: int, seed: int) -> list[Part]:
    base = Case("", 0.0, requests=requests, workers=workers, seed=seed)

    def lines(names: Iterable[str], kind: str = "equal", proxies: int = 8) -> list[tuple[str, Case]]:
        return [(name, replace(base, balance=name, kind=kind, proxies=proxies)) for name in names]

    untold = ("least-loaded, workers say nothing", replace(base, balance="least-loaded", told=False))
    equal = lines((ONE_QUEUE, "random", *OURS))
    mixed = [
        *lines(OURS[:3], kind="mixed"),
        *((f"{name}, weights told", case) for name, case in lines(OURS[:3], kind="weighted")),
    ]
    return [
        ("Equal workers, eight proxies", [*equal[:4], untold, *equal[4:]]),
        ("Equal workers, one proxy", lines(OURS, proxies=1)),
        ("A fifth of the workers half as fast, eight proxies", mixed),
    ]


def holes(requests: int, workers: int, seed: int) -> list[tuple[str, Case, Case]]:
    """A name, one worker that answers 500 within a millisecond, one that refuses connections."""
    base = Case("", 0.7, requests=requests, workers=workers, seed=seed)
    cases = [(name, replace(base, balance=name)) for name in OURS]
    return [(name, replace(case, kind="failing"), replace(case, kind="refusing")) for name, case in cases]


def table(lines: Sequence[tuple[str, Case]], found: Found) -> str:
    head = "| milliseconds: p50 · p99 · p99.9; imbalance |" + "".join(f" {load:.0%} |" for load in LOADS)
    rows = [head, "|---|" + "--:|" * len(LOADS)]
    for name, case in lines:
        cells = (cell(found[replace(case, load=load)]) for load in LOADS)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(result: Result) -> str:
    times = " · ".join(f"{1000 * seconds:,.0f}" for seconds in (result.p50, result.p99, result.p999))
    return f"{times}; {result.imbalance:.2f}"


def hole_table(lines: Sequence[tuple[str, Case, Case]], found: Found) -> str:
    rows = ["| tries over a fair share | answers 500 at once | refuses connections |", "|---|--:|--:|"]
    rows += [
        f"| {name} | {found[failing].hole:.2f} | {found[refusing].hole:.2f} |" for name, failing, refusing in lines
    ]
    return "\n".join(rows)


def all_simulated(cases: Sequence[Case]) -> Found:
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        results = processes.map(simulated, cases)
        return dict(zip(cases, tqdm(results, total=len(cases), unit="case", file=sys.stderr), strict=True))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench balancers", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--requests", type=int, default=300_000, help="for each case; a quarter of them warms it up")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plots", default="docs", metavar="FOLDER", help="for the plots; empty: none")
    parser.add_argument("--quick", action="store_true", help="fifty workers and few requests: does it run?")
    given = parser.parse_args(arguments)
    requests, workers = (QUICK_REQUESTS, QUICK_WORKERS) if given.quick else (given.requests, 1000)
    if requests < 1000:
        parser.error("--requests: at least 1000")
    tables, in_holes = parts(requests, workers, given.seed), holes(requests, workers, given.seed)
    cases = [replace(case, load=load) for _, lines in tables for _, case in lines for load in LOADS]
    cases += [case for _, *both in in_holes for case in both]
    found = all_simulated(cases)
    print(f"{workers:,} workers, {requests:,} requests a case, seed {given.seed}.\n")
    for heading, lines in tables:
        print(f"### {heading}\n\n{table(lines, found)}\n")
    print(f"### One worker in {workers:,} is a black hole, at 70 %\n\n{hole_table(in_holes, found)}")
    if given.plots:
        from bench_balancers_plots import drawn

        written = drawn(tables, found, LOADS, Path(given.plots))
        print("\n".join(f"written: {path}" for path in written) or NO_PLOTS, file=sys.stderr)
    return 0


NO_PLOTS = "no plots: matplotlib is not installed (.venv/bin/pip install matplotlib)"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
