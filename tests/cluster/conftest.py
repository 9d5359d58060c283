"""One cluster for the whole session: three workers with the bundled model, started as a newcomer starts it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT, SHARED, picture
from .fleet import Fleet
from .node import installed
from .processes import Running

WORKERS = 3


@dataclass
class Cluster:
    running: Running
    proxy: int
    registry: int
    photos: Path
    expected: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy}"

    def workers(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/-/workers", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["services"].get("classify", [])
        return found


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten photos: real ones where they are to be had. The first is called daisy.jpg."""
    folder = tmp_path_factory.mktemp("album") / "photos"
    folder.mkdir()
    real = sorted((SHARED / "flowers").glob("*/*.jpg"))[::50][:10] if SHARED.is_dir() else []
    for i in range(10):
        data = real[i].read_bytes() if i < len(real) else picture(i)
        (folder / ("daisy.jpg" if i == 0 else f"photo{i}.jpg")).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def cluster(photos: Path) -> Iterator[Cluster]:
    command = [str(ROOT / "scripts/launch"), f"--workers={WORKERS}", "--registry-port=0", "--proxy-port=0"]
    with Running(command) as running:
        running.line(r"^Ready\.", 120)
        registry = int(running.line(r"^ +registry +127\.0\.0\.1:(\d+)")[1])
        proxy = int(running.line(r"^ +proxy +http://127\.0\.0\.1:(\d+)/")[1])
        found = Cluster(running, proxy, registry, photos)
        for photo in sorted(photos.iterdir()):
            request = urllib.request.Request(f"{found.url}/", photo.read_bytes(), method="POST")
            with urllib.request.urlopen(request, timeout=30) as answer:
                found.expected[photo.name] = json.load(answer)
        yield found


@pytest.fixture
def shell_environment() -> dict[str, str]:
    """PATH as after `source .venv/bin/activate`."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def hub() -> Iterator[int]:
    """The port of a registry that the tests share; each has a service of its own."""
    with Fleet() as started:
        yield started.registry()[1]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet() as started:
        yield started
