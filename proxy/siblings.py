"""The processes that share one port tell each other what they counted: whoever is asked answers for all of them.

Each listens on a socket in a folder that the supervisor made for this user alone, and answers every connection with JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from .metrics import Snapshot, merge
from .standing import View
from .standing import merge as merge_views

ANSWER_SECONDS = 1.0  # a sibling that is busy for longer is left out this time

Own = Callable[[], tuple[Snapshot, View]]


class Siblings:
    """`own`: what this process counted. `folder`: None for one that is alone."""

    def __init__(self, own: Own, folder: Path | None = None, name: str = "0") -> None:
        self._own, self._folder = own, folder
        self._path = folder / f"{name}.sock" if folder else None

    async def start(self) -> None:
        if self._path:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._tell, self._path)

    async def close(self) -> None:
        if self._path:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def all(self) -> tuple[Snapshot, View]:
        """Of all processes together."""
        snapshot, view = self._own()
        if self._folder is None:
            return snapshot, view
        others = [path for path in sorted(self._folder.glob("*.sock")) if path != self._path]
        told = [one for one in await asyncio.gather(*map(_ask, others)) if one is not None]
        return merge([snapshot, *(one[0] for one in told)]), merge_views([view, *(one[1] for one in told)])

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(self._own()).encode())
            await writer.drain()
        except ConnectionError:
            pass  # it did not wait
        finally:
            writer.close()


async def _ask(path: Path) -> tuple[Snapshot, View] | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                snapshot, view = json.loads(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None  # it has ended, or is ending
    return snapshot, view
