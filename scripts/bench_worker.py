"""Usage: scripts/bench worker [--only front,limit,peers,article,digits,start,overload] [--rounds 3] [--seconds 3]
                               [--against KEY,KEY|none] [--weights FILE] [--photos FOLDER] [--json FILE] [--quick]

The worker beside mosec, LitServe, BentoML, Ray Serve and the article's Flask, with the same model and the same decoding:

    front     a model that does nothing, 20 KB multipart uploads, 32 connections: what the server itself costs
    limit     decoding and inference looped in threads without a server, and the worker on the same runtime
    peers     all servers on ONNX Runtime, float32
    article   the worker's own choice of a runtime beside Flask on TensorFlow
    digits    EMNIST's network, one client, numbers as JSON and binary, 1 and 128 a request
    start     from the command to the first answer, and memory
    overload  open loop: p99 at 70 % of the peak, and what is answered at three times the peak

All share the machine with the load, a program in C, and take turns in every round (in peers and article each is begun
anew for its turn, and is alone); figures are medians over the rounds,
ratios are taken within each. CPU is utime+stime of all the server's processes; memory their proportional share (PSS).
Photos: real ones, in turn. The first answer of each server is compared with the others'.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_machine import busy_seconds, described, end_on_sigterm, own_seconds
from bench_worker_contenders import HERE, Kit, peers_python
from bench_worker_sections import SECTIONS, Bench

DATA = HERE.parents[1] / "shared" / "data"
WEIGHTS = DATA / "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument(
        "--against", default="", help="peers beside ours, by their keys; all of the section if not said"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="MobileNetV2's, as Keras saves them")
    parser.add_argument(
        "--photos", type=Path, default=DATA / "flowers", help="folder of JPEGs, also in its sub-folders"
    )
    parser.add_argument("--json", type=Path, help="file for every round's figures")
    parser.add_argument("--quick", action="store_true", help="one short round, which says nothing but that it works")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := [section for section in only if section not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(SECTIONS)}")
    photos = sorted(path for path in given.photos.rglob("*.jp*g"))[:: 1 if given.quick else 4][:100]
    if not photos:
        parser.error(f"--photos {given.photos}: no JPEG in there; name a folder that has some")
    if not given.weights.is_file():
        parser.error(f"--weights {given.weights}: no such file; keras.applications.MobileNetV2().save_weights makes it")
    end_on_sigterm()
    busy, own, began = busy_seconds(), own_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        models.mkdir()
        say("making the models")
        subprocess.run(
            [sys.executable, str(HERE / "bench_worker_models.py"), str(models), str(given.weights)],
            check=True, env={"PYTHONPATH": str(HERE.parent / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        kit = Kit(models, peers_python(say) if given.against != "none" else None, photos, folder / "choices")
        rounds, seconds = (1, 0.5) if given.quick else (given.rounds, given.seconds)
        bench = Bench(kit, folder, rounds, seconds, [key for key in given.against.split(",") if key], say)
        for section in only:
            try:
                print(f"{SECTIONS[section](bench)}\n", flush=True)
            except RuntimeError as error:
                bench.findings.failures.append(f"{section}: {error}")
                say(f"failed: {bench.findings.failures[-1]}")
    took = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / took * 100
    print(
        f"{described()}. Took {took:.0f} s; processes that are not the bench's used {others:.0f} % of a core meanwhile."
    )
    for text in (*bench.findings.left_out, *bench.findings.failures):
        print(f"Without {text}.")
    if given.json:
        given.json.write_text(json.dumps(bench.findings.cells, indent=1) + "\n")
    return 1 if bench.findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
