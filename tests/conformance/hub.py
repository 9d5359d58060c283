"""A real `fairway registry`, in a process of its own, with its state on disk."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile

from fairway.registry.ports import free_port

from ..cluster.processes import FAIRWAY, Running
from .engines import Engine


class HubEngine(Engine):
    name = "hub"
    durable = False  # those are registered over HTTP
    takeover = False  # only its owner changes an entry

    async def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="fairway-hub-")
        self._port = free_port()
        self.url = f"127.0.0.1:{self._port}"
        await self.restart()

    async def stop(self) -> None:
        self._process.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def kill(self) -> None:
        self._process.send(signal.SIGKILL)
        await asyncio.to_thread(self._process.ended)
        self._process.__exit__(None, None, None)

    async def restart(self) -> None:
        # The instances of this suite are names only: nobody listens at their addresses.
        where = ("--port", str(self._port), "--store", f"embedded:{self._folder}", "--no-dial-back")
        self._process = Running((*FAIRWAY, "registry", *where))
        await asyncio.to_thread(self._process.line, "registry listening on")
