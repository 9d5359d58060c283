"""One machine's supervisor: a registry, a proxy and N workers as processes; restarts what crashes, drains what it started.

Every part runs `fairway ROLE` with the settings it is given here, and holds the other end of a pipe: should this process
vanish, the parts notice and stop. A part that exits with EXIT_CONFIGURATION cannot be cured by a restart, and ends it all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from .proxy.config import Mode
from .registry.config import require_port
from .registry.errors import ConfigurationError
from .registry.instance import Address, Query
from .registry.link import Link
from .registry.options import add_options, option, read_options
from .registry.ports import free_port
from .registry.process import EXIT_CONFIGURATION, EXIT_USAGE, SUPERVISED, run

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0  # seconds before a crashed part is started again, doubling
STEADY_SECONDS = 60.0  # a part that lived this long crashed for a new reason: the backoff starts anew


@dataclass(frozen=True)
class LaunchSettings:
    workers: int = option(2, "how many workers to start")
    model: str = option(
        "flowers", "what they serve: flowers (bundled), a model's folder or file, keras:NAME, or python:MODULE:FACTORY"
    )
    models: str = option("", "they serve every model in this folder instead")
    model_config: str = option("", "they serve the models of this file instead; TensorFlow Serving's text form")
    runtime: str = option(
        "auto", "engine that runs the model: auto (the fastest that is equal), tensorflow, litert, ..."
    )
    batching: str = option("auto", "auto (measured at warm-up), off, or e.g. max=32,wait_ms=2")
    weights: str = option("", "weights file for keras:NAME")
    labels: str = option("", "labels file, one a line")
    service: str = option("classify", "name the workers register under")
    mode: Mode = option("auto", "what the proxy does with a request")
    host: str = option("127.0.0.1", "address all parts listen on; anything but loopback wants --insecure")
    registry_port: int = option(12481, "the registry's port; 0 takes a free one")
    proxy_port: int = option(12480, "the proxy's port; 0 takes a free one")
    threads: int = option(0, "threads per worker; 0: the machine's cores shared out among the workers")
    drain_seconds: float = option(1.0, "at the end: how long a worker serves those who still hold its address")
    store: str = option(
        "", "engine that holds the registrations, e.g. etcd://HOST:PORT; empty: the registry itself, until the end"
    )
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= 1000:
            raise ConfigurationError(f"--workers {self.workers}: expected 0 to 1000")
        if self.host in ("0.0.0.0", "::"):
            raise ConfigurationError(
                f"--host {self.host}: workers have to tell others where they are; name one address of this machine"
            )
        for name in ("registry", "proxy"):
            require_port(f"--{name}-port", getattr(self, f"{name}_port"))


@dataclass
class Part:
    """One supervised process."""

    name: str
    command: list[str]
    process: asyncio.subprocess.Process | None = None
    backoff: float = FIRST_BACKOFF
    last_words: list[str] = field(default_factory=list)


class ConfigurationFailed(ConfigurationError):
    """A part said that no restart would cure it."""


class Launch:
    """`await run(stop)`: until `stop`, or until a part cannot be cured."""

    def __init__(self, settings: LaunchSettings, for_workers: Sequence[str] = ()) -> None:
        self.settings = settings
        self._for_workers = list(for_workers)
        self._stopping = asyncio.Event()
        self._readers: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        settings = self.settings
        registry_port = settings.registry_port or free_port(settings.host)
        proxy_port = settings.proxy_port or free_port(settings.host)
        registry, door = Address(settings.host, registry_port), Address(settings.host, proxy_port)
        _check_free("registry", registry)
        _check_free("proxy", door)
        folder = tempfile.TemporaryDirectory(prefix="fairway-registry-")  # a registry that crashes forgets nothing
        parts = self._parts(registry, registry_port, proxy_port, settings.store or f"embedded:{folder.name}")
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stopped = asyncio.create_task(stop.wait())
        # The registry first, so that the others find it at their first try.
        keepers = [asyncio.create_task(self._keep(parts[0], failure))]
        up = asyncio.create_task(_listening(registry))
        story: asyncio.Task[None] | None = None
        try:
            await asyncio.wait((stopped, failure, up), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                keepers += [asyncio.create_task(self._keep(part, failure)) for part in parts[1:]]
                story = asyncio.create_task(self._tell(registry, door, parts))
                await asyncio.wait((stopped, failure), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopped, up, story):
                if task is not None:
                    task.cancel()
            self._stopping.set()
            await self._drain(parts)
            for task in (*keepers, *self._readers):
                task.cancel()
            rest = (*keepers, *self._readers, *([story] if story else []))
            await asyncio.gather(*rest, return_exceptions=True)
            folder.cleanup()
        if failure.done():
            failure.result()

    def _parts(self, registry: Address, registry_port: int, proxy_port: int, store: str) -> list[Part]:
        s = self.settings
        common = [f"--host={s.host}", *(["--insecure"] if s.insecure else [])]
        threads = s.threads or max(1, (os.cpu_count() or 1) // max(1, s.workers))
        parts = [
            Part("registry", ["registry", f"--port={registry_port}", f"--store={store}", *common]),
            Part(
                "proxy",
                [
                    "proxy", f"--port={proxy_port}", f"--registry={registry}", f"--mode={s.mode}",
                    f"--service={s.service}", *common,
                ],
            ),
        ]  # fmt: skip
        asked = [
            f"--{name.replace('_', '-')}={getattr(s, name)}"
            for name in ("model", "models", "model_config", "runtime", "batching", "weights", "labels", "service")
            if getattr(s, name)
        ]
        asked += [f"--registry={registry}", f"--threads={threads}", f"--drain-seconds={s.drain_seconds:g}", "--port=0"]
        parts += [Part(f"worker {i + 1}", ["worker", *asked, *common, *self._for_workers]) for i in range(s.workers)]
        return parts

    async def _keep(self, part: Part, failure: asyncio.Future[None]) -> None:
        """Starts `part`, again and again, until we stop."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                status = await self._live(part)
            except OSError as error:  # no memory, no file descriptors: that may pass
                say(f"{part.name} cannot be started: {error}")
                status = 1
            if self._stopping.is_set():
                return
            if status in (EXIT_CONFIGURATION, EXIT_USAGE):
                if not failure.done():
                    reason = part.last_words[-1].removeprefix("fairway: ") if part.last_words else "it did not say why"
                    failure.set_exception(ConfigurationFailed(f"{part.name}: {reason}"))
                return
            if loop.time() - began > STEADY_SECONDS:
                part.backoff = FIRST_BACKOFF
            how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
            say(f"{part.name} {how}; starting it again in {part.backoff:g} s")
            await asyncio.sleep(part.backoff)
            part.backoff = min(part.backoff * 2, LAST_BACKOFF)

    async def _live(self, part: Part) -> int:
        """One life of `part`; its exit status."""
        part.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fairway", *part.command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, SUPERVISED: "1"},
            start_new_session=True,  # Ctrl-C is for us alone: we stop the parts, in order
        )  # fmt: skip
        reader = asyncio.create_task(self._read(part, part.process))
        self._readers.add(reader)
        status = await part.process.wait()
        await asyncio.gather(reader, return_exceptions=True)
        self._readers.discard(reader)
        return status

    async def _read(self, part: Part, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line longer than the reader holds: it is not worth more than being skipped
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                part.last_words = [*part.last_words[-4:], text]
                print(f"[{part.name}] {text}", file=sys.stderr, flush=True)

    async def _tell(self, registry: Address, door: Address, parts: Sequence[Part]) -> None:
        """The table of what runs where, once it does."""
        link = Link(registry)
        await link.start()
        try:
            await _listening(door)
            say(f"registry {registry} and proxy {door} are up; {self.settings.workers} workers are loading their model")
            query = Query(self.settings.service)

            def ours() -> list[tuple[str, str, str]]:
                pids = {part.process.pid: part.name for part in parts if part.process}
                return sorted(
                    (pids[pid], f"http://{instance.address}/", f"{instance.service}: {', '.join(instance.models)}")
                    for instance in link.query(query)
                    if (pid := instance.meta.get("pid")) in pids
                )

            await link.wait_for(lambda: len(ours()) == self.settings.workers)
            workers = ours()
            others = [("registry", str(registry), ""), ("proxy", f"http://{door}/", f"mode {self.settings.mode}")]
            print(ready_text(workers, others, door, self.settings.mode), flush=True)
        finally:
            await link.close()

    async def _drain(self, parts: Sequence[Part]) -> None:
        """Proxy first, so that all it forwards is still answered; then the workers, together; the registry last."""
        running = [part for part in parts if part.process and part.process.returncode is None]
        if running:
            say("stopping: finishing what is in flight")
        by_role = {role: [p for p in running if p.command[0] == role] for role in ("proxy", "worker", "registry")}
        for group in by_role.values():
            await asyncio.gather(*(self._end(part) for part in group))

    async def _end(self, part: Part) -> None:
        process = part.process
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.settings.drain_seconds + 45):
                await process.wait()
        except TimeoutError:
            say(f"{part.name} does not end: it is killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def ready_text(
    workers: Sequence[tuple[str, str, str]], others: Sequence[tuple[str, str, str]], door: Address, mode: str
) -> str:
    """The table, and lines to copy."""
    table = "\n".join(f"  {name:10} {where:28} {what}".rstrip() for name, where, what in (*others, *workers))
    lines = [f"curl -F data=@daisy.jpg http://{door}/"] if mode in ("auto", "forward") else []
    if mode in ("auto", "address"):
        lines.append(f"curl -F data=@daisy.jpg http://$(curl -s http://{door}/)/")
        lines.append(f"fairway classify photos/ --url http://{door}")
    if mode in ("auto", "redirect"):
        lines.append(f"curl -L -F data=@daisy.jpg http://{door}/-/direct/")
    copy = "\n".join("  " + line for line in lines)
    return f"\nReady.\n{table}\n\nTry it with a photo of yours:\n{copy}\n\nCtrl-C ends it all."


def say(text: str) -> None:
    print(f"[launch] {text}", file=sys.stderr, flush=True)


def _check_free(part: str, address: Address) -> None:
    """A port that is taken is known before anything is started, let alone mistaken for ours."""
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise ConfigurationError(
                f"{part}: the {part} cannot listen on {address}: {error.strerror}; does another cluster run?"
            ) from error


async def _listening(address: Address) -> None:
    """Until it accepts connections; a part that never does ends by itself, or is reported by its keeper."""
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return


def launch(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway launch",
        description="Runs a whole cluster on this machine: a registry, a proxy and N workers.",
        epilog="Options after -- go to every worker: fairway launch --model my.pb -- --input-mean 127.5 --input-std 127.5",
    )
    add_options(parser, LaunchSettings)
    line = list(arguments)
    at = line.index("--") if "--" in line else len(line)
    given = parser.parse_args(line[:at])

    async def main(stop: asyncio.Event) -> None:
        await Launch(read_options(LaunchSettings, given), for_workers=line[at + 1 :]).run(stop)

    return run(main, verbose=False)
