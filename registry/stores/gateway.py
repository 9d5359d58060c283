"""etcd's v3 JSON gateway: calls to whichever member answers, streams from one of them, a login that renews itself.

Format: etcd.io, "gRPC gateway"; measured on 3.4. All is POST under /v3/; an error is an object with gRPC's code, also
within a stream, where the HTTP status was said long before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp

from ..errors import StoreUnavailable
from ..instance import Address

log = logging.getLogger("fairway.registry.etcd")

CALL_SECONDS = (
    2.0  # a member that is stopped or cut off costs this much of a write's five seconds, then the next is asked
)
MAX_LINE = 64 * 1024 * 1024  # bytes; of a stream: far above what etcd sends at once
# gRPC's codes for what may well succeed elsewhere, or later: cancelled, unknown, deadline exceeded, resource exhausted,
# aborted, internal, unavailable, data loss.
PASSING_CODES = {1, 2, 4, 8, 10, 13, 14, 15}
NOT_FOUND, PRECONDITION, OUT_OF_RANGE, UNAUTHENTICATED = 5, 9, 11, 16
# Of code 3, and yet a question of who we are: nobody was named, or rights were changed after the token was made.
LOGIN_MESSAGES = ("user name is empty", "revision of auth store is old")

Answer = dict[str, Any]  # or a part of one, or of a question


class EtcdError(Exception):
    """etcd answers, and refuses: `code` is gRPC's. It leaves the engine only translated."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message.removeprefix("etcdserver: "))
        self.code = code

    @property
    def lease_gone(self) -> bool:
        return self.code == NOT_FOUND and "lease" in str(self)

    @property
    def compacted(self) -> bool:
        return self.code == OUT_OF_RANGE

    @property
    def login(self) -> bool:
        return self.code == UNAUTHENTICATED or any(words in str(self) for words in LOGIN_MESSAGES)


class Gateway:
    """`endpoints`: members of one cluster. Of several, the one that answered last is asked first."""

    def __init__(
        self, endpoints: Sequence[Address], user: str = "", password: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        self.endpoints = list(endpoints)
        self._user, self._password, self._tls = user, password, tls
        self._turn = 0
        self._token: str | None = None  # "": none is wanted there
        self._logging_in = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        # Watches are held open for ever, one connection each: there is no limit on their number.
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls or False, socket_factory=_watched_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS),
        )

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def call(
        self, path: str, body: Mapping[str, Any], at: Address | None = None, seconds: float = CALL_SECONDS
    ) -> Answer:
        """What etcd answers: from `at`, or from the first member that does within `seconds`.

        What is called must bear being done twice: a member whose answer was lost may have done it.
        Raises StoreUnavailable when none answers, EtcdError for a refusal.
        """
        data = json.dumps(body).encode()
        failures = []
        for _ in range(1 if at else len(self.endpoints)):
            endpoint = at or self.endpoints[self._turn % len(self.endpoints)]
            try:
                return await self._ask(endpoint, path, data, seconds)
            except StoreUnavailable as error:
                failures.append(str(error))
                if endpoint is self.endpoints[self._turn % len(self.endpoints)]:  # nobody else moved on meanwhile
                    self._turn += 1
        raise StoreUnavailable("; ".join(failures))

    async def stream(self, at: Address, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Answer, None]:
        """Its `result` objects, as they come. Raises StoreUnavailable when it breaks or ends, EtcdError for a refusal."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                response = await self._post(at, path, json.dumps(body).encode(), await self._login(at))
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"{at}: {_words(error)}") from error
        try:
            if response.status != 200:
                raise _failure(at, response.status, await response.read())
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")  # an object may come in many pieces, and many in one
                if len(rest) > MAX_LINE:
                    raise StoreUnavailable(f"{at}: a line of more than {MAX_LINE} bytes")
                for line in lines:
                    if line.strip():
                        yield _result(at, line)
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"{at}: {_words(error)}") from error
        finally:
            response.close()
        raise StoreUnavailable(f"{at} ended the stream")

    def forget_login(self) -> None:
        """The next call asks for a new one."""
        self._token = None

    # -- one member ------------------------------------------------------------------------------------------------

    async def _ask(self, at: Address, path: str, data: bytes, seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                token = await self._login(at)
                try:
                    return await self._answer(at, path, data, token)
                except EtcdError as error:
                    if not (self._user and error.login):
                        raise
                    if self._token == token:  # nobody renewed it meanwhile
                        self._token = None
                    return await self._answer(at, path, data, await self._login(at))
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            raise StoreUnavailable(f"{at}: {_words(error)}") from error

    async def _login(self, at: Address) -> str:
        if not self._user:
            return ""
        async with self._logging_in:
            if self._token is None:
                body = {"name": self._user, "password": self._password}
                try:
                    self._token = str((await self._answer(at, "auth/authenticate", json.dumps(body).encode()))["token"])
                except EtcdError as error:
                    if error.code != PRECONDITION:
                        raise
                    log.warning("etcd at %s asks nobody who they are: it has authentication disabled", at)
                    self._token = ""
            return self._token

    async def _answer(self, at: Address, path: str, data: bytes, token: str = "") -> Answer:
        try:
            response = await self._post(at, path, data, token)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            response = await self._post(at, path, data, token)  # a kept connection that had ended unnoticed
        async with response:
            said = await response.read()
            if response.status != 200:
                raise _failure(at, response.status, said)
            return _object(at, said)

    async def _post(self, at: Address, path: str, data: bytes, token: str) -> aiohttp.ClientResponse:
        if self._session is None:
            raise StoreUnavailable("not started")
        headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
        url = f"{'https' if self._tls else 'http'}://{at}/v3/{path}"
        return await self._session.post(url, data=data, headers=headers, allow_redirects=False)


def _result(at: Address, line: bytes) -> Answer:
    said = _object(at, line)
    if "error" in said:
        error = said["error"] if isinstance(said["error"], dict) else {"message": said["error"]}
        raise _refusal(at, error.get("grpc_code", error.get("code", said.get("code"))), str(error.get("message")))
    result = said.get("result")
    if not isinstance(result, dict):
        raise StoreUnavailable(f"{at}: {line[:80]!r} is not what etcd says in a stream")
    return result


def _failure(at: Address, status: int, said: bytes) -> Exception:
    try:
        answer = _object(at, said)
    except StoreUnavailable:
        answer = {}
    if "code" not in answer:
        return StoreUnavailable(f"{at} answers {status}, which is not etcd's v3 API: {said[:80]!r}")
    return _refusal(at, answer["code"], str(answer.get("message") or answer.get("error")))


def _refusal(at: Address, code: object, message: str) -> Exception:
    if not isinstance(code, int) or code in PASSING_CODES:
        return StoreUnavailable(f"{at}: {message}")
    return EtcdError(code, message)


def _object(at: Address, said: bytes) -> Answer:
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise StoreUnavailable(f"{at}: {said[:80]!r} is not what etcd says")
    return answer


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _watched_socket(address: tuple[Any, ...]) -> socket.socket:
    """A watch only listens: without probes of the kernel's it would never learn that the other end is gone."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
