"""Real etcd clusters: members started, stopped, killed and started again with their data, each a process of ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairway.registry.ports import free_port

from .engines import Engine

READY_SECONDS = 60.0


class Member:
    """One etcd process, and where it is."""

    def __init__(self, name: str, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        self.name, self.folder, self.tls = name, folder, tls
        self.port, self.peer_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def start(self, members: Sequence[Member]) -> None:
        tls = ("--cert-file", str(self.tls[0]), "--key-file", str(self.tls[1])) if self.tls else ()
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *("etcd", "--name", self.name, "--data-dir", str(self.folder / self.name)),
                    *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
                    *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
                    *("--initial-cluster", ",".join(f"{member.name}={member.peer_url}" for member in members)),
                    *tls,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def ready(self) -> None:
        """Once it says that it is healthy: it has a leader then."""
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(self._healthy):
                assert self.process is not None
                if self.process.poll() is not None:
                    raise AssertionError((self.folder / f"{self.name}.log").read_text("utf-8", "replace")[-4000:])
                await asyncio.sleep(0.05)

    def _healthy(self) -> bool:
        context = ssl._create_unverified_context() if self.tls else None
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2, context=context) as answer:
                return bool(json.load(answer)["health"] == "true")
        except (OSError, ValueError):
            return False

    def call(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """A question past our own client. Raises urllib's HTTPError."""
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(body).encode())
        if token:
            request.add_header("Authorization", token)
        with urllib.request.urlopen(request, timeout=10) as answer:
            said: dict[str, Any] = json.load(answer)
            return said


class Cluster:
    """`size` members on free ports, their data in a folder that is removed at the end."""

    def __init__(self, size: int, tls: tuple[Path, Path] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fairway-etcd-"))
        self.members = [Member(f"m{number}", self.folder, tls) for number in range(size)]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    async def start(self) -> None:
        for member in self.members:
            member.start(self.members)
        for member in self.members:
            await member.ready()

    def stop(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@asynccontextmanager
async def running_cluster(size: int = 1, tls: tuple[Path, Path] | None = None) -> AsyncIterator[Cluster]:
    """`tls`: certificate and key that the members show their clients."""
    cluster = Cluster(size, tls)
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.stop()


def etcd_missing() -> str | None:
    return None if shutil.which("etcd") else "there is no etcd here (Debian: apt install etcd-server)"


class EtcdEngine(Engine):
    """One member. Several are the subject of tests/registry/test_etcd.py."""

    name = "etcd"

    @classmethod
    def missing(cls) -> str | None:
        return etcd_missing()

    async def start(self) -> None:
        self._cluster = Cluster(1)
        await self._cluster.start()
        self.url = f"etcd://{self._cluster.hosts}/conformance"

    async def stop(self) -> None:
        self._cluster.stop()

    async def kill(self) -> None:
        self._cluster.members[0].kill()

    async def restart(self) -> None:
        await self._cluster.start()
