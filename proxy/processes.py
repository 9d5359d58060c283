"""Several processes on one port: each is a whole proxy, and the kernel shares the connections out among them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Sequence

from ..registry.errors import ConfigurationError
from ..registry.process import EXIT_CONFIGURATION, EXIT_USAGE, SUPERVISED
from .config import ProxySettings

log = logging.getLogger("fairway.proxy")

SIBLINGS = "FAIRWAY_PROXY_SIBLINGS"  # folder and number of one of several, as FOLDER:NUMBER
RESTART_SECONDS = 1.0


class Processes:
    """`await run(stop)`: starts them, replaces those that crash, and ends them in good order."""

    def __init__(self, settings: ProxySettings, arguments: Sequence[str]) -> None:
        """`arguments`: of the command line, which each of them gets."""
        if settings.host.startswith("unix:") or not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("--processes needs a TCP port, on a platform whose kernel shares ports out")
        self._settings, self._arguments = settings, list(arguments)
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, stop: asyncio.Event) -> None:
        settings = self._settings
        # Held, but not listened on: the port stays ours while they come and go, and 0 becomes a number.
        with (
            _held(settings.host, settings.port) as held,
            tempfile.TemporaryDirectory(prefix="fairway-proxy-") as folder,
        ):
            command = [sys.executable, "-m", "fairway", "proxy", *self._arguments, f"--port={held.getsockname()[1]}"]
            keepers = [asyncio.create_task(self._keep(i, command, folder)) for i in range(settings.processes)]
            stopped = asyncio.create_task(stop.wait())
            try:
                done, _ = await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stopped, *keepers):
                    task.cancel()
                await asyncio.gather(stopped, *keepers, return_exceptions=True)
                for process in self._running.values():
                    process.terminate()
                await asyncio.gather(*(process.wait() for process in self._running.values()))
        for task in done - {stopped}:
            task.result()

    async def _keep(self, number: int, command: Sequence[str], folder: str) -> None:
        """One of them, again and again. Ends with ConfigurationError when no restart would cure it."""
        while True:
            process = self._running[number] = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,  # its end tells them that we are gone
                env={**os.environ, SUPERVISED: "1", SIBLINGS: f"{folder}:{number}"},
                start_new_session=True,  # Ctrl-C is for us alone
            )
            status = await process.wait()
            del self._running[number]
            if status in (EXIT_CONFIGURATION, EXIT_USAGE):
                raise ConfigurationError("one of the processes said that it cannot start like this")
            log.warning("process %d ended with status %d; starting it again", number + 1, status)
            await asyncio.sleep(RESTART_SECONDS)


def _held(host: str, port: int) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    held = socket.socket(family)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(where)
    except OSError as error:
        held.close()
        raise ConfigurationError(f"the proxy cannot listen on {host}:{port}: {error.strerror}") from error
    return held
