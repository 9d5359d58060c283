"""The engine `consul://`, tried against a registry of ours, which speaks Consul's API: a process on its own port."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fairway.registry.ports import free_port

from .engines import Engine

START_SECONDS = 30.0


class ConsulEngine(Engine):
    """Started, killed and started again on one port, with one directory."""

    name = "consul"

    def __init__(self, *options: str) -> None:
        """`options` more for the registry."""
        self.options = options
        self.port = free_port()
        self.url = f"consul://127.0.0.1:{self.port}"
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-consul-"))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = await asyncio.to_thread(self._run)
        async with asyncio.timeout(START_SECONDS):
            while not await self._listens():
                if self._process.poll() is not None:
                    raise RuntimeError(f"the registry did not start:\n{self._said()}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """For good."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, START_SECONDS)
            except subprocess.TimeoutExpired:
                await self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def kill(self) -> None:
        """As a power cut does."""
        if self._process:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def restart(self) -> None:
        """After `kill`: the same port, the same directory."""
        await self.kill()
        await self.start()

    def _run(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fairway", "registry", "--port", str(self.port), "--no-dns"]
        command += ["--store", f"embedded:{self._folder / 'data'}", "--allow", "0.0.0.0/0,::/0", "--no-dial-back"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen([*command, *self.options], stdout=log, stderr=log, env=environment)

    def _said(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")[-4000:]

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True
