"""Usage: scripts/bench accuracy [--only retrain,post,manners] [--seconds 10] [--images N] [--flowers FOLDER,FOLDER]
                                 [--weights FILE] [--emnist FOLDER] [--json FILE] [--quick]

What training gives, and what comes out of the cluster again:

    retrain   `fairway retrain` on flowers, from nothing and with what the first run kept; accuracy on photos it never saw
    post      the EMNIST post's table, line by line: its Flask server, and our worker by every form that can carry a digit;
              examples a second of one client that waits for each answer, latency, accuracy
    manners   the retrained model behind a cluster: `fairway evaluate` by address, forwarded, redirected, and one worker
              asked itself; the answers are compared image by image

The post's own functions do the measuring (`fairway.client.evaluating`): one process, one request after the other.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from bench_machine import busy_seconds, described, end_on_sigterm, own_seconds
from bench_proxy_findings import beside, shown, table
from bench_worker_contenders import HERE, SERVERS, Kit, Server, fairway, peers_python, running

from fairway.client.evaluating.emnist import Protocol, eval_serving_performance, eval_throughput

DATA = HERE.parents[1] / "shared" / "data"
WEIGHTS = DATA / "models/keras_mobilenetv2_rebuilt/mobilenet_v2_1.0_224_imagenet_full.weights.h5"
MODEL = "emnist_dl2prod"
FAIRWAY = (sys.executable, "-m", "fairway")
BATCHES = (1, 128)
FIRST_GOAL, AGAIN_GOAL, ACCURACY_GOAL = 600.0, 60.0, 90.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """What the sections share: the options, a folder of their own, and what they found."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.found: dict[str, Any] = {}
        self.failures: list[str] = []

    @property
    def model(self) -> Path:
        return self.folder / "models" / "flowers"

    def retrained(self) -> tuple[float, dict[str, Any]]:
        """-> seconds that `fairway retrain` took, and the card it wrote."""
        command = [
            *FAIRWAY, "retrain", "--image-dir", self.given.flowers, "--out", str(self.model),
            "--backbone", "keras:MobileNetV2", "--weights", str(self.given.weights), *self.given.training,
        ]  # fmt: skip
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.monotonic() - began
        newest = max(self.model.glob("[0-9]*"), key=lambda path: int(path.name))
        return seconds, json.loads((newest / "model_card.json").read_text())


def retrain(bench: Bench) -> str:
    first, card = bench.retrained()
    again, _ = bench.retrained()
    test = card["test"]
    low, high = (100 * bound for bound in test["interval_95"])
    bench.found["retrain"] = {"first_seconds": first, "again_seconds": again, "test": test}
    line = [
        f"{test['photos']:,}", f"{beside(100 * test['top_1'], ACCURACY_GOAL)}", f"{low:.1f} to {high:.1f}",
        beside(first, FIRST_GOAL, least=False), beside(again, AGAIN_GOAL, least=False),
    ]  # fmt: skip
    columns = ("test photos", "top-1, %", "95 % interval", "first run, s", "second run, s")
    return "### `fairway retrain` on flowers: MobileNetV2, weights of ImageNet\n\n" + table(
        columns, [["fairway", *line]]
    )


def post(bench: Bench) -> str:
    given = bench.given
    python = peers_python(say)
    kit = Kit(given.emnist.parent, python, [], bench.folder / "choices")
    lines: list[list[str]] = []
    if python:
        rates: dict[int, float] = {}
        for batch in BATCHES:
            with _flask(kit, given.emnist, batch) as port:
                url = f"http://127.0.0.1:{port}/"
                rates[batch] = _throughput(bench, "Flask as in the post", url, batch)
                if batch == 1:
                    latencies, accuracy = _performance(bench, url)
        lines.append(_line("Flask as in the post", rates, latencies, accuracy))
    else:
        bench.failures.append("post: Flask could not be installed")
    labels = bench.folder / "labels.txt"
    labels.write_text("\n".join(string.digits + string.ascii_uppercase + string.ascii_lowercase) + "\n")
    pixels = (
        "--input-width",
        "28",
        "--input-height",
        "28",
        "--input-channels",
        "L",
        "--input-mean",
        "0",
        "--input-std",
        "255",
        "--labels",
        str(labels),
    )
    ours = Server("fairway", "fairway", fairway("--model", str(given.emnist), *pixels), "", peer=False)
    with running(ours, kit) as worker:
        root = f"http://127.0.0.1:{worker.port}"
        predict = f"{root}/v1/models/{MODEL}:predict"
        infer = f"{root}/v2/models/{MODEL}/infer"
        forms: dict[str, tuple[str, Protocol, bool]] = {
            "fairway, JSON rows": (predict, "json", False),
            "fairway, .npy": (predict, "npy", False),
            "fairway, Open Inference, binary": (infer, "openinference", False),
            "fairway, PNG uploads": (f"{root}/", "upload", False),
            "fairway, JSON rows, connection kept": (predict, "tfserving", True),
            "fairway, Open Inference, connection kept": (infer, "openinference", True),
        }
        for name, (url, protocol, kept) in forms.items():
            batches = BATCHES[:1] if protocol == "upload" else BATCHES
            rates = {batch: _throughput(bench, name, url, batch, protocol, kept) for batch in batches}
            lines.append(_line(name, rates, *_performance(bench, url, protocol, kept)))
    columns = ("examples/s at 1", "examples/s at 128", "latency, ms", "accuracy, %")
    return "### The EMNIST post's table\n\n" + table(columns, lines)


@contextmanager
def _flask(kit: Kit, model: Path, batch: int) -> Iterator[int]:
    def command(kit: Kit, port: int) -> list[str]:
        return [kit.python or "", str(SERVERS / "emnist_server.py"), str(model), str(port), str(batch)]

    with running(Server("flask", "Flask", command, "", {"TF_CPP_MIN_LOG_LEVEL": "3"}), kit) as one:
        yield one.port


def _throughput(
    bench: Bench, name: str, url: str, batch: int, protocol: Protocol = "json", kept: bool = False
) -> float:
    say(f"post: {name}, {batch} a request")
    with redirect_stdout(StringIO()):
        _, rate = eval_throughput(
            bench.given.seconds,
            url,
            batch_size=batch,
            emnist_folder_path=str(bench.given.digits),
            protocol=protocol,
            keep_alive=kept,
        )
    bench.found.setdefault("post", {}).setdefault(name, {})[f"rate {batch}"] = rate
    return rate


def _performance(bench: Bench, url: str, protocol: Protocol = "json", kept: bool = False) -> tuple[list[float], float]:
    """-> milliseconds of each request, and the accuracy in percent, as the function prints it."""
    said = StringIO()
    with redirect_stdout(said):
        latencies = eval_serving_performance(
            bench.given.images,
            0,
            url,
            emnist_folder_path=str(bench.given.digits),
            protocol=protocol,
            keep_alive=kept,
        )
    found = re.search(r"Accuracy on \d+ test images: ([\d.]+)%", said.getvalue())
    assert found, said.getvalue()
    return latencies, float(found[1])


def _line(name: str, rates: dict[int, float], latencies: list[float], accuracy: float) -> list[str]:
    latency = f"{statistics.mean(latencies):.2f} ± {statistics.pstdev(latencies):.2f}"
    return [name, *(shown(rates.get(batch), 0) for batch in BATCHES), latency, f"{accuracy:.2f}"]


def manners(bench: Bench) -> str:
    if not bench.model.is_dir():
        bench.retrained()
    folder = bench.given.flowers.split(",")[0]
    lines, answers = [], {}
    with _cluster(bench.model) as (proxy, worker):
        ways = {
            "by address": [proxy, "--via", "address"],
            "forwarded": [proxy, "--via", "forward"],
            "redirected": [proxy, "--via", "redirect"],
            "one worker, asked itself": [worker],
        }
        for name, (url, *options) in ways.items():
            say(f"manners: {name}")
            file = bench.folder / "evaluation.json"
            command = [*FAIRWAY, "evaluate", "--data", folder, "--part", "val", "--url", url, *options]
            subprocess.run([*command, "--json", str(file)], check=True, stdout=sys.stderr)
            said = json.loads(file.read_text())
            answers[name] = [(each["example"], each.get("prediction")) for each in said["answers"]]
            low, high = (100 * bound for bound in said["interval_95"])
            lines.append(
                [name, f"{said['examples']:,}", f"{100 * said['accuracy']:.2f}", f"{low:.1f} to {high:.1f}",
                 shown(said["latency_ms"]["p50"]), shown(said["latency_ms"]["p99"])]
            )  # fmt: skip
    bench.found["manners"] = lines
    first, *others = answers.values()
    if any(other != first for other in others):
        bench.failures.append("manners: the answers are not the same")
    columns = ("photos", "top-1, %", "95 % interval", "p50, ms", "p99, ms")
    return "### The retrained model behind a cluster of two workers: `fairway evaluate`\n\n" + table(columns, lines)


@contextmanager
def _cluster(model: Path) -> Iterator[tuple[str, str]]:
    """-> the proxy's URL and a worker's."""
    command = [*FAIRWAY, "launch", "--model", str(model), "--workers", "2", "--registry-port", "0", "--proxy-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = "".join(iter(process.stdout.readline, "Ctrl-C ends it all.\n"))
        proxy, worker = (
            re.search(rf"^ +{name} +(http://\S+)/", said, re.MULTILINE) for name in ("proxy", r"worker \d+")
        )
        if not proxy or not worker:
            raise RuntimeError(f"the cluster did not start; it said: {said}")
        yield proxy[1], worker[1]
    finally:
        process.terminate()
        process.wait(60)


SECTIONS: dict[str, Callable[[Bench], str]] = {"retrain": retrain, "post": post, "manners": manners}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each throughput (the post's: 60)")
    parser.add_argument(
        "--images", type=int, default=1000, help="of the sample whose accuracy and latency are measured"
    )
    parser.add_argument(
        "--flowers",
        default=f"{DATA / 'flowers'},{DATA / 'flowers_small'}",
        help="folders of photos; the first: the test",
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="MobileNetV2's, as Keras saves them")
    parser.add_argument("--emnist", type=Path, default=DATA / "models" / MODEL, help="the post's SavedModel")
    parser.add_argument("--digits", type=Path, default=DATA / "emnist/mnist", help="folder of its test set, idx files")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and requests, which say nothing but that it works"
    )
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := [section for section in only if section not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(SECTIONS)}")
    given.training = ["--how-many-training-steps", "20"] if given.quick else []
    if given.quick:
        given.seconds, given.images = 0.5, 20
    end_on_sigterm()
    busy, own, began = busy_seconds(), own_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(given, Path(name))
        for section in only:
            print(f"{SECTIONS[section](bench)}\n", flush=True)
    took = time.monotonic() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / took * 100
    print(
        f"{described()}. Took {took:.0f} s; processes that are not the bench's used {others:.0f} % of a core meanwhile."
    )
    for text in bench.failures:
        print(f"Failed: {text}.")
    if given.json:
        given.json.write_text(json.dumps(bench.found, indent=1) + "\n")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
