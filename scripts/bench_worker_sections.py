"""The sections of the worker's bench: what is measured in each, and its table."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_proxy_findings import Findings, beside, shown, table
from bench_worker_contenders import (
    ARTICLE,
    FRONT,
    HERE,
    ONNX,
    SAME,
    SERVERS,
    Kit,
    Running,
    Server,
    fairway,
    first_answer,
    multipart,
    running,
    script,
    written,
)

FRONT_GOAL = 60.0  # microseconds of CPU
LIMIT_GOALS = {
    1: (0.9, None),
    8: (0.95, 1.06),
    32: (0.95, 1.06),
}  # images/s at least, CPU an image at most, of the limit's
PEER_GOALS = {"mosec": 1.05, "litserve": 1.5, "bentoml": 1.8, "ray": 2.5, "flask": 1.5}  # images/s, ours / theirs
ARTICLE_GOALS = {"fairway": 4.0, "tensorflow": 2.4, "bf16": 6.5}  # images/s, ours / the signature behind Flask
DIGIT_GOALS = {"json 1": 2800, "json 128": 40_000, "oip 1": 3300, "oip 128": 84_000, "npy 1": 3300, "npy 128": 84_000}
START_GOAL, MEMORY_GOAL = 1.0, 150.0
TAIL_GOAL, GOODPUT_GOAL, REFUSAL_GOAL = 3.0, 90.0, 50.0
CONNECTIONS = (1, 8, 32)


@dataclass
class Bench:
    kit: Kit
    folder: Path
    rounds: int
    seconds: float
    against: Sequence[str]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.findings = Findings({})
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            raise SystemExit("the load is a program in C, and there is no compiler (apt-get install gcc)")
        source = HERE / "load" / "requests.c"
        subprocess.run([compiler, "-O2", "-o", self.folder / "requests", source, "-lm"], check=True)
        self.uploads = [multipart(photo.read_bytes()) for photo in self.kit.photos]

    def load(self, port: int, file: Path, connections: int, seconds: float, **options: Any) -> dict[str, Any]:
        words = [f for name, value in options.items() for f in (f"--{name}", f"{value}")]
        command = [str(self.folder / "requests"), "--port", str(port), "--file", str(file)]
        command += ["--connections", str(connections), "--seconds", str(seconds), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 150, check=False)
        if done.returncode:
            raise RuntimeError(f"the load ended: {done.stderr.strip()[-300:]}")
        said: dict[str, Any] = json.loads(done.stdout)
        if said["failed"] or said["wrong"] or not (said["done"] or said["refused"]):
            raise RuntimeError(f"{said['wrong']} wrong answers, {said['failed']} without one: {said['problem']}")
        return said

    @contextmanager
    def all(self, section: str, servers: Sequence[Server]) -> Iterator[list[Running]]:
        """All of them, begun; those that cannot be are named in the findings."""
        with ExitStack() as stack:
            begun: list[Running] = []
            for server in servers:
                if server.peer and self.against and server.key not in self.against:
                    continue
                if server.peer and not self.kit.python:
                    self.findings.left_out.append(f"{server.name}: the peers could not be installed")
                    continue
                self.say(f"{section}: starting {server.name}")
                try:
                    begun.append(stack.enter_context(running(server, self.kit)))
                    self.findings.names[server.key] = server.name
                except RuntimeError as error:
                    if not server.peer:
                        raise RuntimeError(f"{server.name}: {error}") from error
                    self.findings.left_out.append(f"{server.name}: {error}")
            yield begun

    def measured(
        self, section: str, one: Running, turn: int, file: Path, connections: int, items: int = 1, **options: Any
    ) -> dict[str, Any]:
        """A turn that is counted; turn -1 is not."""
        before = one.cpu()
        said = self.load(one.port, file, connections, self.seconds if turn >= 0 else 0.5, **options)
        cpu = one.cpu() - before
        if turn >= 0:
            found = {
                f"rate {connections}": said["done"] * items / said["seconds"],
                f"cpu {connections}": cpu / max(1, said["done"] * items) * 1e6,
                f"median {connections}": said["median"] / 1000,
                f"p99 {connections}": said["p99"] / 1000,
            }
            self.findings.add(section, one.server.key, turn, **found)
        return said

    def turns(self, section: str) -> Iterator[int]:
        for turn in range(-1, self.rounds):
            self.say(f"{section}: {'warming up' if turn < 0 else f'round {turn + 1} of {self.rounds}'}")
            yield turn


def front(bench: Bench) -> str:
    body = [multipart(bytes(20_000))]
    with bench.all("front", FRONT) as servers:
        files = {s.server.key: written(s.server.path, body, bench.folder / s.server.key) for s in servers}
        for turn in bench.turns("front"):
            for one in servers:
                bench.measured("front", one, turn, files[one.server.key], 32)
    found = bench.findings

    def cells(key: str) -> list[str]:
        cpu = found.median("front", key, "cpu 32")
        limit = beside(cpu, FRONT_GOAL, least=False) if key == "fairway" else shown(cpu)
        return [limit, shown(found.median("front", key, "rate 32"), 0), shown(found.median("front", key, "p99 32"))]

    head = "### The server alone: a model that does nothing, 20 KB multipart, 32 connections\n\n"
    return head + table(("CPU, µs an upload", "uploads/s", "p99, ms"), found.lines("front", cells))


def looped(bench: Bench, threads: int, wide: int) -> dict[str, float]:
    """scripts/servers/limit.py, once."""
    listed = bench.folder / "photos"
    listed.write_text("\n".join(map(str, bench.kit.photos)))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE.parent / 'src'}:{SERVERS}",
        "BENCH_CARD": str(bench.kit.models / "model_card.json"),
        **{name: value.format(models=bench.kit.models) for name, value in ONNX.items()},
        "BENCH_THREADS": str(wide),
    }
    command = [sys.executable, str(SERVERS / "limit.py"), str(listed), str(bench.seconds), str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the limit could not be measured: {done.stderr.strip()[-300:]}")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def limit(bench: Bench) -> str:
    found = bench.findings
    with bench.all("limit", [each for each in SAME if not each.peer]) as (ours,):
        found.names["limit"] = "the limit: threads in one process, no server"
        file = written("/", bench.uploads, bench.folder / "uploads")
        for turn in bench.turns("limit"):
            for connections in CONNECTIONS:
                bench.measured("limit", ours, turn, file, connections)
                said = looped(bench, *((1, 2) if connections == 1 else (2, 1)))
                if turn >= 0:
                    cpu, rate = said["cpu_seconds"] / said["images"] * 1e6, said["images"] / said["seconds"]
                    found.add("limit", "limit", turn, **{f"rate {connections}": rate, f"cpu {connections}": cpu})

    def cells(key: str) -> list[str]:
        rates = [shown(found.median("limit", key, f"rate {c}"), 0) for c in CONNECTIONS]
        return [*rates, *(shown((found.median("limit", key, f"cpu {c}") or 0) / 1000) for c in CONNECTIONS)]

    lines = found.lines("limit", cells)
    ratios = ["fairway / the limit"]
    for place, column in enumerate(("rate", "cpu")):
        for connections in CONNECTIONS:
            ratio = found.paired("limit", "fairway", f"{column} {connections}", lambda a, b: a / b, base="limit")
            ratios.append(beside(ratio, LIMIT_GOALS[connections][place], least=column == "rate"))
    columns = (*(f"images/s at {c}" for c in CONNECTIONS), *(f"CPU at {c}, ms" for c in CONNECTIONS))
    return "### The same runtime without a server: ONNX Runtime, MobileNetV2\n\n" + table(columns, [*lines, ratios])


def photos(bench: Bench, section: str, servers: Sequence[Server]) -> None:
    """One server alive at a time, begun anew in each round: some of the peers use the processor even when idle."""
    answers: dict[str, str] = {}
    failed: set[str] = set()
    for turn in range(bench.rounds):
        for server in servers:
            if server.key in failed:
                continue
            bench.say(f"{section}: round {turn + 1} of {bench.rounds}, {server.name}")
            with bench.all(section, [server]) as begun:
                if not begun:
                    failed.add(server.key)
                for one in begun:
                    answers[server.key] = first_answer(server, one.port, bench.kit.photos[0])[0][0]
                    file = written(server.path, bench.uploads, bench.folder / server.key)
                    try:
                        bench.measured(section, one, -1, file, 8)
                        for connections in CONNECTIONS:
                            bench.measured(section, one, turn, file, connections)
                    except RuntimeError as error:
                        bench.findings.failures.append(f"{server.name} in round {turn + 1}: {error}")
                    bench.findings.add(section, server.key, turn, memory=one.memory())
    if len(set(answers.values())) > 1:
        bench.findings.failures.append(f"{section}: the servers do not agree: {answers}")


def lines(bench: Bench, section: str) -> list[list[str]]:
    found = bench.findings

    def cells(key: str) -> list[str]:
        rates = [shown(found.median(section, key, f"rate {c}"), 0) for c in CONNECTIONS]
        cpu = shown((found.median(section, key, "cpu 8") or 0) / 1000)
        tails = [shown(found.median(section, key, column)) for column in ("median 8", "p99 8")]
        return [*rates, cpu, *tails, shown(found.median(section, key, "memory"), 0)]

    return found.lines(section, cells)


COLUMNS = (*(f"images/s at {c}" for c in CONNECTIONS), "CPU at 8, ms", "p50 at 8, ms", "p99 at 8, ms", "memory, MB")


def peers(bench: Bench) -> str:
    photos(bench, "peers", SAME)
    found = bench.findings

    def cells(key: str) -> list[str]:
        ratios = [found.paired("peers", key, f"rate {c}", lambda theirs, ours: ours / theirs) for c in CONNECTIONS]
        goal = PEER_GOALS[key]
        memory = found.paired("peers", key, "memory", lambda theirs, ours: ours / theirs)
        aimed = beside(memory, 0.5, least=False) if key == "mosec" else shown(memory)
        return [shown(ratios[0]), *(beside(ratio, goal) for ratio in ratios[1:]), aimed]

    head = "### All servers on ONNX Runtime, float32: MobileNetV2, multipart uploads\n\n"
    second = "\n\n#### fairway / theirs, and what is aimed at\n\n"
    columns = (*(f"images/s at {c}" for c in CONNECTIONS), "memory")
    return (
        head
        + table(COLUMNS, lines(bench, "peers"))
        + second
        + table(columns, found.lines("peers", cells, but=["fairway"]))
    )


def article(bench: Bench) -> str:
    photos(bench, "article", ARTICLE)
    found = bench.findings

    def cells(key: str) -> list[str]:
        ratios = [
            found.paired("article", key, f"rate {c}", lambda ours, theirs: ours / theirs, base="signature")
            for c in CONNECTIONS
        ]
        return [shown(ratios[0]), *(beside(ratio, ARTICLE_GOALS.get(key)) for ratio in ratios[1:])]

    head = "### The article's server, and ours: MobileNetV2, multipart uploads\n\n"
    second = "\n\n#### images/s, by those of Flask + TensorFlow's signature, and what is aimed at\n\n"
    columns = tuple(f"at {c}" for c in CONNECTIONS)
    return head + table(COLUMNS, lines(bench, "article")) + second + table(columns, found.lines("article", cells))


def digits(bench: Bench) -> str:
    model = bench.kit.photos[0].parents[2] / "models" / "emnist_dl2prod"
    if not (model / "saved_model.pb").is_file():
        raise RuntimeError("EMNIST's model does not lie beside the photos (models/emnist_dl2prod)")
    servers = [
        Server("fairway", "fairway", fairway("--model", str(model)), "", peer=False),
        Server("flask", "Flask as in the post", script("flask_server.py", "{port}"), "",
               {"BENCH_MODEL": str(model), "BENCH_RUNTIME": "tensorflow"}),
    ]  # fmt: skip
    found = bench.findings
    with bench.all("digits", servers) as begun:
        for turn in bench.turns("digits"):
            for one in begun:
                for form in DIGIT_GOALS:
                    kind, count = form.split()[0], int(form.split()[1])
                    if one.server.key == "flask" and (kind, count) != ("json", 1):
                        continue  # the signature takes one; the post's server had no other form
                    path, body, types = digit_request(kind, count, one)
                    file = written(path, [(body, types)], bench.folder / "digits")
                    said = bench.load(one.port, file, 1, bench.seconds)
                    if turn >= 0:
                        found.add("digits", one.server.key, turn, **{form: said["done"] * count / said["seconds"]})

    def cells(key: str) -> list[str]:
        said = {form: found.median("digits", key, form) for form in DIGIT_GOALS}
        return [beside(rate, DIGIT_GOALS[form] if key == "fairway" else None) for form, rate in said.items()]

    return "### EMNIST's network, examples a second, one client\n\n" + table(
        tuple(f"{form} a request" for form in DIGIT_GOALS), found.lines("digits", cells)
    )


def digit_request(form: str, count: int, one: Running) -> tuple[str, bytes, str]:
    """-> path, body, Content-Type (and a line more) of a request with so many examples of 784 numbers."""
    source = random.Random(7)
    rows = [[round(source.random(), 4) for _ in range(784)] for _ in range(count)]
    numbers = struct.pack(f"<{784 * count}f", *(number for row in rows for number in row))
    name = "emnist_dl2prod"
    if one.server.key == "flask":
        return "/predict", json.dumps({"instances": rows}).encode(), "application/json"
    if form == "json":
        return f"/v1/models/{name}:predict", json.dumps({"instances": rows}).encode(), "application/json"
    if form == "npy":
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 784), }}"
        text += " " * (-(len(text) + 11) % 64) + "\n"
        head = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()
        return f"/v1/models/{name}:predict", head + numbers, "application/x-npy\r\nAccept: application/x-npy"
    with urllib.request.urlopen(f"http://127.0.0.1:{one.port}/v2/models/{name}", timeout=10) as answer:
        called = json.load(answer)["inputs"][0]["name"]
    tensor = {
        "name": called, "shape": [count, 784], "datatype": "FP32", "parameters": {"binary_data_size": len(numbers)},
    }  # fmt: skip
    words = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind = f"application/octet-stream\r\nInference-Header-Content-Length: {len(words)}"
    return f"/v2/models/{name}/infer", words + numbers, kind


def start(bench: Bench) -> str:
    found = bench.findings
    warm = [
        Server("fairway", "fairway, --runtime auto, choice known", ARTICLE[0].command, peer=False),
        Server("tensorflow", "fairway, --runtime tensorflow", ARTICLE[1].command, peer=False),
    ]
    for turn in bench.turns("start"):
        for server in warm:
            began = time.monotonic()
            with running(server, bench.kit) as one:
                if turn >= 0:
                    found.names[server.key] = server.name
                    found.add("start", server.key, turn, seconds=time.monotonic() - began, memory=one.memory())

    def cells(key: str) -> list[str]:
        goals = (START_GOAL, MEMORY_GOAL) if key == "fairway" else (None, None)
        said = [found.median("start", key, column) for column in ("seconds", "memory")]
        return [beside(value, goal, least=False) for value, goal in zip(said, goals, strict=True)]

    return "### Start to first answer\n\n" + table(("seconds", "memory, MB"), found.lines("start", cells))


def overload(bench: Bench) -> str:
    found = bench.findings
    with bench.all("overload", [ARTICLE[0]]) as (ours,):
        file = written("/", bench.uploads, bench.folder / "uploads")
        for turn in bench.turns("overload"):
            alone = bench.load(ours.port, file, 1, bench.seconds)
            peak = bench.load(ours.port, file, 32, bench.seconds)
            rate = peak["done"] / peak["seconds"]
            busy = bench.load(ours.port, file, 256, bench.seconds * 2, rate=rate * 0.7)
            over = bench.load(ours.port, file, 1024, bench.seconds * 2, rate=rate * 3, busy=1)
            if turn >= 0:
                found.add("overload", "fairway", turn, peak=rate, alone=alone["median"] / 1000, tail=busy["p99"] / 1000,
                          ratio=busy["p99"] / alone["median"], good=over["done"] / over["seconds"] / rate * 100,
                          refusal=over["refused_p99"] / 1000)  # fmt: skip

    def cells(key: str) -> list[str]:
        peak, alone, tail, ratio, good, refusal = (
            found.median("overload", key, column) for column in ("peak", "alone", "tail", "ratio", "good", "refusal")
        )
        return [
            shown(peak, 0), shown(alone), shown(tail), beside(ratio, TAIL_GOAL, least=False),
            beside(good, GOODPUT_GOAL), beside(refusal, REFUSAL_GOAL, least=False),
        ]  # fmt: skip

    columns = ("peak, images/s", "median alone, ms", "p99 at 70 %, ms", "p99 / median", "answered at 3 x peak, % of it",
               "p99 of a 429, ms")  # fmt: skip
    return "### Open loop and overload, --runtime auto\n\n" + table(columns, found.lines("overload", cells))


SECTIONS: dict[str, Callable[[Bench], str]] = {
    "front": front,
    "limit": limit,
    "peers": peers,
    "article": article,
    "digits": digits,
    "start": start,
    "overload": overload,
}
