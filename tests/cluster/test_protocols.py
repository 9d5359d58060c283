"""The examples of docs/protocols.md, run as they stand there against a real worker; only the ports are this test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import ROOT, SHARED
from ..worker.foreign import triton_python
from .processes import FAIRWAY, Running

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

TEXT = (ROOT / "docs" / "protocols.md").read_text("utf-8")
WORKER = TEXT[TEXT.index("## Worker:") : TEXT.index("## Registry")]
SHELL, PYTHON = (re.findall(rf"```{kind}\n(.*?)```", WORKER, re.DOTALL) for kind in ("bash", "python"))
# Each command with the remark below it, which says what it answers.
COMMANDS = [pair for block in SHELL for pair in re.findall(r"((?:^[^#\n].*\n)+)((?:^#.*\n)?)", block, re.MULTILINE)]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, Path]]:
    """-> port, gRPC port, and a folder with daisy.jpg."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared test data does not lie beside this checkout")
    folder = tmp_path_factory.mktemp("protocols")
    shutil.copy(SHARED / "flowers/daisy/21652746_cc379e0eea_m.jpg", folder / "daisy.jpg")
    with Running([*FAIRWAY, "worker", "--registry=none", "--port=0", "--grpc-port=0"]) as process:
        port = int(process.line(r"on http://127\.0\.0\.1:(\d+)")[1])
        yield port, int(process.line(r"gRPC on 127\.0\.0\.1:(\d+)")[1]), folder


def own(text: str, worker: tuple[int, int, Path]) -> str:
    return text.replace(":9001", f":{worker[0]}").replace(":9002", f":{worker[1]}")


def likened(remark: str) -> re.Pattern[str]:
    """A remark as a pattern: white space does not matter, and … stands for anything."""
    words = re.sub(r"\s+", "", remark.removeprefix("#"))
    return re.compile(".*".join(map(re.escape, words.split("…"))), re.DOTALL)


def test_there_are_examples_of_every_protocol() -> None:
    assert len(COMMANDS) == 9
    assert len(PYTHON) == 2


@pytest.mark.parametrize(("command", "remark"), COMMANDS)
def test_a_command(command: str, remark: str, worker: tuple[int, int, Path]) -> None:
    line = own(command, worker).replace("curl ", "curl -sS --fail-with-body ")
    done = subprocess.run(["bash", "-c", line], cwd=worker[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert likened(remark).match(re.sub(r"\s+", "", done.stdout)), done.stdout


@pytest.mark.parametrize("program", PYTHON)
def test_a_program(program: str, worker: tuple[int, int, Path]) -> None:
    if "tensorflow_serving" in program:
        pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    python = str(triton_python()) if "tritonclient" in program else sys.executable
    (remark,) = re.findall(r"^# (.*)", program, re.MULTILINE)
    done = subprocess.run(
        [python, "-c", own(program, worker)], cwd=worker[2], capture_output=True, text=True, timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert likened(remark).match(re.sub(r"\s+", "", done.stdout)), done.stdout
