"""`scripts/bench worker`, with tiny numbers and without peers: the tables are there, and nothing went wrong on the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

TABLES = {  # of each table: headings, and figures in our line
    "The server alone": 3,
    "The same runtime without a server": 6,
    "Start to first answer": 2,
}


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler for the load")
def test_every_table_comes_out(shared_data: Path) -> None:
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    command = [sys.executable, str(ROOT / "scripts/bench_worker.py"), "--quick", "--against", "none"]
    command += ["--only", "front,limit,start", "--photos", str(shared_data / "flowers")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = done.stdout.split("### ")[1:]
    assert len(parts) == len(TABLES)
    for part, (title, columns) in zip(parts, TABLES.items(), strict=True):
        assert part.startswith(title)
        lines = [line for line in part.splitlines() if line.startswith("| fairway")]
        assert lines
        for line in lines:
            figures = [cell.split(" (")[0].strip("* ") for cell in line.strip("|").split("|")[1:]]
            assert len(figures) == columns, line
            assert all(re.fullmatch(r"[\d,]+(\.\d+)?", figure) for figure in figures), line
