"""The load and the workers of the proxy's bench: programs in C (scripts/load), compiled when it begins.

Where there is no compiler, bench_proxy_python.py takes both parts: it knows the same options, and is the bottleneck itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_machine import LOAD_CORE, pinned

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds beyond its own until a load is given up


@dataclass(frozen=True)
class Load:
    """What one measurement said. Times are in microseconds, `through` in bytes to and from the proxy."""

    done: int
    seconds: float
    median: float
    p99: float
    refused: int
    failed: int
    wrong: int
    missed: int
    opened: int
    through: int
    problem: str

    @property
    def rate(self) -> float:
        return self.done / self.seconds


@dataclass(frozen=True)
class Programs:
    load_command: Sequence[str]
    sink_command: Sequence[str]
    compiled: bool

    @classmethod
    def made(cls, folder: Path) -> Programs:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            script = str(HERE / "bench_proxy_python.py")
            return cls((sys.executable, script, "load"), (sys.executable, script, "sink"), False)
        for name in ("load", "sink"):
            source, program = HERE / "load" / f"{name}.c", folder / name
            subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        return cls((str(folder / "load"),), (str(folder / "sink"),), True)

    def load(self, port: int, core: int = LOAD_CORE, within: Sequence[str] = (), **options: Any) -> Load:
        """One measurement. Options are those of scripts/load/load.c; `within`: words before the command."""
        words = [f for name, value in options.items() for f in (f"--{name.replace('_', '-')}", f"{value}")]
        command = [*within, *self.load_command, "--port", str(port), *words]
        seconds = float(options.get("seconds", 1))
        done = subprocess.run(
            command, capture_output=True, text=True, preexec_fn=pinned(core), timeout=seconds + PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the load ended: {done.stderr.strip()[-500:]}")
        said = Load(**json.loads(done.stdout))
        if said.wrong or not (said.done or said.refused):
            raise RuntimeError(f"{said.wrong} wrong answers, {said.failed} without one: {said.problem}")
        return said

    @contextmanager
    def sinks(
        self, count: int = 4, core: int = LOAD_CORE, within: Sequence[str] = (), **options: Any
    ) -> Iterator[list[int]]:
        """-> the ports of so many workers in one process. Options are those of scripts/load/sink.c."""
        words = [f for name, value in options.items() for f in (f"--{name.replace('_', '-')}", f"{value}")]
        command = [*within, *self.sink_command, "--ports", str(count), *words]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(core)
        )
        assert process.stdin
        assert process.stdout
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the workers did not begin")
            yield [int(word) for word in line.split()]
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(10)
