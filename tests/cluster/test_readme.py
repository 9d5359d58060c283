"""The lines of the README, run as they stand there; only ports and file names are this test's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..conftest import ROOT
from .conftest import Cluster
from .processes import FAIRWAY, Running

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

README = (ROOT / "README.md").read_text("utf-8")


def block(first_line: str) -> list[str]:
    """The commands of the fenced block that begins with `first_line`, without their remarks."""
    found = re.search(rf"```\w*\n({re.escape(first_line)}.*?)```", README, re.DOTALL)
    assert found, f"the README has no block that begins with {first_line!r}"
    return [line.split("  #")[0].strip() for line in found[1].splitlines() if line.strip()]


LINES = block("scripts/launch --workers 4")


def run(line: str, cluster: Cluster, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = line.replace(":12480", f":{cluster.proxy}").replace("localhost:12480", f"localhost:{cluster.proxy}")
    env = {**os.environ, **environment, "FAIRWAY_URL": cluster.url}
    return subprocess.run(
        ["bash", "-c", line], cwd=cluster.photos.parent, env=env, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(autouse=True)
def daisy(cluster: Cluster) -> None:
    """The lines upload ./daisy.jpg."""
    shutil.copy(cluster.photos / "daisy.jpg", cluster.photos.parent / "daisy.jpg")


def test_the_six_lines_are_there() -> None:
    assert len(LINES) == 6


@pytest.mark.parametrize("line", [line for line in LINES if "curl" in line])
def test_curl_lines(line: str, cluster: Cluster, shell_environment: dict[str, str]) -> None:
    done = run(line, cluster, shell_environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == cluster.expected["daisy.jpg"]


def test_classify_a_folder(cluster: Cluster, shell_environment: dict[str, str]) -> None:
    (line,) = [line for line in LINES if line.startswith("fairway classify photos/")]
    done = run(line, cluster, shell_environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
    best = cluster.expected["daisy.jpg"][0]
    assert f"photos/daisy.jpg: {best[0]} {best[1]:.3f}" in done.stdout


def test_classify_names_from_standard_input(cluster: Cluster, shell_environment: dict[str, str]) -> None:
    (line,) = [line for line in LINES if line.startswith("ls ")]
    bad = cluster.photos / "bad.jpg"
    bad.write_text("not a photo")
    try:
        done = run(line + " --json", cluster, shell_environment)
    finally:
        bad.unlink()
    assert done.returncode == 1
    answers = {Path(row["file"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert "not an image" in answers.pop("bad.jpg")["error"]
    assert {name: row["predictions"] for name, row in answers.items()} == cluster.expected


def test_the_articles_two_curls(cluster: Cluster, shell_environment: dict[str, str]) -> None:
    (article,) = [line for line in block("fairway proxy --mode address") if line.startswith("curl")]
    command = [*FAIRWAY, "proxy", "--mode=address", "--address-format=port", "--port=0"]
    with Running([*command, f"--registry=127.0.0.1:{cluster.registry}"]) as proxy:
        port = int(proxy.line(r"listening on http://127\.0\.0\.1:(\d+)")[1])
        done = run(article.replace(":12480", f":{port}"), cluster, shell_environment)
        assert json.loads(done.stdout) == cluster.expected["daisy.jpg"], done.stderr


def test_a_static_list_needs_no_registry(cluster: Cluster, shell_environment: dict[str, str]) -> None:
    ports = ",".join(str(worker["port"]) for worker in cluster.workers())
    with Running([*FAIRWAY, "proxy", f"--static={ports}", "--port=0", "--registry=127.0.0.1:1"]) as proxy:
        port = int(proxy.line(r"listening on http://127\.0\.0\.1:(\d+)")[1])
        for _ in range(4):
            done = run(f"curl -s -F data=@daisy.jpg http://127.0.0.1:{port}/", cluster, shell_environment)
            assert json.loads(done.stdout) == cluster.expected["daisy.jpg"]


def test_the_library_example(cluster: Cluster, shell_environment: dict[str, str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    path = cluster.photos.parent / "example.py"
    path.write_text(example.replace(":12480", f":{cluster.proxy}"))
    done = run(f"python {path}", cluster, shell_environment)
    assert done.returncode == 0, done.stderr
    assert cluster.expected["daisy.jpg"][0][0] in done.stdout
