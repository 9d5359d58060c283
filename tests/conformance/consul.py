"""The engine `consul://`, tried against a registry of ours, which speaks Consul's API: a real process on a port of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from fairway.registry.ports import free_port

START_SECONDS = 30.0


class ConsulEngine:
    """Started, killed and started again on one port, with one directory."""

    name = "consul"
    durable, marks, restarts = True, True, True
    ttl_seconds, settle_seconds = 10.0, 3.0

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-consul-"))
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be tried here; None if it can."""
        return None

    @property
    def url(self) -> str:
        return f"consul://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [sys.executable, "-m", "fairway", "registry", "--port", str(self.port), "--no-dns"]
        command += ["--store", f"embedded:{self._folder / 'data'}", "--allow", "0.0.0.0/0,::/0", "--no-dial-back"]
        with open(self._folder / "log", "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._listens():
                if self._process.returncode is not None:
                    raise RuntimeError(f"the registry did not start:\n{self._said()}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """For good."""
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), START_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def kill(self) -> None:
        """As a power cut does."""
        if self._process:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        """After `kill`: the same port, the same directory."""
        await self.kill()
        await self.start()

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
