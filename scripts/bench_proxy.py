"""Usage: scripts/bench proxy [--only forward,address,latency,memory,scale,overload] [--sizes 1,20,100,1000,10000]
                              [--rounds 5] [--seconds 2] [--against KEY,KEY] [--with "--OPTION ..."] [--json FILE]
                              [--plots FOLDER] [--quick]

The proxy beside nginx, haproxy, node http-proxy and aiohttp, where they are installed, in one run:

    forward   CPU of the proxy per upload of each size, 16 connections
    address   the same for handing out an address: 64 connections, kept, and a new one for each
    latency   what a proxy adds to one upload at a time, all on one core
    memory    the most it ever held, from 1 KB over one connection to 10 MB over 64
    scale     client to worker, 1 to 4 workers, each machine on a link of its own: forwarded and by address
    overload  answered while three times as much is asked as the workers can do

One proxy alone on the first core; the load and four workers that throw uploads away on the last. All take turns in every
round; figures are medians over the rounds, ratios are taken within each. CPU is utime+stime of all the proxy's processes.
Each answer is compared with the right one; in the first round, which does not count, the workers compare each upload too.
Ours is compiled when it begins (scripts/compile), and measured in pure Python beside that; --quick takes what lies there.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import bench_proxy_plots
from bench_machine import LOAD_CORE, busy_seconds, cpu_seconds, described, end_on_sigterm, free_ports, own_seconds
from bench_proxy_contenders import compiled, versions
from bench_proxy_load import Programs
from bench_proxy_sections import FORWARDING, QUICK, SECTIONS, Bench, Scope, say

__all__ = ["cpu_seconds", "free_ports"]  # the registry's bench asks here


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench proxy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--sizes", default="1,20,100,1000,10000", help="of forwarded uploads, in KB")
    parser.add_argument("--rounds", type=int, default=Scope.rounds)
    parser.add_argument("--seconds", type=float, default=Scope.seconds, help="length of one measurement")
    parser.add_argument(
        "--against", default="", help="contenders beside ours, by their keys; all: " + ", ".join(FORWARDING)
    )
    parser.add_argument("--with", dest="options", default="", help="more options for our proxy")
    parser.add_argument("--json", type=Path, help="file for every round's figures")
    parser.add_argument("--plots", type=Path, help="folder for proxy-cpu.svg and proxy-scale.svg; wants matplotlib")
    parser.add_argument("--quick", action="store_true", help="tiny numbers, which say nothing but that it works")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := [section for section in only if section not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(SECTIONS)}")
    sizes = tuple(int(float(size) * 1000) for size in given.sizes.split(","))
    form = "compiled" if compiled(anew=not given.quick) else "interpreted"
    if form == "interpreted":
        say("ours is not compiled (scripts/compile says why): measured in pure Python alone")
    scope = replace(QUICK, sizes=sizes) if given.quick else Scope(sizes, given.rounds, given.seconds)
    end_on_sigterm()
    os.sched_setaffinity(0, {LOAD_CORE})
    busy, own, began = busy_seconds(), own_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs.made(Path(folder))
        if not programs.compiled:
            say("no C compiler (apt-get install gcc): the load is in Python, and slower than what it measures")
        bench = Bench(scope, programs, [key for key in given.against.split(",") if key], shlex.split(given.options))
        for section in only:
            try:
                print(f"{SECTIONS[section](bench)}\n", flush=True)
            except RuntimeError as error:
                bench.findings.failures.append(f"{section}: {error}")
                say(f"failed: {bench.findings.failures[-1]}")
    took = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / took * 100
    print(f"{described()}; fairway {form}, {versions()}.")
    print(f"Took {took:.0f} s; other processes used {others:.0f} % of a core meanwhile.")
    for text in (*bench.findings.left_out, *bench.findings.failures):
        print(f"Without {text}.")
    if given.json:
        given.json.write_text(json.dumps({"scope": vars(scope), "cells": bench.findings.cells}, indent=1) + "\n")
    if given.plots:
        for path in bench_proxy_plots.drawn(bench.findings, scope.sizes, scope.images, scope.workers, given.plots):
            say(f"drawn: {path}")
    return 1 if bench.findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
