"""Real ZooKeeper servers from Debian's jars: alone or several, killed and started again with their data."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fairway.registry.ports import free_port

from .engines import Engine

JAR = Path("/usr/share/java/zookeeper.jar")  # Debian's names all it needs in its manifest
MORE = ("netty-codec", "netty-resolver", "netty-transport-native-unix-common")  # and these too, for TLS
READY_SECONDS = 60.0

CONFIGURATION = """\
tickTime=500
initLimit=20
syncLimit=10
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=*
maxClientCnxns=0
"""


class Server:
    """One ZooKeeper process. `more`: lines of its configuration; `flags`: Java's."""

    def __init__(self, folder: Path, number: int = 0, more: str = "", flags: Sequence[str] = ()) -> None:
        self.folder, self.number, self.more, self.flags = folder, number, more, flags
        self.port = free_port()
        self.data = folder / f"data{number}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.data.mkdir(exist_ok=True)
        (self.data / "myid").write_text(f"{self.number}\n")
        configuration = self.folder / f"{self.number}.cfg"
        configuration.write_text(CONFIGURATION.format(data=self.data, port=self.port) + self.more)
        jars = [JAR, *(JAR.with_name(f"{name}.jar") for name in MORE)]
        with open(self.folder / f"{self.number}.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *("java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                    "-Dzookeeper.preAllocSize=1024",
                    "-Dzookeeper.forceSync=no",  # its process dies in these tests, never the machine
                    *self.flags,
                    *("-cp", ":".join(map(str, jars))),
                    *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(configuration)),
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
        """Once it serves, alone or as a member."""
        async with asyncio.timeout(READY_SECONDS):
            while "Mode: " not in await asyncio.to_thread(self.command, "srvr"):
                assert self.process is not None
                if self.process.poll() is not None:
                    raise AssertionError((self.folder / f"{self.number}.log").read_text("utf-8", "replace")[-4000:])
                await asyncio.sleep(0.05)

    def command(self, word: str) -> str:
        """What it answers to a four letter word; nothing if it is not there."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.sendall(word.encode())
            said = b""
            while part := connection.recv(65536):
                said += part
            return said.decode("utf-8", "replace")
        return ""


class Ensemble:
    """`size` servers on free ports, their data in a folder that is removed at the end."""

    def __init__(self, size: int = 1, more: str = "", flags: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fairway-zookeeper-"))
        if size > 1:
            lines = [f"server.{number}=127.0.0.1:{free_port()}:{free_port()}\n" for number in range(1, size + 1)]
            more += "".join(lines)
        self.servers = [Server(self.folder, number, more, flags) for number in range(1, size + 1)]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    async def start(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            await server.ready()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@asynccontextmanager
async def running_ensemble(size: int = 1, more: str = "", flags: Sequence[str] = ()) -> AsyncIterator[Ensemble]:
    ensemble = Ensemble(size, more, flags)
    try:
        await ensemble.start()
        yield ensemble
    finally:
        ensemble.stop()


def zookeeper_missing() -> str | None:
    if importlib.util.find_spec("kazoo") is None:
        return "there is no kazoo here (pip install 'fairway[zookeeper]')"
    if not shutil.which("java") or not JAR.exists():
        return "there is no ZooKeeper here (Debian: apt install zookeeper)"
    return None


class ZooKeeperEngine(Engine):
    """One server. Several are the subject of tests/registry/test_zookeeper.py."""

    name = "zookeeper"

    @classmethod
    def missing(cls) -> str | None:
        return zookeeper_missing()

    async def start(self) -> None:
        self._ensemble = Ensemble()
        await self._ensemble.start()
        self.url = f"zookeeper://{self._ensemble.hosts}/conformance/registry"

    async def stop(self) -> None:
        self._ensemble.stop()

    async def kill(self) -> None:
        self._ensemble.servers[0].kill()

    async def restart(self) -> None:
        await self._ensemble.start()
