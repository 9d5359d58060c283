"""The proxies that are compared, each as a process on a core of its own: how to configure and begin it.

All of them keep connections to the workers (but node as in the article), write no access log, have one process or thread
that works, and say X-Forwarded-For and Via.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench_machine import CONTENDER_CORE, LOAD_CORE, cpu_seconds, free_ports, listens, peak_memory, pinned

HERE = Path(__file__).parent / "proxies"
ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "build/compiled"
MANY = 1_000_000_000
INSTALL = {
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "node": "apt-get install nodejs npm",
    "npm": "apt-get install nodejs npm",
}


@dataclass(frozen=True)
class Place:
    """Where a contender is to listen, before whom, and where it may write. `second_port`: for a hub of its own."""

    port: int
    second_port: int
    workers: Sequence[int | str]
    folder: Path

    @property
    def listed(self) -> str:
        return ",".join(map(str, self.workers))


@dataclass(frozen=True)
class Kind:
    key: str
    name: str
    command: Callable[[Place], list[str]]
    needs: Sequence[str] = ()
    beside: Callable[[Place], list[str]] | None = None  # a helper, on the load's core

    @property
    def missing(self) -> str:
        """Why it is left out; empty if it can be had."""
        for program in self.needs:
            if not which(program):
                return f"{program} is not installed ({INSTALL[program]})"
        if "npm" in self.needs and not node_modules():
            return "npm could not install its packages (scripts/proxies/package.json)"
        return ""


class Running:
    def __init__(self, kind: Kind, process: subprocess.Popen[bytes], place: Place) -> None:
        self.kind, self.process, self.port = kind, process, place.port

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def peak_memory(self) -> float:
        return peak_memory(self.process.pid)


@contextmanager
def running(kind: Kind, workers: Sequence[int], core: int = CONTENDER_CORE) -> Iterator[Running]:
    """Raises RuntimeError with what it said if it does not begin to listen."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        said = ""
        for _ in range(3):  # somebody else may take a port just now
            port, second_port = free_ports(2)
            place = Place(port, second_port, workers, Path(folder))
            with ExitStack() as attempt:
                process = attempt.enter_context(started(kind.command(place), place, core))
                if kind.beside:
                    listens(place.second_port)
                    attempt.enter_context(started(kind.beside(place), place, LOAD_CORE))
                if listens(place.port, alive=lambda: process.poll() is None):  # noqa: B023
                    ends.push(attempt.pop_all())
                    yield Running(kind, process, place)
                    return
            said = (place.folder / "said").read_text().strip()
        raise RuntimeError(f"it does not listen; it said: {said.splitlines()[-1:] or 'nothing'}")


@contextmanager
def started(command: list[str], place: Place, core: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "NODE_PATH": node_modules() if command[0].endswith("node") else ""}
    with open(place.folder / "said", "ab") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, preexec_fn=pinned(core), env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def which(program: str) -> str | None:
    return shutil.which(program) or shutil.which(f"/usr/sbin/{program}")


def versions() -> str:
    """Of all that is installed; what a program says of itself is shortened to its number."""
    said = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("uvloop", "aiohttp"))]
    for program, flag in (("nginx", "-v"), ("haproxy", "-v"), ("node", "--version")):
        if where := which(program):
            done = subprocess.run([where, flag], capture_output=True, text=True, check=False)
            if number := re.search(r"\d+(\.\d+)+", done.stdout + done.stderr):
                said.append(f"{program} {number[0]}")
    return ", ".join(said)


@functools.cache
def node_modules() -> str:
    """The packages of package.json, in a cache folder; empty if they cannot be had."""
    if "NODE_PATH" in os.environ:
        return os.environ["NODE_PATH"]
    listed = HERE / "package.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "fairway-bench" / hashlib.sha256(listed.read_bytes()).hexdigest()[:16]
    modules = folder / "node_modules"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(listed, folder)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "."]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            return ""
        (folder / "done").touch()
    return str(modules)


# -- how each is begun -------------------------------------------------------------------------------------------------


def compiled(anew: bool = True) -> bool:
    """Whether our package is there compiled; `anew`: as its sources are now (scripts/compile)."""
    made = COMPILED / ".made"
    if anew and subprocess.run([ROOT / "scripts/compile"], check=False).returncode:
        made.unlink(missing_ok=True)
    return made.exists()


def fairway(*options: str, pure: bool = False) -> Callable[[Place], list[str]]:
    """Compiled where that was made, and not asked to be `pure` Python."""
    path = ROOT / "src" if pure or not compiled(anew=False) else COMPILED
    return lambda place: [
        *("/usr/bin/env", f"PYTHONPATH={path}", sys.executable),
        *("-m", "fairway", "proxy", f"--port={place.port}", f"--static={place.listed}"),
        *options,
    ]


def nginx(options: str = "", answer: str = "") -> Callable[[Place], list[str]]:
    """Bodies of up to 64 MB are let in; all else but `options` is nginx's default."""

    def command(place: Place) -> list[str]:
        servers = "".join(f"server 127.0.0.1:{port}; " for port in place.workers)
        folders = "".join(f"{name}_temp_path {place.folder}/{name}; " for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
        forwarding = (
            'proxy_pass http://workers; proxy_http_version 1.1; proxy_set_header Connection ""; '
            "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; "
            'proxy_set_header X-Forwarded-Host $http_host; proxy_set_header Via "1.1 nginx"; add_header Via "1.1 nginx";'
        )
        config = place.folder / "nginx.conf"
        user = "user root; " if os.geteuid() == 0 else ""  # the folder is ours alone
        config.write_text(
            f"{user}daemon off; worker_processes 1; pid {place.folder}/pid; error_log stderr crit; "
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; client_max_body_size 64m; keepalive_requests {MANY}; {folders}\n"
            f"client_body_temp_path {place.folder}/body;\n"
            f"upstream workers {{ {servers} keepalive 64; keepalive_requests {MANY}; }}\n"
            f"server {{ listen 127.0.0.1:{place.port} backlog=1024; "
            f"location / {{ {answer or forwarding} {options} }} }} }}\n"
        )
        return [which("nginx") or "", "-e", "stderr", "-c", str(config)]

    return command


def nginx_return(place: Place) -> list[str]:
    return nginx(answer=f'return 200 "127.0.0.1:{place.workers[0]}\\n";')(place)


def haproxy(*options: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        config = place.folder / "haproxy.cfg"
        lines = [
            *("global", "  nbthread 1", "  maxconn 4096"),
            *("defaults", "  mode http", "  timeout connect 2s", "  timeout client 60s", "  timeout server 60s"),
            *("  http-reuse always", "  option forwardfor", *(f"  {option}" for option in options)),
            *("frontend door", f"  bind 127.0.0.1:{place.port} backlog 1024", "  default_backend workers"),
            *("backend workers", "  balance roundrobin"),
            *("  http-request set-header X-Forwarded-Proto http", "  http-request set-header Via 1.1\\ haproxy"),
            *("  http-request set-header X-Forwarded-Host %[req.hdr(host)]",),
            *("  http-response set-header Via 1.1\\ haproxy",),
            *(f"  server w{port} 127.0.0.1:{port}" for port in place.workers),
        ]
        config.write_text("\n".join([*lines, ""]))
        return [which("haproxy") or "", "-db", "-f", str(config)]

    return command


def node(*options: str) -> Callable[[Place], list[str]]:
    return lambda place: ["node", str(HERE / "http_proxy.js"), str(place.port), place.listed, *options]


def node_p2p(place: Place) -> list[str]:
    return ["node", str(HERE / "p2p_proxy.js"), str(place.port), str(place.second_port)]


def node_p2p_workers(place: Place) -> list[str]:
    return ["node", str(HERE / "p2p_workers.js"), str(place.second_port), place.listed]


def aiohttp(place: Place) -> list[str]:
    return [sys.executable, str(HERE / "aiohttp_proxy.py"), str(place.port), place.listed]


def kinds(options: Sequence[str] = ()) -> list[Kind]:
    """`options`: more of them for ours."""
    pure = [Kind("fairway-pure", "fairway, pure Python", fairway(*options, pure=True))] if compiled(anew=False) else []
    tuned = "proxy_request_buffering off; client_body_buffer_size 256k; proxy_buffering on;"
    return [
        Kind("fairway", "fairway", fairway(*options)),
        *pure,
        Kind("fairway-copy", "fairway, --no-splice", fairway("--no-splice", *options)),
        Kind("nginx", "nginx", nginx(), ("nginx",)),
        Kind("nginx-tuned", "nginx, tuned", nginx(tuned), ("nginx",)),
        Kind("haproxy", "haproxy", haproxy(), ("haproxy",)),
        Kind("haproxy-splice", "haproxy, splice", haproxy("option splice-request"), ("haproxy",)),
        Kind("node", "node http-proxy, as in the article", node(), ("node", "npm")),
        Kind("node-keepalive", "node http-proxy, keep-alive", node("keep-alive"), ("node", "npm")),
        Kind("aiohttp", "aiohttp", aiohttp),
        Kind("nginx-return", "nginx `return 200`", nginx_return, ("nginx",)),
        Kind("node-p2p", "node seaport p2p proxy, as in the article", node_p2p, ("node", "npm"), node_p2p_workers),
    ]
