"""Triton's own HTTP client, in a process of its own, against a worker's port."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .colours import plain
from .foreign import triton_python
from .tensor_stage import Stage, plain_models, serving

SCRIPT = Path(__file__).with_name("triton_http.py")
CHECKS = re.findall(r"\w+", SCRIPT.read_text().partition("CHECKS = (")[2].partition(")")[0])


@pytest.fixture(scope="session")
def python() -> Path:
    return triton_python()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with serving(*plain_models(), folder=tmp_path / "models") as stage:
        yield stage


@pytest.mark.parametrize("check", CHECKS)
async def test_tritonclient(check: str, python: Path, stage: Stage, tmp_path: Path) -> None:
    files = tmp_path / "red.png", tmp_path / "blue.jpg"
    for file, colour, kind in zip(files, ("#ff0000", "#0000fe"), ("PNG", "JPEG"), strict=True):
        file.write_bytes(plain(colour, format=kind))
    process = await asyncio.create_subprocess_exec(
        python, SCRIPT, stage.address, check, *files, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
