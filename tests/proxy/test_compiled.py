"""The same sources, compiled or not: which of both runs is what was meant, and is said."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path

import pytest

import fairway

from ..conftest import ROOT
from .stage import dead_address, proxy_for

COMPILED = bool(os.environ.get("FAIRWAY_TEST_COMPILED"))  # set by scripts/test
SOURCES = Path(fairway.__file__).parent


def compiled_modules() -> list[str]:
    """That setup.py names."""
    found: dict[str, tuple[str, ...]] = {}
    begin, _, rest = (ROOT / "setup.py").read_text().partition("COMPILED = (")
    assert begin
    exec("COMPILED = (" + rest.partition("\n)")[0] + "\n)", found)
    return [f"fairway.{name.replace('/', '.')}" for name in found["COMPILED"]]


@pytest.mark.parametrize("name", compiled_modules())
def test_what_runs_is_what_is_meant(name: str) -> None:
    file = Path(import_module(name).__file__ or "")
    assert (file.suffix == ".so") is COMPILED
    assert file.is_relative_to(SOURCES)
    assert SOURCES.is_relative_to(ROOT / ("build/compiled" if COMPILED else "src"))


def test_nothing_compiled_lies_beside_the_sources() -> None:
    """It would be taken instead of a file that was edited since."""
    assert not [path for folder in ("proxy", "client") for path in (ROOT / folder).rglob("*.so")]


async def test_the_first_line_of_the_log_says_which(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fairway.proxy"):
        async with proxy_for(dead_address()):
            pass
    [line] = [record.getMessage() for record in caplog.records if "listening" in record.getMessage()]
    assert line.endswith("(auto, compiled)" if COMPILED else "(auto, interpreted)")
