"""The reads of Consul's HTTP API: bodies made once per change, and queries that wait for one.

What a reader is told is put together from pieces, one an instance, which are made anew only if the instance, or what its
checks say, has changed. The whole is kept per question, with the index of the service that it shows.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ..changes import Gone
from ..consul.durations import parse_duration
from ..consul.entries import (
    DATACENTER,
    Look,
    agent_entry,
    catalog_entry,
    catalog_services,
    checks,
    health_entry,
    is_status,
    node,
    service,
)
from ..errors import InvalidInstance
from ..instance import Address, Instance, Query

if TYPE_CHECKING:
    from ..server import Hub

MAX_WAITERS = 8192  # queries that wait at once, of everybody
USUAL_WAIT, LONGEST_WAIT = 300.0, 600.0  # seconds; Consul's
MAX_BODIES, MAX_BODY_BYTES = 512, 64 * 1024 * 1024  # kept at once
AT_ONCE = 256 * 1024  # bytes; a longer body is written piece by piece, as fast as its reader reads
STALL_SECONDS = 30.0  # a reader that takes nothing for this long is given up
IGNORED = "near, dc, stale, consistent, cached and pretty are accepted and change nothing"
# Those that would change the answer must not be ignored.
REFUSED = ("filter", "node-meta", "peer", "sg", "hash")
PIECES: dict[str, Callable[[Look, int], object]] = {
    "health": health_entry,
    "catalog": lambda look, index: catalog_entry(look.instance, index),
    "service": lambda look, _: service(look.instance),
    "agent": agent_entry,
    "checks": checks,
}
SEPARATORS = (",", ":")


def encode(body: object) -> bytes:
    return json.dumps(body, separators=SEPARATORS).encode()


class Lookups:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pieces: dict[str, dict[str, tuple[Instance, int, str, bytes]]] = {kind: {} for kind in PIECES}
        self._bodies: dict[object, tuple[int, int, bytes]] = {}
        self._body_bytes = 0
        self._waiting = 0
        hub.subscribe(self._forget)

    def routes(self) -> Iterator[web.RouteDef]:
        for path, handler in {
            "/v1/health/service/{name}": self._health_service,
            "/v1/health/checks/{name}": self._health_checks,
            "/v1/health/state/{state}": self._health_state,
            "/v1/health/node/{node}": self._health_node,
            "/v1/catalog/services": self._catalog_services,
            "/v1/catalog/service/{name}": self._catalog_service,
            "/v1/catalog/nodes": self._catalog_nodes,
            "/v1/catalog/node/{node}": self._catalog_node,
            "/v1/catalog/datacenters": self._datacenters,
            "/v1/agent/services": self._agent_services,
            "/v1/agent/service/{id:.+}": self._agent_service,
            "/v1/agent/checks": self._agent_checks,
            "/v1/agent/health/service/name/{name}": self._agent_health_name,
            "/v1/agent/health/service/id/{id:.+}": self._agent_health_id,
            "/v1/agent/self": self._agent_self,
            "/v1/agent/members": self._agent_members,
            "/v1/status/leader": self._leader,
            "/v1/status/peers": self._peers,
        }.items():
            yield web.get(path, handler)

    def health(self, name: str, passing: bool, tags: Sequence[str]) -> tuple[int, bytes]:
        """/v1/health/service -> index, body. `name` may have a range of versions: NAME@RANGE."""
        query = Query.parse(name)

        def build() -> bytes:
            looks = (self._look(i) for i in self._hub.catalog.instances(query.service) if query.matches(i))
            return self._list("health", (k for k in looks if (not passing or k.passing) and k.has(tags)))

        return self._body(query.service, ("health", name, passing, *tags), build)

    # -- of a service ----------------------------------------------------------------------------------------------

    async def _health_service(self, request: web.Request) -> web.StreamResponse:
        name, query = request.match_info["name"], request.query
        await self._wait(request, name.partition("@")[0])
        passing = query.get("passing", "false").lower() not in ("false", "0", "f")
        return await self._answer(request, *self.health(name, passing, query.getall("tag", ())))

    async def _health_checks(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        await self._wait(request, name)

        def build() -> bytes:
            pieces = (self._piece("checks", self._look(i))[1:-1] for i in self._hub.catalog.instances(name))
            return b"[" + b",".join(pieces) + b"]"

        return await self._answer(request, *self._body(name, ("checks", name), build))

    async def _catalog_service(self, request: web.Request) -> web.StreamResponse:
        name, tags = request.match_info["name"], request.query.getall("tag", ())
        query = Query.parse(name)
        await self._wait(request, query.service)

        def build() -> bytes:
            looks = (self._look(i) for i in self._hub.catalog.instances(query.service) if query.matches(i))
            return self._list("catalog", (look for look in looks if look.has(tags)))

        return await self._answer(request, *self._body(query.service, ("catalog", name, *tags), build))

    # -- of everything ---------------------------------------------------------------------------------------------

    async def _catalog_services(self, request: web.Request) -> web.StreamResponse:
        return await self._everything(request, "services", lambda: catalog_services(self._hub.catalog.services()))

    async def _catalog_nodes(self, request: web.Request) -> web.StreamResponse:
        def build() -> object:
            hosts = {instance.address.host for instance in self._hub.catalog.instances()}
            return [node(host, self._hub.catalog.index_of()) for host in sorted(hosts)]

        return await self._everything(request, "nodes", build)

    async def _catalog_node(self, request: web.Request) -> web.StreamResponse:
        host = request.match_info["node"]

        def build() -> object:
            here = [i for i in self._hub.catalog.instances() if i.address.host == host]
            if not here:
                return None
            return {"Node": node(host, self._hub.catalog.index_of()), "Services": {i.id: service(i) for i in here}}

        return await self._everything(request, ("node", host), build)

    async def _health_state(self, request: web.Request) -> web.StreamResponse:
        state = request.match_info["state"]
        if state not in ("any", "unknown") and not is_status(state):
            raise web.HTTPBadRequest(text=f"{state!r} is not a state: expected any, passing, warning or critical")
        return await self._some_checks(request, ("state", state), lambda c: state in ("any", c["Status"]))

    async def _health_node(self, request: web.Request) -> web.StreamResponse:
        host = request.match_info["node"]
        return await self._some_checks(request, ("checks of", host), lambda c: bool(c["Node"] == host))

    async def _some_checks(
        self, request: web.Request, key: object, wanted: Callable[[dict[str, Any]], bool]
    ) -> web.StreamResponse:
        def build() -> object:
            index = self._hub.catalog.index_of()
            looks = map(self._look, self._hub.catalog.instances())
            return [check for look in looks for check in checks(look, index) if wanted(check)]

        return await self._everything(request, key, build)

    async def _everything(self, request: web.Request, key: object, build: Callable[[], object]) -> web.StreamResponse:
        await self._wait(request, None)
        return await self._answer(request, *self._body(None, key, lambda: encode(build())))

    # -- as an agent -----------------------------------------------------------------------------------------------

    async def _agent_services(self, request: web.Request) -> web.StreamResponse:
        _refuse(request)

        def build() -> bytes:
            looks = [self._look(i) for i in self._hub.catalog.instances()]
            pairs = (encode(k.instance.id) + b":" + self._piece("service", k) for k in looks)
            return b"{" + b",".join(pairs) + b"}"

        return await self._answer(request, *self._body(None, "agent services", build))

    async def _agent_service(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        instance = self._hub.catalog.get(id)
        if instance is None:
            raise web.HTTPNotFound(text=f"unknown service ID: {id}")
        return _json(service(instance))

    async def _agent_checks(self, request: web.Request) -> web.StreamResponse:
        _refuse(request)

        def build() -> bytes:
            looks = map(self._look, self._hub.catalog.instances())
            return encode({check["CheckID"]: check for look in looks for check in checks(look, 1)})

        return await self._answer(request, *self._body(None, "agent checks", build))

    async def _agent_health_name(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        looks = [self._look(instance) for instance in self._hub.catalog.instances(name)]
        if not looks:
            return web.Response(status=404, text=f"ServiceName {name} Not Found")
        return self._judged(request, looks, self._list("agent", looks))

    async def _agent_health_id(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        instance = self._hub.catalog.get(id)
        if instance is None:
            return web.Response(status=404, text=f"ServiceId {id} not found")
        look = self._look(instance)
        return self._judged(request, [look], self._piece("agent", look))

    def _judged(self, request: web.Request, looks: Sequence[Look], body: bytes) -> web.Response:
        """The worst of them decides the status: 200 passing, 429 warning, 503 critical or in maintenance."""
        order = ("passing", "warning", "critical", "maintenance")
        worst = max((str(look.status) for look in looks), key=order.index)
        status = {"passing": 200, "warning": 429}.get(worst, 503)
        if request.query.get("format") == "text":
            return web.Response(status=status, text=worst)
        return web.Response(status=status, body=body, content_type="application/json")

    async def _agent_self(self, _: web.Request) -> web.StreamResponse:
        from ... import __version__

        name = self._hub.settings.host
        config = {"Datacenter": DATACENTER, "NodeName": name, "NodeID": node(name, 1)["ID"], "Server": True}
        config |= {"Version": f"fairway {__version__}", "Revision": ""}
        return _json({"Config": config, "Member": self._member(), "Meta": {}, "Stats": {}})

    async def _agent_members(self, _: web.Request) -> web.StreamResponse:
        return _json([self._member()])

    def _member(self) -> dict[str, Any]:
        host = self._hub.settings.host
        alive = 1
        return {
            "Name": host,
            "Addr": host,
            "Port": self._hub.port,
            "Tags": {"role": "consul", "dc": DATACENTER},
            "Status": alive,
        }

    async def _datacenters(self, _: web.Request) -> web.StreamResponse:
        return _json([DATACENTER])

    async def _leader(self, _: web.Request) -> web.StreamResponse:
        return _json(self._address())

    async def _peers(self, _: web.Request) -> web.StreamResponse:
        return _json([self._address()])

    def _address(self) -> str:
        return str(Address(self._hub.settings.host, self._hub.port))

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _wait(self, request: web.Request, name: str | None) -> None:
        """Consul's blocking query: with `index` until something is newer, or for `wait` and up to a sixteenth of it."""
        if not request.query_string:
            return
        _refuse(request)
        text = request.query.get("index", "") or "0"
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise web.HTTPBadRequest(text=f"index is {text!r:.40}: expected what X-Consul-Index said")
        try:
            seconds = min(LONGEST_WAIT, parse_duration(request.query.get("wait", "0")) or USUAL_WAIT)
        except InvalidInstance as error:
            raise web.HTTPBadRequest(text=f"Invalid wait time: {error}") from error
        if not int(text):
            return
        if self._waiting >= MAX_WAITERS:
            raise web.HTTPTooManyRequests(text=f"{MAX_WAITERS} queries wait already; ask without index, or later")
        self._waiting += 1
        try:
            await self._hub.changed(name, int(text), seconds + random.uniform(0, seconds / 16))
        finally:
            self._waiting -= 1

    # -- bodies ----------------------------------------------------------------------------------------------------

    def _look(self, instance: Instance) -> Look:
        reason = "" if instance.enabled else self._hub.catalog.reason_of(instance.id) or ""
        return Look(instance, self._hub.prober.health.results(instance.id) if instance.checks else {}, reason)

    def _list(self, kind: str, looks: Iterable[Look]) -> bytes:
        return b"[" + b",".join(self._piece(kind, look) for look in looks) + b"]"

    def _piece(self, kind: str, look: Look) -> bytes:
        instance = look.instance
        version = self._hub.prober.health.version_of(instance.id)
        kept = self._pieces[kind].get(instance.id)
        if kept and kept[0] is instance and kept[1] == version and kept[2] == look.reason:
            return kept[3]
        piece = encode(PIECES[kind](look, self._hub.catalog.index_of(instance.service)))
        self._pieces[kind][instance.id] = (instance, version, look.reason, piece)
        return piece

    def _body(self, name: str | None, key: object, build: Callable[[], bytes]) -> tuple[int, bytes]:
        """-> index, body."""
        index, version = self._hub.catalog.index_of(name), self._hub.prober.health.version(name)
        kept = self._bodies.get(key)
        if kept and kept[:2] == (index, version):
            return index, kept[2]
        body = build()
        if kept:
            self._body_bytes -= len(self._bodies.pop(key)[2])
        if len(body) > 2:  # nobody's is not worth keeping: names are many
            self._bodies[key] = (index, version, body)
            self._body_bytes += len(body)
        while self._body_bytes > MAX_BODY_BYTES or len(self._bodies) > MAX_BODIES:
            self._body_bytes -= len(self._bodies.pop(next(iter(self._bodies)))[2])
        return index, body

    def _forget(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Gone):
                for pieces in self._pieces.values():
                    pieces.pop(event.instance.id, None)

    def headers(self, index: int) -> dict[str, str]:
        """Of every read. Whoever is unsure whether the list is complete has no leader."""
        known = "false" if self._hub.catalog.uncertain else "true"
        return {"X-Consul-Index": str(index), "X-Consul-KnownLeader": known, "X-Consul-LastContact": "0"}

    async def _answer(self, request: web.Request, index: int, body: bytes) -> web.StreamResponse:
        headers = self.headers(index)
        if len(body) <= AT_ONCE or request.method == "HEAD":
            return web.Response(body=body, content_type="application/json", headers=headers)
        response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
        response.content_length = len(body)
        await response.prepare(request)
        view = memoryview(body)
        for start in range(0, len(body), AT_ONCE):
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await response.write(view[start : start + AT_ONCE])
            except TimeoutError:
                if request.transport:
                    request.transport.abort()
                raise ConnectionResetError("the reader does not read") from None
        await response.write_eof()
        return response


def _json(body: object) -> web.Response:
    return web.Response(body=encode(body), content_type="application/json")


def _refuse(request: web.Request) -> None:
    for key in REFUSED:
        if request.query.get(key):
            raise web.HTTPBadRequest(text=f"{key} is not supported: expected passing, tag, index and wait; {IGNORED}")
