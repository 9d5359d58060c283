"""Asking Consul: several hosts in turn, and its blocking queries by its rules for clients.

The rules: developer.hashicorp.com/consul/api-docs/features/blocking. An index that goes backwards starts anew from 0; one
below 1 is 1; who loops is limited by a bucket of two tokens, not by a pause; the server may add a sixteenth to the wait.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from ..consul import format_duration
from ..errors import StoreRefused
from ..instance import Address
from .consul_rows import next_index

log = logging.getLogger("fairway.registry.stores.consul")

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 3.0  # an agent answers at once what does not block
WAIT_SECONDS, MARGIN_SECONDS = 10.0, 2.0  # of a blocking query: an agent that hangs is noticed after little more
BURST = 2.0
MOST_COMPLAINTS = 20  # in the log, until all is well


class Away(Exception):
    """Not done, and worth another try: nobody answers, or not now."""


@dataclass(frozen=True)
class Answer:
    """`backwards`: it shows another state of the world than the last one did, from before or after some loss."""

    body: Any
    backwards: bool


class Agents:
    """`open()`, then `ask` and `follow`; all asks go to `host` until it fails, then to the next."""

    def __init__(self, hosts: Sequence[Address], token: str, tls: ssl.SSLContext | None) -> None:
        self.complaint = ""  # the last one
        self._complained: set[str] = set()
        self._hosts = hosts
        self._chosen = 0
        self._token = token
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._indices: dict[str, int] = {}  # the last of each path, over all connections

    @property
    def host(self) -> Address:
        return self._hosts[self._chosen]

    def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            headers={"X-Consul-Token": self._token} if self._token else None,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        seconds: float = ANSWER_SECONDS,
        answers: tuple[int, ...] = (200,),
    ) -> tuple[int, Mapping[str, str], str]:
        """-> status (one of `answers`), headers, text. Raises Away, or StoreRefused for what no other try can cure."""
        chosen, host = self._chosen, self.host
        if self._session is None:
            raise Away("this store is not open")
        url = URL(f"{'https' if self._tls else 'http'}://{host}{path}", encoded=True)
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(method, url, params=query, json=body, timeout=limits) as answer:
                text = await answer.text("utf-8", "replace")
                status, headers = answer.status, answer.headers
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            reason = f"no answer from Consul at {host}: {str(error) or type(error).__name__}"
            self._leave(chosen, reason)
            raise Away(reason) from error
        if status in answers:
            return status, headers, text
        reason = f"Consul at {host} answers {method} {path} with {status}: {text.strip():.200}"
        if status in (408, 425, 429) or status >= 500:
            self._leave(chosen, reason)
            raise Away(reason)
        raise StoreRefused(reason)

    async def follow(self, path: str, per_second: float) -> AsyncIterator[Answer]:
        """One answer now, and one after each change, at most `per_second`. Raises Away or StoreRefused."""
        index, tokens, filled_at = 0, BURST, _now()
        while True:
            now = _now()
            tokens, filled_at = min(BURST, tokens + (now - filled_at) * per_second), now
            if tokens < 1.0:
                await asyncio.sleep((1.0 - tokens) / per_second)
                continue
            tokens -= 1.0
            query = {"index": str(index), "wait": format_duration(WAIT_SECONDS)} if index else {}
            longest = WAIT_SECONDS * 17 / 16 + MARGIN_SECONDS if index else ANSWER_SECONDS
            _, headers, text = await self.ask("GET", path, query, seconds=longest)
            if headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
                self.complain("Consul shows only what our token may see: it wants service:read and node:read of all")
            told = headers.get("X-Consul-Index")
            backwards = next_index(self._indices.get(path, 0), told) == 0
            self._indices[path] = next_index(0, told)
            index = next_index(index, told)
            try:
                body = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise Away(f"{self.host} answers {path} with what is no JSON: {text!r:.80}") from error
            yield Answer(body, backwards)

    def complain(self, reason: str) -> None:
        """Once, not with every attempt."""
        self.complaint = reason
        if reason not in self._complained and len(self._complained) < MOST_COMPLAINTS:
            self._complained.add(reason)
            log.warning("%s", reason)

    def content(self) -> None:
        """All is well: whatever comes next is worth a line in the log."""
        self.complaint = ""
        self._complained.clear()

    def _leave(self, chosen: int, reason: str) -> None:
        """The next host's turn, unless another request has seen to that."""
        self.complain(reason)
        if self._chosen == chosen:
            self._chosen = (chosen + 1) % len(self._hosts)


def _now() -> float:
    return asyncio.get_running_loop().time()
