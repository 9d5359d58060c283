"""`scripts/bench balancers`, run whole with tiny numbers; and what it says of a hundred workers is what it should."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT


@pytest.fixture(scope="module")
def cluster() -> Any:
    """scripts/bench_balancers_cluster.py; scripts are no package."""
    spec = importlib.util.spec_from_file_location(
        "bench_balancers_cluster", ROOT / "scripts/bench_balancers_cluster.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_table_comes_out_and_twice_the_same() -> None:
    command = [sys.executable, str(ROOT / "scripts/bench_balancers.py"), "--quick", "--requests", "2000", "--plots", ""]
    runs = [subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    head, *parts = runs[0].split("\n### ")
    assert "seed 1" in head
    lines = [[line for line in part.splitlines() if line.startswith("|")][2:] for part in parts]
    assert [len(each) for each in lines] == [7, 4, 6, 4]
    for line in chain(*lines[:3]):
        for cell in line.strip("|").split("|")[1:]:
            assert re.fullmatch(r" [\d,]+ · [\d,]+ · [\d,]+; \d\.\d\d ", cell), line


def test_without_matplotlib_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench_balancers.py"), "--quick", "--plots", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin"},
    )
    assert "matplotlib is not installed" in done.stderr
    assert not list(tmp_path.glob("*.svg"))


def test_looking_is_better_than_chance_and_knowing_is_better_than_looking(cluster: Any) -> None:
    p99 = {
        balance: cluster.simulated(cluster.Case(balance, 0.85, workers=100, requests=30_000)).p99
        for balance in ("one queue", "least-loaded", "round-robin", "random")
    }
    assert list(p99) == sorted(p99, key=lambda balance: p99[balance])


def test_slow_workers_drown_in_turns_and_not_by_load_or_weight(cluster: Any) -> None:
    def run(balance: str, kind: str) -> Any:
        return cluster.simulated(cluster.Case(balance, 0.7, kind, workers=100, requests=60_000))

    assert run("round-robin", "mixed").p99 > 3 * run("round-robin", "weighted").p99
    assert run("round-robin", "mixed").p99 > 3 * run("least-loaded", "mixed").p99
    assert run("peak-ewma", "mixed").p99 < run("least-loaded", "mixed").p99


def test_a_black_hole_attracts_nobody(cluster: Any) -> None:
    for balance in ("least-loaded", "peak-ewma"):
        assert cluster.simulated(cluster.Case(balance, 0.7, "failing", workers=100, requests=30_000)).hole < 0.5
    refusing = cluster.simulated(cluster.Case("round-robin", 0.7, "refusing", workers=100, requests=30_000))
    assert refusing.hole < 0.3
    assert refusing.failed == 0
