"""The commands of docs/tutorial.md, in their order; only ports, and where the weights lie, are this test's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..conftest import ROOT
from .processes import Running

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

TEXT = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
CLASSES, FIRST, MORE = ("daisy", "roses", "tulips"), 14, 6
RETRAIN, LAUNCH, LOAD = "fairway retrain", "fairway launch", "fairway bench load"


class Reader:
    """Somebody who types what stands there, in a folder of their own."""

    def __init__(self, folder: Path, weights: Path, stack: ExitStack) -> None:
        self.folder, self._weights, self._stack = folder, weights, stack
        self._proxy = ""
        self.said: dict[str, list[str]] = {}
        self.behind: dict[str, Running] = {}

    def types(self, line: str) -> None:
        environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        if self._proxy:  # the commands' default is the port that the tutorial's cluster has
            environment["FAIRWAY_URL"] = f"http://127.0.0.1:{self._proxy}"
        if line.startswith(RETRAIN):
            environment["FAIRWAY_WEIGHTS"] = str(self._weights)
        if line.startswith(LAUNCH):
            line = line.replace(LAUNCH, f"{LAUNCH} --proxy-port=0 --registry-port=0")
        command = line.replace(":12480", f":{self._proxy}").replace("curl ", "curl -sS --fail-with-body ")
        if command.endswith("&"):
            running = Running(["bash", "-c", f"cd {self.folder} && exec {command[:-1]}"], env=environment)
            self.behind[line] = self._stack.enter_context(running)
            if line.startswith(LAUNCH):
                running.line(r"^Ready\.", 240)
                self._proxy = running.line(r"^ +proxy +http://127\.0\.0\.1:(\d+)/")[1]
            return
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env={**os.environ, **environment}, capture_output=True, text=True,
            timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        self.said.setdefault(line, []).append(done.stdout)

    def versions(self) -> list[str]:
        """Those that are served, as the proxy's next worker tells."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._proxy}/v1/models/flowers", timeout=10) as answer:
            told = json.load(answer)["model_version_status"]
        return [each["version"] for each in told if each["state"] == "AVAILABLE"]


@pytest.fixture
def reader(shared_data: Path, tmp_path: Path) -> Iterator[Reader]:
    for group in CLASSES:
        for name in ("flower_photos", "more_photos"):
            (tmp_path / name / group).mkdir(parents=True)
        photos = sorted((shared_data / "flowers" / group).glob("*.jpg"))
        for number, photo in enumerate(photos[: FIRST + MORE]):
            place = "flower_photos" if number < FIRST else "more_photos"
            shutil.copy(photo, tmp_path / place / group / photo.name)
    shutil.copy(next((tmp_path / "flower_photos/daisy").iterdir()), tmp_path / "daisy.jpg")
    weights = shared_data / "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"
    with ExitStack() as stack:
        yield Reader(tmp_path, weights, stack)


@pytest.mark.timeout(900)
def test_from_a_folder_of_photos_to_version_two(reader: Reader) -> None:
    for line in COMMANDS:
        reader.types(line)
    models = reader.folder / "models" / "flowers"
    assert sorted(path.name for path in models.glob("[0-9]*")) == ["1", "2"]
    assert {path.name for path in (models / "1").iterdir()} >= {"saved_model.pb", "model_card.json", "training.png"}
    both = [json.loads(said[0]) for line, said in reader.said.items() if "curl -F data=@daisy.jpg" in line]
    assert len(both) == 2
    assert both[0] == both[1]
    assert (reader.folder / "examples.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (reader.folder / "load.svg").read_text()
    by_command = {
        command: running for line, running in reader.behind.items() for command in (LAUNCH, LOAD) if command in line
    }
    changed: set[str] = set()
    while len(changed) < 4:  # each worker says so once version 2 serves, and nothing of version 1 is under way
        changed.add(by_command[LAUNCH].line(r"\[worker (\d)\].* flowers/1 is unloaded", 240)[1])
    assert reader.versions() == ["2"]
    load = by_command[LOAD]
    os.kill(load.pid, signal.SIGINT)
    assert load.ended(60) == 130, load.said
    (level,) = json.loads((reader.folder / "load.json").read_text())["levels"]
    assert level["answered"] > 0
    assert set(level["errors"]) <= {"wrong answer"}  # two versions may disagree; every request was answered
