"""Clients of others, each in an environment of its own: their protobuf files and ours would not share a process."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ..conftest import ROOT

# Its extra `all` would add performance tools and what graphics cards need.
TRITON = "tritonclient[http,grpc]==2.73.0"
BUILD_SECONDS = 170


@cache
def triton_python() -> Path:
    """An interpreter that has `tritonclient.http` and `.grpc`; made once, kept in build/. Skips where that cannot be."""
    folder = ROOT / "build" / f"tritonclient-{sys.version_info.major}.{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "done"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else's tests may be making it just now
        if not (done.is_file() and done.read_text() == TRITON):
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "venv", folder)
            _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", TRITON)
            done.write_text(TRITON)
    return python


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["it said nothing"]
        pytest.skip(f"{TRITON} cannot be installed: {said[-1]}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{TRITON} cannot be installed: not in {BUILD_SECONDS} s")
