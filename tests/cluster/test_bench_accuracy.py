"""`scripts/bench accuracy`, with tiny numbers: the tables are there, and every door gives the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT


@pytest.mark.timeout(600)
def test_every_table_comes_out(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"
    flowers = tmp_path / "flowers"
    rows = ["split\tpath\tbytes"]
    for group in ("daisy", "roses", "tulips"):
        (flowers / group).mkdir(parents=True)
        for number, photo in enumerate(sorted((shared_data / "flowers" / group).glob("*.jpg"))[:12]):
            (flowers / group / photo.name).symlink_to(photo)
            rows.append(f"{'val' if number < 4 else 'train'}\t{group}/{photo.name}\t{photo.stat().st_size}")
    (flowers / "LISTING.tsv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, str(ROOT / "scripts/bench_accuracy.py"), "--quick", "--only", "retrain,manners"]
    command += ["--flowers", str(flowers), "--weights", str(weights)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    training, cluster = done.stdout.split("### ")[1:]
    assert "| fairway | 12 |" in training
    lines = [line for line in cluster.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 4
    assert len({line.split("|")[3] for line in lines}) == 1, cluster  # the same accuracy, however it was asked
