"""What a server says of itself, asked once before anything is measured."""

from __future__ import annotations

import json
from typing import Any, Self

import aiohttp

from ...registry import lookup
from ...registry.errors import WireError
from ...worker.errors import ConfigurationError
from ..config import Via
from ..courier import reason
from .config import EvaluateSettings

ASK_SECONDS = 10.0


class Inquiry:
    """Questions to a server, or, through a proxy that hands out addresses, to one of its workers. `base`: whom."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self._via = settings.via
        self._headers = {"Accept": "application/json"}
        if settings.service:
            self._headers["X-Fairway-Service"] = settings.service
        self._session: aiohttp.ClientSession | None = None
        self.base = ""
        self.behind_proxy = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ASK_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def manner(self, base: str) -> Via:
        """How to reach who is behind `base`, and whom to ask about models. Raises ConfigurationError if nobody answers."""
        self.base = base
        status, location, body = await self._get(f"{base}/", follow=False)
        try:
            found = lookup.decode(body)
        except WireError:
            found = None
        self.behind_proxy = found is not None or status in (307, 503)
        if found is not None and found.instances:
            self.base = f"http://{found.instances[0].address}"
        elif status == 307 and location:
            self.base = location.rstrip("/")
        if self._via != "auto":
            return self._via
        return "address" if found is not None else "redirect" if status == 307 else "forward"

    async def json(self, path: str) -> dict[str, Any] | None:
        """None if it answers something else."""
        status, _, body = await self._get(f"{self.base}/{path}")
        try:
            found = json.loads(body) if status == 200 else None
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    async def _get(self, url: str, follow: bool = True) -> tuple[int, str, bytes]:
        assert self._session is not None
        try:
            async with self._session.get(url, headers=self._headers, allow_redirects=follow) as response:
                return response.status, response.headers.get("Location", ""), await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = reason(error) or f"no answer within {ASK_SECONDS:g} s"
            raise ConfigurationError(f"nobody can be asked at {url}: {why}") from error
