"""HTTP: Consul's API, what Prometheus reads, and whether we live. One application, mounted on the rows' port.

    /v1/agent /v1/catalog /v1/health /v1/status    the subset of Consul's that `lookups` and `registrations` list
    GET /v1/sd/prometheus[?service=NAME]           Prometheus' HTTP service discovery
    GET /metrics, GET /healthz

A token is shown as `X-Consul-Token`, as `Authorization: Bearer`, or, as old clients do, as `?token=`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from .. import prometheus
from ..errors import RegistryError
from ..rights import Rights
from .lookups import Lookups
from .registrations import MAX_BODY, RIGHTS, Registrations

if TYPE_CHECKING:
    from ..server import Hub

log = logging.getLogger("fairway.registry")

TOKEN = "X-Consul-Token"
OPEN = ("/healthz", "/v1/status/leader", "/v1/status/peers")  # who cannot ask whether we live asks nothing else
SUPPORTED = (
    "this registry answers the part of Consul's API that discovery needs: "
    "PUT /v1/agent/service/{register,deregister/ID,maintenance/ID}, "
    "PUT /v1/agent/check/{register,deregister/ID,pass/ID,warn/ID,fail/ID,update/ID}, "
    "GET /v1/agent/{services,service/ID,checks,health/service/name/NAME,health/service/id/ID,self,members}, "
    "GET /v1/catalog/services, /v1/catalog/{service/NAME,nodes,node/NODE,datacenters}, "
    "GET /v1/health/service/NAME, /v1/health/{checks/NAME,state/STATE,node/NODE}, GET /v1/status/{leader,peers}; "
    "GET /v1/sd/prometheus, /metrics and /healthz; and seaport rows on the same port"
)


def http_app(hub: Hub) -> web.Application:
    """Wants a runner with handler_cancellation: a query that waits ends with its connection."""
    return HttpFace(hub).app


class HttpFace:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.lookups = Lookups(hub)
        self.app = web.Application(middlewares=[self._around], client_max_size=MAX_BODY)
        self.app.add_routes([*self.lookups.routes(), *Registrations(hub).routes()])
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/v1/sd/prometheus", self._prometheus)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        catalog = self._hub.catalog
        instances = catalog.instances()
        counters = {**self._hub.counters, "suspects": sum(instance.suspect for instance in instances)}
        counters["peers"] = len(self._hub.peers)
        counters["watchers"] = self._hub.waiting
        counters["dns_queries"] = sum(self._hub.dns.counters.values()) if self._hub.dns else 0
        body = prometheus.metrics(instances, catalog.index_of(), counters)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: prometheus.CONTENT_TYPE})

    async def _prometheus(self, request: web.Request) -> web.Response:
        if self._hub.catalog.uncertain:
            return _error(503, "the list may be incomplete, as the registry has just begun; keep the one you have")
        body = prometheus.targets(self._hub.catalog.instances(request.query.get("service")))
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._hub.counters["http_requests"] += 1
        rights = request[RIGHTS] = self._hub.rights(token_of(request))
        try:
            if request.method in ("GET", "HEAD") and request.path not in OPEN and not rights.may_read:
                return _may_not_read(rights)
            return await handler(request)
        except RegistryError as error:
            return web.Response(status=error.status, text=str(error))
        except web.HTTPException as error:
            if request.match_info.http_exception is error:
                return _unsupported(request, error)
            response = web.Response(status=error.status, text=error.text)
            if error.status in (408, 413):
                response.force_close()  # the rest of the body may still come
            return response
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            raise  # the client is gone; nobody is left to answer
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return _error(500, "the registry failed; its log says why")


def token_of(request: web.Request) -> str:
    token = request.headers.get(TOKEN)
    if token is None and (said := request.headers.get(hdrs.AUTHORIZATION, "")):
        scheme, _, token = said.partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else None
    if token is None and request.query_string:
        token = request.query.get("token")
    return token or ""


def _may_not_read(rights: Rights) -> web.Response:
    return web.Response(status=403, text=f"Permission denied: {rights.principal} may not read")


def _unsupported(request: web.Request, error: web.HTTPException) -> web.Response:
    allow = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else None
    return _error(error.status, f"{request.method} {request.path}: {error.reason}; {SUPPORTED}", allow)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps({"error": text}).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
