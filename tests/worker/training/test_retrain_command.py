"""`fairway retrain` as a process: what it makes is served as it lies there, and Ctrl-C is no loss."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.processes import FAIRWAY, Running

from .tiny_backbone import COLOURS, colour_photos, tiny_backbone

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, and its photos and backbone."""
    folder = tmp_path_factory.mktemp("retrain")
    photos, backbone = colour_photos(folder / "photos"), tiny_backbone(folder / "tiny.keras")
    out = folder / "models" / "colours"
    return [*FAIRWAY, "retrain", "--image-dir", str(photos), "--out", str(out), "--backbone", str(backbone),
            "--learning-rate", "0.05", "--weight-decay", "0.1", "--eval-step-interval", "10"]  # fmt: skip


def test_ctrl_c_keeps_what_there_is_and_resume_ends_it(line: list[str]) -> None:
    out = Path(line[line.index("--out") + 1])
    endless = [*line, "--how-many-training-steps", "20000000"]
    with Running(endless) as process:
        process.line(r"Step 50: Cross entropy")
        process.send(signal.SIGINT)
        assert process.ended() == 130, process.said
    assert "Traceback" not in process.said
    assert "the same command with --resume goes on from there" in process.said
    assert not [path for path in out.iterdir() if not path.name.startswith(".")]  # no half version
    with Running([*endless, "--resume"]) as process:
        step = int(process.line(r"resumed at step (\d+) of 20000000")[1])
        assert step >= 50
        assert int(process.line(r"Step (\d+): Train accuracy")[1]) > step
        process.send(signal.SIGTERM)
        assert process.ended() == 130, process.said


def test_what_is_retrained_is_served(line: list[str]) -> None:
    out = Path(line[line.index("--out") + 1])
    done = subprocess.run([*line, "--epochs", "40"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "an interrupted run is begun anew" in done.stderr or "Final test accuracy" in done.stdout
    assert [line for line in done.stderr.splitlines() if not line.startswith("fairway: ")] == []  # nobody else's log
    version = next(path for path in out.iterdir() if path.name.isdigit())
    (photo,) = Path(line[line.index("--image-dir") + 1]).glob("green/green-003.png")
    with Running(
        [*FAIRWAY, "worker", "--model", str(out), "--port", "0", "--registry", "none", "--runtime", "tensorflow"]
    ) as worker:
        url = worker.line(r"(http://\S+)")[1]
        post = urllib.request.Request(url, photo.read_bytes(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(post, timeout=30) as answer:
            best = json.load(answer)[0]
    assert best[0] == "green"
    assert set(COLOURS) == set((version / "labels.txt").read_text().split())


@pytest.mark.parametrize("command", ["retrain", "train"])
def test_without_tensorflow_it_says_what_to_install(command: str, tmp_path: Path) -> None:
    photos = colour_photos(tmp_path / "photos", count=1)
    program = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['keras'] = None; "
        "from fairway.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, command, "--image-dir", str(photos), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 78, said.stderr
    assert "pip install 'fairway[training]'" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("command", ["retrain", "train"])
def test_help_needs_no_tensorflow(command: str) -> None:
    program = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['keras'] = None; "
        "from fairway.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, command, "--help"], capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert "--image-dir" in said.stdout
