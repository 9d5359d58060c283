"""The writes of Consul's HTTP API: services, their checks, maintenance. Only the principal that made a row, or an admin,
changes it; what lives by a connection is that connection's, and an admin's only to take out of service.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from ..changes import Refused
from ..check import Check, Status
from ..consul.definitions import read_keys
from ..consul.entries import is_status
from ..consul.registration import joined, read_check_registration, read_registration
from ..errors import InvalidInstance
from ..instance import Instance
from ..prober import MOST_OUTPUT
from ..rights import Rights
from ..row import first_word, too_large

if TYPE_CHECKING:
    from ..server import Hub

MAX_BODY = 64 * 1024  # bytes; a row has at most 8 KiB
BODY_SECONDS = 10.0
MAX_REGISTERED = 50_000  # instances over HTTP
STATUS_OF: dict[str, Status] = {"pass": "passing", "warn": "warning", "fail": "critical"}
RIGHTS = web.RequestKey("rights", Rights)
YES_NO = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}

OUT = "PUT /v1/agent/service/maintenance/ID?enable=true takes it out of service"


class Registrations:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def routes(self) -> Iterator[web.RouteDef]:
        for path, handler in {
            "/v1/agent/service/register": self._register,
            "/v1/agent/service/deregister/{id:.+}": self._deregister,
            "/v1/agent/service/maintenance/{id:.+}": self._maintenance,
            "/v1/agent/check/register": self._register_check,
            "/v1/agent/check/deregister/{id:.+}": self._deregister_check,
            "/v1/agent/check/{word:pass|warn|fail}/{id:.+}": self._say,
            "/v1/agent/check/update/{id:.+}": self._update,
        }.items():
            yield web.put(path, handler)

    # -- services --------------------------------------------------------------------------------------------------

    async def _register(self, request: web.Request) -> web.Response:
        rights = self._rights(request)
        instance = read_registration(await _body(request), _host(request))
        if not rights.may_register(instance.service):
            raise _denied(rights, f"may not register {instance.service!r}")
        before = self._own(rights, instance.id) if self._hub.catalog.get(instance.id) else None
        if before is None and len(self._hub.prober.health) >= MAX_REGISTERED:
            raise web.HTTPServiceUnavailable(text=f"{MAX_REGISTERED} instances are registered already")
        anew = YES_NO.get(request.query.get("replace-existing-checks", "false"), True)
        return await self._put(rights, request, instance, before, anew)

    async def _deregister(self, request: web.Request) -> web.Response:
        rights, id = self._rights(request), request.match_info["id"]
        self._own(rights, id)
        return await self._commit(self._hub.catalog.deregister(rights.principal, id, rights.admin))

    async def _maintenance(self, request: web.Request) -> web.Response:
        rights, id = self._rights(request), request.match_info["id"]
        self._own(rights, id, or_admin=True)
        if (word := request.query.get("enable", "")) not in YES_NO:
            raise web.HTTPBadRequest(
                text="Missing value for enable" if not word else f"enable is {word!r:.40}: true or false?"
            )
        reason = request.query.get("reason", "")[:512]
        return await self._commit(self._hub.catalog.mark(id, not YES_NO[word], reason if YES_NO[word] else ""))

    async def _put(
        self, rights: Rights, request: web.Request, instance: Instance, before: Instance | None, anew: bool
    ) -> web.Response:
        health = self._hub.prober.health
        here = before is not None and before.address == instance.address  # which was judged already
        host = instance.address.host if here else _host(request)
        if reason := self._hub.catalog.may_advertise(instance.address.host, host):
            raise web.HTTPBadRequest(text=reason)
        instance = joined(instance, before, health.statuses(instance.id), anew)
        for check in instance.checks:
            holder = health.find(check.id)
            if holder is not None and holder[0] != instance.id:
                raise web.HTTPBadRequest(text=f"the check {check.id!r} belongs to the service {holder[0]!r}")
            if reason := self._hub.prober.objection(instance, check):
                raise web.HTTPBadRequest(text=reason)
        events = self._hub.catalog.register(rights.principal, instance, host, self._hub.now(), rights.admin)
        if not any(isinstance(event, Refused) for event in events):
            # What is known of its checks is in the registration now: nobody is to see it ill for a moment, or well.
            events += self._hub.catalog.judge(instance.id, first_word(instance))
        elif reason := too_large(instance):
            raise web.HTTPRequestEntityTooLarge(0, 0, text=reason)
        return await self._commit(events)

    # -- checks ----------------------------------------------------------------------------------------------------

    async def _register_check(self, request: web.Request) -> web.Response:
        rights = self._rights(request)
        id, check = read_check_registration(await _body(request))
        if self._hub.catalog.get(id) is None:
            raise web.HTTPBadRequest(text=f"ServiceID {id!r} does not exist: register the service first")
        before = self._own(rights, id)
        return await self._amend(request, rights, before, (check,), anew=False)

    async def _deregister_check(self, request: web.Request) -> web.Response:
        rights, check_id = self._rights(request), request.match_info["id"]
        id, _ = self._find(check_id)
        before = self._own(rights, id)
        rest = tuple(check for check in before.checks if check.id != check_id)
        return await self._amend(request, rights, before, rest, anew=True)

    async def _amend(
        self, request: web.Request, rights: Rights, before: Instance, checks: tuple[Check, ...], anew: bool
    ) -> web.Response:
        """The same registration with other checks."""
        plain = replace(before, state="passing", enabled=True, suspect=False, checks=checks)
        return await self._put(rights, request, plain, before, anew)

    async def _say(self, request: web.Request) -> web.Response:
        word, note = request.match_info["word"], request.query.get("note", "")
        return await self._hear(request, STATUS_OF[word], note)

    async def _update(self, request: web.Request) -> web.Response:
        said = read_keys(await _body(request), "a check's update")
        status, output = said.get("status", ""), said.get("output", "")
        if not isinstance(status, str) or not is_status(status):
            raise web.HTTPBadRequest(
                text=f"Invalid check status: {status!r:.40}: expected passing, warning or critical"
            )
        if not isinstance(output, str):
            raise web.HTTPBadRequest(text=f"Output is {output!r:.80}: expected a text")
        return await self._hear(request, cast(Status, status), output)

    async def _hear(self, request: web.Request, status: Status, output: str) -> web.Response:
        rights, check_id = self._rights(request), request.match_info["id"]
        id, check = self._find(check_id)
        self._own(rights, id)
        if check.kind != "ttl":
            raise web.HTTPNotFound(text=f'CheckID "{check_id}" does not have associated TTL')
        await self._hub.prober.said(check_id, status, output[:MOST_OUTPUT])
        return web.Response()

    # -- who -------------------------------------------------------------------------------------------------------

    def _rights(self, request: web.Request) -> Rights:
        if "Origin" in request.headers:  # a page that somebody looks at, and that was told our address
            raise web.HTTPForbidden(text="Permission denied: web pages may not change the registry")
        return request[RIGHTS]

    def _own(self, rights: Rights, id: str, or_admin: bool = False) -> Instance:
        """The instance, if it is theirs to change. `or_admin`: an admin may, even if it lives by a connection."""
        catalog = self._hub.catalog
        instance, principal = catalog.get(id), catalog.principal_of(id)
        if instance is None:
            raise web.HTTPNotFound(
                text=f'Unknown service ID "{id}". Ensure that the service ID is passed, not the service name.'
            )
        if principal == "" and not (or_admin and rights.admin):
            raise _denied(rights, f"may not change {id!r}: it lives by the connection of its worker; {OUT}")
        if principal and principal != rights.principal and not rights.admin:
            raise _denied(rights, f"may not change {id!r}: somebody else registered it")
        return instance

    def _find(self, check_id: str) -> tuple[str, Check]:
        found = self._hub.prober.health.find(check_id)
        if found is None:
            raise web.HTTPNotFound(
                text=f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.'
            )
        return found

    async def _commit(self, events: Sequence[Any]) -> web.Response:
        for event in events:
            if isinstance(event, Refused):
                raise web.HTTPBadRequest(text=event.reason)
        await self._hub.commit(events)
        return web.Response()


def _denied(rights: Rights, what: str) -> web.HTTPForbidden:
    return web.HTTPForbidden(text=f"Permission denied: {rights.principal} {what}")


def _host(request: web.Request) -> str:
    return (request.remote or "127.0.0.1").removeprefix("::ffff:")


async def _body(request: web.Request) -> object:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body was not there within {BODY_SECONDS:g} s") from None
    try:
        said = json.loads(body.decode(), parse_constant=_no_number)
        if b"\\u" in body:  # half a surrogate pair can be escaped, and written nowhere
            json.dumps(said, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is one
        raise InvalidInstance(f"the body is not JSON: {error!s:.120}") from error
    return cast(object, said)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON's")
