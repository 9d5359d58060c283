"""The door itself: one listening port, requests told apart by their route, every error as JSON."""

from __future__ import annotations

import asyncio
import json
import logging

from aiohttp import hdrs, web

from ..client.resolver import Resolver
from ..registry.errors import ConfigurationError
from ..registry.instance import Address
from ..registry.lookup import AT_MOST, Lookup, rows
from . import address
from .config import ProxySettings
from .errors import MethodNotAllowed, ProxyError
from .forward import Forwarder, check_length, no_worker
from .head import check_framing
from .route import Route, route

log = logging.getLogger("fairway.proxy")

SERVICE_HEADER = "X-Fairway-Service"
IDLE_SECONDS = 75.0  # a client's connection between two requests


class Proxy:
    """`await start()`, then `port` is bound. `await close()` finishes what is in flight."""

    def __init__(self, settings: ProxySettings, resolver: Resolver) -> None:
        self.settings, self.resolver = settings, resolver
        self.in_flight = 0
        self.draining = False
        self._forwarder = Forwarder(settings, resolver)
        self._server = web.Server(
            self._handle,
            handler_cancellation=True,
            keepalive_timeout=IDLE_SECONDS,
            auto_decompress=False,
            access_log=None,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=1)
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        await self.resolver.start()
        await self._forwarder.start()
        await self._runner.setup()
        host, port = self.settings.host, self.settings.port
        try:
            self._site = web.TCPSite(self._runner, host, port, backlog=1024)
            await self._site.start()
        except OSError as error:
            await self.close()
            raise ConfigurationError(f"the proxy cannot listen on {host}:{port}: {error.strerror}") from error
        log.info("proxy listening on http://%s:%d/ (%s)", host, self.port, self.settings.mode)

    @property
    def port(self) -> int:
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Readiness first, then no new connections, then the requests in flight get their time."""
        self.draining = self._forwarder.draining = True
        if self._runner.sites:
            await self._site.stop()
        log.info("draining: %d requests in flight", self.in_flight)
        # Waited for here, not by aiohttp: from its own shutdown on it drops what still arrives of an upload.
        try:
            async with asyncio.timeout(self.settings.finish_seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests were not finished in %g s", self.in_flight, self.settings.finish_seconds)
        await self._runner.cleanup()
        await self._forwarder.close()
        await self.resolver.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.in_flight += 1
        self._idle.clear()
        try:
            response = await self._dispatch(request)
        except ProxyError as error:
            response = self._error(error)
            if request.can_read_body:
                # The body was not, or not wholly, read: what follows on this connection cannot be told from a request.
                response.force_close()
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
        if self.draining and not response.prepared:
            response.force_close()
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        check_framing(list(request.headers.items()), (request.version.major, request.version.minor))
        settings = self.settings
        found = route(
            settings.mode,
            request.method,
            request.rel_url.raw_path_qs,
            request.headers.get(SERVICE_HEADER),
            settings.service,
        )
        match found.manner:
            case "forward":
                return await self._forwarder.forward(request, found)
            case "address":
                return address.answer(
                    await self._lookup(found),
                    request.headers.get(hdrs.ACCEPT, ""),
                    request.query.get("format"),
                    settings.address_format,
                )
            case "redirect":
                return await self._redirect(request, found)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method} {found.target}: only GET")
        if found.manner == "workers":
            return web.json_response(self._workers())
        if found.manner == "healthz":
            return web.json_response({"status": "ok"})
        return self._readyz(found)

    async def _lookup(self, found: Route) -> Lookup:
        await self.resolver.available(found.service, self.settings.wait_seconds)
        instances = tuple(self.resolver.some(found.service, AT_MOST))
        if not instances:
            raise no_worker(found, self.resolver)
        return Lookup(found.service, instances, self.settings.address_ttl_seconds)

    async def _redirect(self, request: web.BaseRequest, found: Route) -> web.Response:
        """307: the method and the body go along. With Expect the body has not been sent yet, and goes up only once."""
        check_length(request, self.settings.max_body)
        instance = (await self._lookup(found)).instances[0]
        location = f"http://{instance.address}{found.target}"
        response = web.json_response(
            {"location": location}, status=307, headers={hdrs.LOCATION: location, hdrs.CACHE_CONTROL: "no-store"}
        )
        if request.headers.get(hdrs.EXPECT):
            response.force_close()  # the body may never come: the next request must not be taken for it
        return response

    def _readyz(self, found: Route) -> web.Response:
        ready = not self.draining and self.resolver.has(found.service)
        state = "draining" if self.draining else "ready" if ready else "no worker"
        return web.json_response({"status": state, "service": found.service}, status=200 if ready else 503)

    def _workers(self) -> dict[str, object]:
        now = asyncio.get_running_loop().time()
        services = {
            name: [
                rows([upstream.instance])[0]
                | {
                    "state": upstream.instance.state,
                    "available": upstream.available(now),
                    "in_flight": upstream.in_flight,
                }
                for upstream in pool.upstreams
            ]
            for name, pool in sorted(self.resolver.services().items())
        }
        return {"mode": self.settings.mode, "registry_connected": self.resolver.connected, "services": services}

    def _error(self, error: ProxyError) -> web.Response:
        return web.Response(
            status=error.status,
            text=json.dumps({"error": str(error)}) + "\n",
            content_type="application/json",
            headers=dict(error.headers),
        )

    def __repr__(self) -> str:
        return f"<Proxy {self.settings.mode} [{self.in_flight} in flight | {self.resolver!r}]>"


def resolver_of(settings: ProxySettings) -> Resolver:
    """A fixed list if one is given, else a watch on the registry."""
    static = [Address.parse(text) for text in settings.static]
    return Resolver(None if static else settings.registry, static, settings.service, settings.credentials())
