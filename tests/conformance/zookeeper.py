"""Real ZooKeeper servers from Debian's jars: alone or several, killed and started again with their data."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fairway.registry.ports import free_port

from .engines import Engine
from .process import ServerProcess, Servers

JAR = Path("/usr/share/java/zookeeper.jar")  # Debian's names all it needs in its manifest
MORE = ("netty-codec", "netty-resolver", "netty-transport-native-unix-common")  # and these too, for TLS

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


class Server(ServerProcess):
    """One ZooKeeper process. `more`: lines of its configuration; `flags`: Java's."""

    def __init__(self, folder: Path, number: int = 0, more: str = "", flags: Sequence[str] = ()) -> None:
        super().__init__(str(number), folder)
        self.number, self.more, self.flags = number, more, flags
        self.data = folder / f"data{number}"

    def start(self) -> None:
        self.data.mkdir(exist_ok=True)
        (self.data / "myid").write_text(f"{self.number}\n")
        configuration = self.folder / f"{self.number}.cfg"
        configuration.write_text(CONFIGURATION.format(data=self.data, port=self.port) + self.more)
        jars = [JAR, *(JAR.with_name(f"{name}.jar") for name in MORE)]
        self.run(
            *("java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            "-Dzookeeper.preAllocSize=1024",
            "-Dzookeeper.forceSync=no",  # its process dies in these tests, never the machine
            *self.flags,
            *("-cp", ":".join(map(str, jars))),
            *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(configuration)),
        )

    def answers(self) -> bool:
        """Whether it serves, alone or as a member."""
        return "Mode: " in self.command("srvr")

    def command(self, word: str) -> str:
        """What it answers to a four letter word; nothing if it is not there."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.sendall(word.encode())
            said = b""
            while part := connection.recv(65536):
                said += part
            return said.decode("utf-8", "replace")
        return ""


class Ensemble(Servers[Server]):
    """`size` servers on free ports. `more`: lines of their configuration; `flags`: Java's."""

    def __init__(self, size: int = 1, more: str = "", flags: Sequence[str] = ()) -> None:
        super().__init__("zookeeper")
        if size > 1:
            lines = [f"server.{number}=127.0.0.1:{free_port()}:{free_port()}\n" for number in range(1, size + 1)]
            more += "".join(lines)
        self.servers = [Server(self.folder, number, more, flags) for number in range(1, size + 1)]

    def launch(self, server: Server) -> None:
        server.start()


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
