"""`scripts/bench proxy`, run whole with tiny numbers: every table is there, and every answer on the way was right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT
from ..registry.netns import netns_missing

LINES = {  # of each section: its tables, and of each the contenders beside ours, when they are installed
    "Forwarding": ("fairway, --no-splice", "nginx", "nginx, tuned", "haproxy", "haproxy, splice", "aiohttp"),
    "Handing out addresses": ("fairway", "aiohttp", "nginx `return 200`"),
    "What is added": ("fairway", "nginx, tuned", "haproxy", "haproxy, splice", "direct, no proxy"),
    "The most memory": ("fairway", "nginx", "nginx, tuned", "haproxy", "aiohttp"),
    "Three times as much": ("fairway", "nginx, tuned", "haproxy"),
    "Client to worker": ("10 KB, forwarded", "10 KB, by address", "100 KB, forwarded", "100 KB, by address"),
}
FIGURE = re.compile(r"(\*\*)?-?[\d,]+(\.\d+)?(\*\*)?( \([≥≤] [\d.]+\))?")


def bench(tmp_path: Path, tools: tuple[str, ...], *options: str) -> subprocess.CompletedProcess[str]:
    """No npm here: the test shall not wait for a package."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in tools:
        if where := shutil.which(name):
            (folder / name).symlink_to(where)
    environment = {**os.environ, "PATH": str(folder), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("NODE_PATH", None)
    command = [sys.executable, str(ROOT / "scripts/bench_proxy.py"), "--quick", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=170, check=False)


def figures(part: str) -> dict[str, list[str]]:
    """Of all the tables in a section: the cells of each line."""
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ") and line[2] != "|"]
    return {name: cells for name, *cells in rows}


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here (Debian: apt install gcc)")
def test_every_table_comes_out(tmp_path: Path) -> None:
    sections = ["forward", "address", "latency", "memory", "overload"]
    if netns_missing() is None and shutil.which("tc"):
        sections.append("scale")
    tools = ("cc", "as", "ld", "nginx", "haproxy", "ip", "tc")
    raw = tmp_path / "raw.json"
    done = bench(tmp_path, tools, "--sizes=1,100", f"--only={','.join(sections)}", f"--json={raw}")
    assert done.returncode == 0, done.stderr
    assert "Without node http-proxy, as in the article: node is not installed" in done.stdout
    _, *parts = ("\n" + done.stdout).split("\n### ")
    assert len(parts) == len(sections)
    if (ROOT / "build/compiled/.made").exists():  # by scripts/compile: then both are measured
        assert "fairway compiled" in done.stdout
        assert "| fairway, pure Python |" in parts[0]
    else:
        assert "fairway interpreted" in done.stdout
    missing = {name for name in ("nginx", "haproxy") if f"Without {name}: {name} is not installed" in done.stdout}
    for part, (title, names) in zip(parts, LINES.items(), strict=False):
        assert part.startswith(title)
        found = figures(part)
        assert {name for name in names if not name.startswith(tuple(missing or "/"))} <= found.keys()
        for name, cells in found.items():
            assert all(FIGURE.fullmatch(cell) for cell in cells if cell.strip() not in ("", "-")), (name, cells)
    assert json.loads(raw.read_text())["cells"].keys() == set(sections)


def test_without_a_compiler_the_load_is_in_python(tmp_path: Path) -> None:
    done = bench(tmp_path, (), "--sizes=1,20", "--only=forward,address", "--against=aiohttp,direct")
    assert done.returncode == 0, done.stderr
    assert "no C compiler" in done.stderr
    forward, address = done.stdout.split("\n### ")
    assert {"aiohttp", "direct, no proxy"} <= figures(forward).keys()
    assert {"fairway", "aiohttp"} <= figures(address).keys()


def test_what_is_not_there_to_be_measured_is_refused(tmp_path: Path) -> None:
    done = bench(tmp_path, (), "--only=forward,colours")
    assert done.returncode == 2
    assert "--only colours: expected some of forward,address" in done.stderr
