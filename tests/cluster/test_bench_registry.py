"""`scripts/bench registry`, run whole with tiny numbers: every table is there, and nothing went wrong on the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..conftest import ROOT

COLUMNS = {  # of each table: headings, and figures in a line of ours
    "Instances that live": 6,
    "Registering, from 4 connections": 4,
    "Look-ups, 16 connections": 4,
    "How soon a change is known, 5 changes": 4,
    "What a change costs beside others": 3,
}


def test_every_table_comes_out(tmp_path: Path) -> None:
    """No npm here: the test shall not wait for a package."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("etcd", "java", "curl"):
        if where := shutil.which(name):
            (tools / name).symlink_to(where)
    environment = {**os.environ, "PATH": str(tools), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("NODE_PATH", None)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/bench_registry.py", "--quick"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    head, *parts = done.stdout.split("\n### ")
    assert "Without seaport (npm): not installed: node, npm" in head
    assert [part.splitlines()[0] for part in parts] == list(COLUMNS)
    expected = {"fairway", "etcd", "ZooKeeper"} - {
        name for name in ("etcd", "ZooKeeper") if f"Without {name}: not installed" in head
    }
    for part, columns in zip(parts, COLUMNS.values(), strict=True):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[2:] if line]
        figures = {name: said for name, *said in lines[2:] if "seaport" not in name and "goal" not in name}
        assert {name.partition(":")[0] for name in figures} == expected
        for name, said in figures.items():
            assert len(said) == columns, name
            assert all(re.fullmatch(r"-?[\d,]+(\.\d)?", figure) for figure in said), (name, said)


def test_more_instances_than_files_are_refused() -> None:
    command = [sys.executable, str(ROOT / "scripts/bench_registry.py"), "--instances", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "open files" in done.stderr
