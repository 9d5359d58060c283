"""The servers that are compared: how each is begun, where it takes an upload, and what it costs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_machine import cpu_seconds, family, free_ports, listens

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
START_SECONDS = 180.0


@dataclass(frozen=True)
class Kit:
    """What all need: made models, the interpreter that has the peers (None: they could not be installed), photos."""

    models: Path
    python: str | None
    photos: Sequence[Path]
    choices: Path


@dataclass(frozen=True)
class Server:
    """`path`: where a multipart upload goes; empty: it takes none. `env`: BENCH_... for scripts/servers.

    Ours are begun by `fairway worker`.
    """

    key: str
    name: str
    command: Callable[[Kit, int], list[str]]
    path: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    peer: bool = True


class Running:
    def __init__(self, server: Server, process: subprocess.Popen[bytes], port: int) -> None:
        self.server, self.process, self.port = server, process, port

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def memory(self) -> float:
        """Proportional share of all its processes, in MB of a million bytes: what is shared counts once."""
        total = 0
        for pid in family(self.process.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total * 1024 / 1e6


@contextmanager
def running(server: Server, kit: Kit) -> Iterator[Running]:
    """Until it answers the first upload. Raises RuntimeError with what it said if it does not."""
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE.parent / 'src'}:{SERVERS}:{kit.models}",
        "BENCH_CARD": str(kit.models / "model_card.json"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        **{name: value.format(models=kit.models) for name, value in server.env.items()},
    }
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "said", "w+b") as said:
        process = subprocess.Popen(
            server.command(kit, port), cwd=SERVERS, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            if not listens(port, START_SECONDS, lambda: process.poll() is None) or not _answers(server, port, kit):
                said.seek(0)
                raise RuntimeError(f"it does not answer; it said: {said.read().decode().strip()[-400:] or 'nothing'}")
            yield Running(server, process, port)
        finally:
            _end(process)


def _answers(server: Server, port: int, kit: Kit) -> bool:
    if not server.path:
        return True
    for _ in range(600):
        try:
            if first_answer(server, port, kit.photos[0]) is not None:
                return True
        except OSError:
            pass
        if not listens(port, 0.3):
            continue
    return False


def first_answer(server: Server, port: int, photo: Path) -> Any:
    body, kind = multipart(photo.read_bytes())
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{server.path}", body, {"Content-Type": kind})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def multipart(photo: bytes) -> tuple[bytes, str]:
    edge = "----fairway-bench"
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="data"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return head.encode() + photo + f"\r\n--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


def written(path: str, bodies: Sequence[tuple[bytes, str]], file: Path) -> Path:
    """The file that scripts/load/requests.c reads."""
    with open(file, "wb") as out:
        for body, kind in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            request = head.encode() + body
            out.write(len(request).to_bytes(8, "little") + request)
    return file


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all its children, which some of the peers leave behind."""
    mine = family(process.pid) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in mine[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def peers_python(say: Callable[[str], None]) -> str | None:
    """A virtual environment of the peers' own, which sees ours too; made once. None: it cannot be made here."""
    listed = SERVERS / "requirements.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "fairway-bench" / f"peers-{hashlib.sha256(listed.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if (folder / "done").exists():
        return str(python)
    say(f"installing the peers (once): {', '.join(listed.read_text().split())}")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(listed)],
    ]
    for step in steps:
        if subprocess.run(step, check=False).returncode:
            return None
    own = next((folder / "lib").glob("python*/site-packages"))
    (own / "ours.pth").write_text(site + "\n")
    (folder / "done").touch()
    return str(python)


def fairway(*options: str) -> Callable[[Kit, int], list[str]]:
    def command(kit: Kit, port: int) -> list[str]:
        given = [each.format(models=kit.models) for each in options]
        ours = [sys.executable, "-m", "fairway", "worker", "--registry", "none", "--port", str(port)]
        return [*ours, "--choices", str(kit.choices), "--max-waiting", "256", *given]

    return command


def script(name: str, *words: str) -> Callable[[Kit, int], list[str]]:
    return lambda kit, port: [kit.python or "", str(SERVERS / name), *(word.format(port=port) for word in words)]


def bento(kit: Kit, port: int) -> list[str]:
    return [
        *(kit.python or "", "-m", "bentoml", "serve", "bento_service:Classifier"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


ONNX = {"BENCH_MODEL": "{models}/mobilenet.onnx", "BENCH_RUNTIME": "onnx", "OMP_NUM_THREADS": "1"}
NONE = {"BENCH_MODEL": "none", "BENCH_RUNTIME": "none"}
MOBILENET = ("--model", "{models}/mobilenet")

FRONT = [
    Server("fairway", "fairway", fairway("--model", "python:nothing:Nothing"), peer=False),
    Server("mosec", "mosec, 2 processes", script("mosec_server.py", "--address", "127.0.0.1", "--port", "{port}"),
           "/inference", NONE),
    Server("litserve", "LitServe, 2 processes", script("litserve_server.py", "{port}"), "/predict", NONE),
    Server("bentoml", "BentoML, 2 processes", bento, "/classify", NONE),
]  # fmt: skip
SAME = [
    Server("fairway", "fairway, ONNX Runtime", fairway("--model", "{models}/mobilenet.onnx", "--runtime", "onnx"),
           peer=False),
    Server("mosec", "mosec, 2 processes", script("mosec_server.py", "--address", "127.0.0.1", "--port", "{port}"),
           "/inference", ONNX),
    Server("litserve", "LitServe, 2 processes", script("litserve_server.py", "{port}"), "/predict", ONNX),
    Server("bentoml", "BentoML, 2 processes", bento, "/classify", ONNX),
    Server("ray", "Ray Serve, 2 replicas", script("ray_server.py", "{port}"), "/", ONNX),
    Server("flask", "Flask as in the article", script("flask_server.py", "{port}"), "/", ONNX),
]  # fmt: skip
ARTICLE = [
    Server("fairway", "fairway, --runtime auto", fairway(*MOBILENET), peer=False),
    Server("tensorflow", "fairway, --runtime tensorflow", fairway(*MOBILENET, "--runtime", "tensorflow"), peer=False),
    Server("bf16", "fairway, --precision bf16", fairway(*MOBILENET, "--precision", "bf16"), peer=False),
    Server("signature", "Flask + TensorFlow's signature", script("flask_server.py", "{port}"), "/",
           {"BENCH_MODEL": "{models}/mobilenet/1", "BENCH_RUNTIME": "tensorflow"}),
    Server("keras", "Flask + Keras predict", script("flask_server.py", "{port}"), "/",
           {"BENCH_MODEL": "{models}/mobilenet.keras", "BENCH_RUNTIME": "keras"}),
]  # fmt: skip
