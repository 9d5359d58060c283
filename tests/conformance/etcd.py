"""Real etcd clusters: members started, stopped, killed and started again with their data, each a process of ours."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairway.registry.ports import free_port

from .engines import Engine
from .process import ServerProcess, Servers


class Member(ServerProcess):
    """One etcd process, and where it is."""

    def __init__(self, name: str, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(name, folder)
        self.tls = tls
        self.peer_port = free_port()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def start(self, members: Sequence[Member]) -> None:
        tls = ("--cert-file", str(self.tls[0]), "--key-file", str(self.tls[1])) if self.tls else ()
        self.run(
            *("etcd", "--name", self.name, "--data-dir", str(self.folder / self.name)),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", ",".join(f"{member.name}={member.peer_url}" for member in members)),
            *tls,
        )

    def answers(self) -> bool:
        """Whether it says that it is healthy: it has a leader then."""
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


class Cluster(Servers[Member]):
    """`size` members on free ports. `tls`: certificate and key that they show their clients."""

    def __init__(self, size: int, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__("etcd")
        self.members = self.servers = [Member(f"m{number}", self.folder, tls) for number in range(size)]

    def launch(self, server: Member) -> None:
        server.start(self.members)


@asynccontextmanager
async def running_cluster(size: int = 1, tls: tuple[Path, Path] | None = None) -> AsyncIterator[Cluster]:
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
