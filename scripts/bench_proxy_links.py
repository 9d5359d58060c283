"""The point of it all: images from clients to one, two, three or four workers, through the proxy and past it.

Each machine is a network namespace on a link of its own, as fast as --link says in each direction; the clients' is not
limited. A worker takes a fixed time for each image. By address, a client asks the proxy before every upload.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bench_machine import CONTENDER_CORE
from bench_proxy_contenders import Place, fairway, started
from bench_proxy_findings import size_name

if TYPE_CHECKING:
    from bench_proxy_sections import Bench

SERVICE_MICROSECONDS = 10_000
CONNECTIONS = 16
WAYS: Mapping[str, Mapping[str, int]] = {"forwarded": {}, "by address": {"by_address": 1}}
PORT = 12480


def netns() -> ModuleType:
    """The tests' network of namespaces: from its file, since `tests` may be anybody's name."""
    path = Path(__file__).parents[1] / "tests/registry/netns.py"
    spec = importlib.util.spec_from_file_location("fairway_netns", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def limit(host: Any, megabits: float) -> None:
    """Both directions of its cable. Raises RuntimeError where the kernel or `tc` cannot."""
    shape = ("root", "tbf", "rate", f"{megabits}mbit", "burst", "256kb", "limit", "8mb")
    for namespace, device in ((host.namespace, "eth0"), (host.switch, host.port)):
        command = ("ip", "netns", "exec", namespace, "tc", "qdisc", "add", "dev", device, *shape)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise RuntimeError("there is no `tc` here (apt-get install iproute2)") from None
        if done.returncode:
            raise RuntimeError(f"links cannot be limited here: {done.stderr.strip()}")


def passed(host: Any) -> int:
    """Bytes that its link has carried so far, in and out."""
    said = subprocess.run(host.command("ip", "-s", "-j", "link", "show", "eth0"), capture_output=True, check=True)
    [counted] = json.loads(said.stdout)
    return int(counted["stats64"]["rx"]["bytes"] + counted["stats64"]["tx"]["bytes"])


def scale(bench: Bench) -> None:
    """Fills the findings' section `scale`: per size and way, images a second and bytes through the proxy for each."""
    module = netns()
    if reason := module.netns_missing():
        raise RuntimeError(str(reason))
    scope = bench.scope
    with module.network() as network, ExitStack() as ends:
        ends.callback(network.power_off)
        clients, door = network.host(), network.host()
        hosts = [network.host() for _ in range(scope.workers)]
        for host in (door, *hosts):
            limit(host, scope.megabits)
        workers: list[tuple[str, int]] = []
        for host in hosts:
            sinks = bench.programs.sinks(1, within=host.command(), host=host.address, service_us=SERVICE_MICROSECONDS)
            workers.append((host.address, ends.enter_context(sinks)[0]))
        for count in range(1, scope.workers + 1):
            with proxy(door, [f"{host}:{port}" for host, port in workers[:count]], bench.options):
                measure(bench, clients, door, [port for _, port in workers[:count]])


@contextmanager
def proxy(door: Any, workers: Sequence[str], options: Sequence[str]) -> Iterator[None]:
    """Ours, in the door's namespace; begun anew for each number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(PORT, 0, workers, Path(folder))
        command = [*door.command(), *fairway(f"--host={door.address}", "--insecure", *options)(place)]
        look = f"import socket; socket.create_connection(({door.address!r}, {PORT}), 1)"
        with started(command, place, CONTENDER_CORE) as process:
            for _ in range(100):
                if process.poll() is not None:
                    said = (place.folder / "said").read_text().splitlines()
                    raise RuntimeError(f"it does not listen; it said: {said[-1:]}")
                if not subprocess.run(
                    door.command(sys.executable, "-c", look), capture_output=True, check=False
                ).returncode:
                    break
            yield


def measure(bench: Bench, clients: Any, door: Any, workers: Sequence[int]) -> None:
    scope = bench.scope
    for size in scope.images:
        for turn in range(1, min(3, scope.rounds) + 1):
            for way, options in WAYS.items():
                before = passed(door)
                load = bench.programs.load(
                    PORT,
                    within=clients.command(),
                    host=door.address,
                    size=size,
                    connections=CONNECTIONS,
                    seconds=1.5 * scope.seconds,
                    workers=",".join(map(str, workers)),
                    **options,
                )
                each = (passed(door) - before) / load.done
                said = {f"rate_{len(workers)}": load.rate, f"through_{len(workers)}": each}
                bench.findings.add("scale", f"{size} {way}", turn, **said)
                bench.say(
                    f"scale, {len(workers)} workers, {size_name(size)}, {way}, round {turn}: {load.rate:,.0f} images/s, "
                    f"{each:,.0f} bytes through the proxy for each"
                )
