"""Asks the instances that were registered over HTTP how they are, and tells the catalog. The shell around `health.py`.

A check connects to where its instance is, or to what the allow-list names, and nowhere else: no registration makes the
registry a caller of others. Nothing is resolved, no redirect is followed, and of an answer no more than 4 KiB is read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from .changes import Gone, Put
from .check import Check, Status
from .consul.definitions import destination, path_of
from .errors import InvalidInstance, RegistryError
from .health import Ask, Event, Expired, Health, Result, Turned
from .instance import Address, Instance, is_loopback

if TYPE_CHECKING:
    from .server import Hub

log = logging.getLogger("fairway.registry")

AT_ONCE = 128  # questions under way
MANY = 32  # that are to be asked for the first time at once; more are spread over their interval
MOST_OUTPUT = 4096  # bytes of an answer that are kept, as Consul does
LONGEST_SLEEP = 60.0


class Prober:
    """`health` is what it knows. `await start()` once the catalog holds what was restored, `await close()`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.health = Health(shared=not _alone(hub.settings.store))
        self._woken = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._turned: list[Event] = []  # of which the catalog thinks otherwise
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        catalog = self._hub.catalog
        for instance in catalog.instances():
            if catalog.principal_of(instance.id):
                self.health.track(instance, self._hub.now(), spread=True)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=_Nobody()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        self._hub.subscribe(self._changed)
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._loop is None:
            return
        self._hub.unsubscribe(self._changed)
        tasks = [self._loop, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        await self._http.close()

    async def said(self, check_id: str, status: Status, output: str) -> None:
        """The word of an owner about its ttl check. Raises StoreUnavailable and StoreRefused, as commit does."""
        await self._settle(self.health.said(check_id, Result(status, output), self._hub.now()))
        self._woken.set()

    def objection(self, instance: Instance, check: Check) -> str | None:
        """Why the check may not be asked; None if it may."""
        if check.kind == "ttl":
            return None
        try:
            host = destination(check).host
        except InvalidInstance as error:
            return str(error)
        if host != "localhost" and not _is_literal(host):
            return f"check {check.id!r}: {host!r} is a name: expected an IP address, names are not looked up"
        if reason := self._hub.catalog.may_advertise(host, instance.address.host):
            return f"check {check.id!r} would ask elsewhere: {reason}"
        return None

    # -- the catalog -> us -----------------------------------------------------------------------------------------

    def _changed(self, events: Sequence[object]) -> None:
        spread = len(events) > MANY
        for event in events:
            match event:
                case Put(instance, principal) if principal:
                    self.health.track(instance, self._hub.now(), spread)
                    if instance.checks and instance.state != self.health.state(instance.id):
                        self._turned.append(Turned(instance.id))
                case Put(instance) | Gone(instance):
                    self.health.forget(instance.id)
        self._woken.set()

    # -- us -> the catalog -----------------------------------------------------------------------------------------

    async def _settle(self, events: Sequence[Event]) -> None:
        """Until the catalog knows, and the readers."""
        catalog, now = self._hub.catalog, self._hub.now()
        changes = []
        for event in events:
            instance, principal = catalog.get(event.id), catalog.principal_of(event.id)
            if instance is None or not principal:
                continue
            if isinstance(event, Expired):
                log.warning("%s at %s [%s] was critical for too long", instance.role, instance.address, instance.id)
                changes += catalog.deregister(principal, instance.id)
                continue
            judged = catalog.judge(instance.id, self.health.state(instance.id))
            if not judged:
                self._hub.touched(instance.id)
            changes += judged
            vouched = self.health.vouched(instance.id)
            checks = tuple(replace(check, status=vouched.get(check.id, check.status)) for check in instance.checks)
            if checks != instance.checks:  # other registries are to know what only we were told
                word = replace(instance, state="passing", enabled=True, suspect=False, checks=checks)
                changes += catalog.register(principal, word, instance.address.host, now)
        await self._hub.commit(changes)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            room = AT_ONCE - len(self._asking)
            turned, self._turned = self._turned, []
            for event in self.health.due(self._hub.now(), room):
                if isinstance(event, Ask):
                    task = asyncio.create_task(self._ask(event))
                    self._asking.add(task)
                    task.add_done_callback(self._asked)
                else:
                    turned.append(event)
            if turned:
                await self._try_to_settle(turned)
            due = self.health.next_deadline(AT_ONCE - len(self._asking))
            pause = LONGEST_SLEEP if due is None else min(LONGEST_SLEEP, due - self._hub.now())
            if pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)

    async def _try_to_settle(self, events: Sequence[Event]) -> None:
        try:
            await self._settle(events)
        except RegistryError as error:  # the readers were told; the engine will be when it is back
            log.warning("what checks said could not be written: %s", error)

    # -- us -> the instances ---------------------------------------------------------------------------------------

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._woken.set()

    async def _ask(self, ask: Ask) -> None:
        check = ask.check
        instance = self._hub.catalog.get(ask.id)
        reason = self.objection(instance, check) if instance else None
        try:
            if reason:  # it came from an engine, or the allow-list is another one now
                result = Result("critical", reason)
            elif check.kind == "http":
                result = await self._get(check)
            else:
                target = ask.address if check.kind == "ttl" else destination(check)
                result = await self._dial(target, check.timeout_seconds)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever it was: without a report the check would never be asked again
            log.exception("asking %s failed", check.id)
            result = Result("critical", f"the registry could not ask: {error!r:.200}")
        await self._try_to_settle(self.health.report(ask.id, check, result, self._hub.now()))

    async def _dial(self, address: Address, seconds: float) -> Result:
        host = _literal(address.host)
        if not _is_literal(host):
            return Result("critical", f"dial tcp {address}: a name; the registry asks IP addresses only")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plug = socket.socket(family, socket.SOCK_STREAM)
        try:
            plug.setblocking(False)
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(plug, (host, address.port))
        except TimeoutError:
            return Result("critical", f"dial tcp {address}: no answer within {seconds:g} s")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio has words of its own for it
            return Result("critical", f"dial tcp {address}: {reason.lower()}")
        finally:
            plug.close()
        return Result("passing", f"TCP connect {address}: Success")

    async def _get(self, check: Check) -> Result:
        address, scheme = destination(check), check.target.partition(":")[0]
        path, _, query = path_of(check).partition("?")
        # Built from what was judged: nobody else is to read the text in his own way.
        url = URL.build(
            scheme=scheme, host=_literal(address.host), port=address.port, path=path, query_string=query, encoded=True
        )
        fields = [(name, value) for name, values in check.header.items() for value in values]
        if not any(name.lower() == "host" for name, _ in fields):
            fields.append(("Host", str(address)))
        where = f"HTTP {check.method} {check.target}"
        try:
            async with (
                asyncio.timeout(check.timeout_seconds),
                self._http.request(
                    check.method,
                    url,
                    headers=fields,
                    data=check.body.encode() or None,
                    allow_redirects=False,
                    ssl=not check.tls_skip_verify,
                    server_hostname=address.host if scheme == "https" else None,
                ) as answer,
            ):
                body = await _beginning(answer.content)
        except TimeoutError:
            return Result("critical", f"{where}: no answer within {check.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Result("critical", f"{where}: {str(error) or type(error).__name__}"[:MOST_OUTPUT])
        status: Status = "passing" if answer.ok and answer.status < 300 else "critical"
        if answer.status == 429:
            status = "warning"
        text = body.decode("utf-8", "replace")
        return Result(status, f"{where}: {answer.status} {answer.reason or ''} Output: {text}")


class _Nobody(aiohttp.abc.AbstractResolver):
    """Names are not looked up."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
        raise OSError(f"{host} is a name: the registry asks IP addresses only")

    async def close(self) -> None:
        pass


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while len(body) < MOST_OUTPUT and (more := await content.read(MOST_OUTPUT - len(body))):
        body += more
    return body


def _alone(store: str) -> bool:
    """Whether nobody else holds our rows."""
    return not store or store.startswith("embedded:")


def _literal(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _is_literal(host: str) -> bool:
    return is_loopback(host) or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True
