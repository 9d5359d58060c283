"""Foreign servers under test: each a process of ours, started, stopped, killed and started again with its data."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from fairway.registry.ports import free_port

READY_SECONDS = 60.0


class ServerProcess(ABC):
    """One server, on a free port of 127.0.0.1, and what it says: `folder/name.log`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves by now. May block for a few seconds; called in a thread."""

    def run(self, *command: str) -> None:
        """Starts it, in a session of its own: a Ctrl-C is meant for the tests."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """At once, without a word; if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def ready(self) -> None:
        """Returns once it answers. AssertionError with its last words if it ended instead."""
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(self.answers):
                assert self.process is not None
                if self.process.poll() is not None:
                    raise AssertionError(self.log.read_text("utf-8", "replace")[-4000:])
                await asyncio.sleep(0.05)


AnyServer = TypeVar("AnyServer", bound=ServerProcess)


class Servers(ABC, Generic[AnyServer]):
    """Several that know each other, or one; their data lies in `folder`, which is removed at the end."""

    servers: list[AnyServer]

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"fairway-{name}-"))

    @abstractmethod
    def launch(self, server: AnyServer) -> None:
        """Starts its process."""

    @property
    def hosts(self) -> str:
        """As an engine's URL names them."""
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    async def start(self) -> None:
        """Returns when all of them answer."""
        for server in self.servers:
            self.launch(server)
        for server in self.servers:
            await server.ready()

    def stop(self) -> None:
        """For good: no process and no file of them is left."""
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
