"""What the proxy says itself: addresses, redirects, how it is, and to those who may know it, numbers."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from math import inf

from ..client.resolver import Resolver
from ..client.upstream import Upstream
from ..registry.credentials import read_credentials
from ..registry.instance import is_loopback
from ..registry.lookup import AT_MOST, Format, Lookup
from . import address, workers_page
from .config import ProxySettings
from .errors import Forbidden, MethodNotAllowed, NotFound, Unauthorized
from .forward import no_worker
from .head import RequestHead
from .metrics import CONTENT_TYPE, Snapshot, text
from .reactor import Task
from .reply import Reply
from .route import Route
from .standing import View
from .upload import too_large

REMEMBERED = 4096  # workers' lines
ADMIN = ("workers", "metrics")  # they tell who is behind the door
Seen = Callable[[], Awaitable[tuple[Snapshot, View]]]


class Pages:
    """`reply` to what is not forwarded. `ready`: whether the door is open; `seen`: the counts, of all processes."""

    def __init__(self, settings: ProxySettings, resolver: Resolver, ready: Callable[[], bool], seen: Seen) -> None:
        """Raises ConfigurationError for a token file that is none."""
        self._settings, self._resolver, self._ready, self._seen = settings, resolver, ready, seen
        # The option's name is what the reader makes of the beginning.
        self._token = read_credentials("--admin", settings.admin_token_file, None, None, None).token.encode()
        self._lines: dict[tuple[Upstream, Format, bool], bytes] = {}
        host = settings.host
        self._open = host.startswith("unix:") or is_loopback(host)

    async def reply(self, head: RequestHead, found: Route, task: Task, admin: bool) -> Reply:
        """`admin`: it came by the administrators' own port. Raises ProxyError."""
        if admin and found.manner in ("forward", "address", "redirect"):
            raise NotFound(
                f"{found.target}: at this port there are /-/metrics, /-/workers, /-/healthz and /-/readyz only"
            )
        if found.manner == "address":
            query, accept = found.target.partition("?")[2], head.noted.get(b"accept", b"")
            format = address.wanted(query, accept, self._settings.address_format)
            return address.answer(await self._lookup(head, found, task), format)
        if found.manner == "redirect":
            return await self._redirect(head, found, task)
        if head.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(f"{head.method.decode()} {found.target}: only GET")
        if found.manner in ADMIN:
            self._check(head, found, admin)
            snapshot, view = await asyncio.ensure_future(self._seen())
            if found.manner == "metrics":
                return Reply(200, text(snapshot, view), CONTENT_TYPE)
            format_ = workers_page.wanted(found.target.partition("?")[2], head.noted.get(b"accept", b""))
            return Reply(
                200, workers_page.page(view, format_), workers_page.CONTENT_TYPES[format_], workers_page.HEADERS
            )
        if found.manner == "healthz":
            return Reply(200, b'{"status": "ok"}\n')
        return self._readyz(found)

    def plain_format(self, head: RequestHead, found: Route) -> Format | None:
        """In which form `line` answers the same request again; None: each time is to be looked at."""
        query, accept = found.target.partition("?")[2], head.noted.get(b"accept", b"")
        format = address.wanted(query, accept, self._settings.address_format)
        simple = head.http11 and head.method == b"GET" and not self._resolver.key_header
        simple = simple and not found.model
        return format if simple and format != "json" else None

    def line(self, service: str, format: Format, close: bool) -> bytes | None:
        """The whole answer with the next worker's address; None when there is none at the moment."""
        chosen = self._resolver.choose_now(service)
        if chosen is None:
            return None
        upstream = chosen[1]
        known = self._lines.get((upstream, format, close))
        if known is None:
            reply = address.answer(Lookup(service, (upstream.instance,), self._settings.address_ttl_seconds), format)
            known = reply.encode(b"GET", close, http11=True)
            if len(self._lines) >= REMEMBERED:
                self._lines.clear()
            self._lines[upstream, format, close] = known
        return known

    def _check(self, head: RequestHead, found: Route, admin: bool) -> None:
        """Who may see the numbers. Raises NotFound, Unauthorized, Forbidden."""
        if self._settings.admin_port and not admin:
            raise NotFound(f"{found.target}: it is at the port of --admin-port")
        if self._token:
            given = head.noted.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise Unauthorized(f"{found.target} wants the token of --admin-token-file: Authorization: Bearer TOKEN")
        elif not self._open and not admin:
            raise Forbidden(f"{found.target}: beyond loopback it wants --admin-token-file FILE, or --admin-port PORT")

    async def _lookup(self, head: RequestHead, found: Route, task: Task) -> Lookup:
        resolver = self._resolver
        key = head.value(resolver.key_header) if resolver.key_header else b""
        instances = tuple(resolver.some(found.service, AT_MOST, key, found.model))
        if not instances:
            task.deadline = inf  # this wait has its own end
            wait = self._settings.wait_seconds
            await asyncio.ensure_future(resolver.available(found.service, wait, (), found.model))
            instances = tuple(resolver.some(found.service, AT_MOST, key, found.model))
            if not instances:
                raise no_worker(found, resolver)
        return Lookup(found.service, instances, self._settings.address_ttl_seconds)

    async def _redirect(self, head: RequestHead, found: Route, task: Task) -> Reply:
        """307: the method and the body go along. With Expect the body has not been sent yet, and goes up only once."""
        if (head.length or 0) > self._settings.max_body:
            raise too_large(self._settings.max_body)
        instance = (await self._lookup(head, found, task)).instances[0]
        location = f"http://{instance.address}{found.target}"
        body = json.dumps({"location": location}).encode() + b"\n"
        return Reply(307, body, headers=(("Location", location), *address.NOT_KEPT))

    def _readyz(self, found: Route) -> Reply:
        ready = self._ready() and self._resolver.has(found.service)
        state = "draining" if not self._ready() else "ready" if ready else "no worker"
        body = json.dumps({"status": state, "service": found.service}).encode() + b"\n"
        return Reply(200 if ready else 503, body)
