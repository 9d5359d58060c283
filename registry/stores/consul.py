"""Consul as the engine, or another registry of ours, which speaks its API: the client half of that API.

`consul://` names the LOCAL agent, as everywhere with Consul: what is registered there is that agent's. Of several hosts the
next is taken when one fails; what is ours is registered there anew, in full.

* A row that lives by its writer has a TTL check, which the writer passes every third of it. An agent that no longer knows
  the check has lost the registration: it is made again.
* Reading is blocking queries: one on the names of all services, one on each service. An agent allows 200 connections from
  one address (limits.http_max_conns_per_client).
* Marks are Consul's maintenance mode.
* A durable row is removed at the agent that has it; another one does not know it, and Consul's catalog would list it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..changes import Change, Gone, Mark, Put
from ..credentials import Credentials
from ..errors import ConfigurationError, StoreRefused, StoreUnavailable
from ..row import too_large
from ..store import BEAT_SECONDS, NOBODY, TTL_SECONDS, WRITE_SECONDS, OnChange, Store, parse_hosts
from .consul_agents import Agents, Away
from .consul_rows import WRITER, Entry, check_id, check_ids, entries, registration, status_of

log = logging.getLogger("fairway.registry.stores.consul")

PORT = 8500
FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds, doubling, with jitter
MOST_WRITES, MOST_BEATS = 32, 8  # requests under way at once
NAMES_PER_SECOND, LISTINGS_PER_SECOND = 2.0, 10.0  # at most, however fast they change; the names change with everything
CLOSE_SECONDS = 3.0
LOOK_SECONDS = 0.1  # how often it is looked whose beat is due


@dataclass(eq=False)
class _Lane:
    """What is still to be written of one id. The newest word about its row, and about its mark, is all that counts."""

    row: Put | Gone | None = None
    mark: Mark | None = None
    waiters: list[asyncio.Future[str]] = field(default_factory=list)


@dataclass
class _Written:
    put: Put
    beat_at: float


class ConsulStore(Store):
    """`consul://HOST[:8500][,HOST...]`; the token is the credentials'."""

    def __init__(
        self,
        rest: str,
        *,
        on_change: OnChange = lambda _: None,
        credentials: Credentials = NOBODY,
        tls: bool = False,
    ) -> None:
        super().__init__(on_change)
        user, password, hosts, path = parse_hosts(rest, PORT)
        if user or password or path:
            raise ConfigurationError(
                "consul://: expected HOST[:8500][,HOST...] and no more; the token is in a file: --registry-token-file"
            )
        self._agents = Agents(hosts, credentials.token, credentials.tls(tls))
        self._written: dict[str, _Written] = {}
        self._lanes: dict[str, _Lane] = {}
        self._listings: dict[str, dict[str, Entry] | None] = {}  # None: asked for, not there yet
        self._yielded: set[str] = set()  # ids of ours that another writer took over: written again when it is gone
        self._doubted: set[str] = set()  # ids of ours that a listing lacks, being looked after
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing, self._beating = asyncio.Semaphore(MOST_WRITES), asyncio.Semaphore(MOST_BEATS)

    async def start(self) -> None:
        self._agents.open()
        self._spawn(self._keep_reading())
        self._spawn(self._keep_beating())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ours = {id: written.put for id, written in self._written.items()} | self._own
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(self._leave(Gone(put.instance)) for put in ours.values() if not put.principal))
        except TimeoutError:
            log.info("Consul does not answer: what is left of ours there ends with its TTL")
        await self._agents.close()

    async def _leave(self, gone: Gone) -> None:
        try:
            async with self._writing:
                await self._apply_gone(gone)
        except (Away, StoreRefused) as error:
            log.info("%s is left to its TTL: %s", gone.instance.id, error)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, changes: Sequence[Change]) -> None:
        """None of them, if a document of theirs does not fit. Changes of different ids are written side by side."""
        for change in changes:
            if isinstance(change, Put):
                if reason := too_large(change.instance):
                    raise StoreRefused(f"{change.instance.id}: {reason}")
                registration(change, self.uid, TTL_SECONDS)  # may raise StoreRefused
        self._remember(changes)
        waiters = [self._enqueue(change) for change in changes]
        if not waiters:
            return
        done, late = await asyncio.wait(waiters, timeout=WRITE_SECONDS)
        if late:
            raise StoreUnavailable(
                f"Consul at {self._agents.host} has not taken {len(late)} of {len(changes)} changes in "
                f"{WRITE_SECONDS:g} s: {self._agents.complaint or 'too slow'}; they are written when it is back"
            )
        if refused := sorted({reason for waiter in done if (reason := waiter.result())}):
            raise StoreRefused("; ".join(refused))

    def _enqueue(self, change: Change) -> asyncio.Future[str]:
        """-> "" when it is written, or why it never will be."""
        id = change.id if isinstance(change, Mark) else change.instance.id
        lane = self._lanes.get(id)
        if lane is None:
            lane = self._lanes[id] = _Lane()
            self._spawn(self._drain(id, lane))
        if isinstance(change, Mark):
            lane.mark = change
        else:
            lane.row = change
            self._yielded.discard(id)
            if isinstance(change, Gone):
                lane.mark = None  # it goes with its row
            elif known := self.replica.get(id):
                self.replica.receive(Gone(known.instance))  # somebody else's until now; its new owner need not be told
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        lane.waiters.append(waiter)
        return waiter

    async def _drain(self, id: str, lane: _Lane) -> None:
        delay = FIRST_RETRY
        try:
            while lane.row or lane.mark:
                if not await self._write_newest(id, lane):
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, LAST_RETRY)
        finally:
            del self._lanes[id]

    async def _write_newest(self, id: str, lane: _Lane) -> bool:
        """-> whether it was done, or refused; False: to be tried again."""
        row, mark, waiters, lane.waiters = lane.row, lane.mark, lane.waiters, []
        refused = ""
        try:
            async with self._writing:
                match row:
                    case Put():
                        await self._apply_put(row)
                    case Gone():
                        await self._apply_gone(row)
                if mark:
                    await self._apply_mark(mark)
        except Away:
            lane.waiters = [*waiters, *lane.waiters]
            return False
        except StoreRefused as error:
            refused = str(error)
            log.warning("%s", refused)
            if row is not None and self._own.get(id) is row:
                self._keep_former(id)
        lane.row = None if lane.row is row else lane.row
        lane.mark = None if lane.mark is mark else lane.mark
        for waiter in waiters:
            waiter.set_result(refused)
        return True

    def _keep_former(self, id: str) -> None:
        """The newest version was refused; what the engine has of ours stays ours."""
        if id in self._written:
            self._own[id] = self._written[id].put
        else:
            self._own.pop(id, None)

    async def _apply_put(self, put: Put) -> None:
        instance = put.instance
        former = self._written.get(instance.id)
        listed = self._listed(instance.id)
        stale = {id for known in (former, listed) if known for id in check_ids(known.put)} - check_ids(put)
        query = {"replace-existing-checks": "true"} if stale else {}  # not always: it ends maintenance as well
        body = registration(put, self.uid, TTL_SECONDS)
        await self._demand(instance.id, "/v1/agent/service/register", query, body)
        if stale and listed and listed.mark:
            await self._apply_mark(listed.mark)
        if not put.principal and (former or listed or not self.synced):
            await self._demand(  # a check that is known keeps its status when it is defined again
                instance.id,
                f"/v1/agent/check/update/{quote(check_id(instance.id), safe='')}",
                body={"Status": status_of(instance), "Output": instance.state},
            )
        if instance.id in self._own:
            self._written[instance.id] = _Written(put, self._now() + BEAT_SECONDS * random.uniform(0.5, 1.0))

    async def _apply_gone(self, gone: Gone) -> None:
        """One that lives by its writer only if that is still us; Consul has no way to do both in one request."""
        id = gone.instance.id
        if gone.principal or await self._writer_of(id) == self.uid:
            await self._demand(id, f"/v1/agent/service/deregister/{quote(id, safe='')}", answers=(200, 404))
        if id not in self._own:
            self._written.pop(id, None)

    async def _apply_mark(self, mark: Mark) -> None:
        query = {"enable": "false"} if mark.enabled else {"enable": "true", "reason": mark.reason}
        path = f"/v1/agent/service/maintenance/{quote(mark.id, safe='')}"
        if await self._demand(mark.id, path, query, answers=(200, 404)) == 404 and not mark.enabled:
            raise StoreRefused(f"{mark.id}: no such instance is registered at the agent {self._agents.host}")

    # -- staying -----------------------------------------------------------------------------------------------------

    async def _keep_beating(self) -> None:
        """Passes our checks, and drops from the copy what was held for its owners long enough."""
        while True:
            now = self._now()
            if changes := self.replica.expire(now):
                await self._tell(changes)
            due = [w for w in self._written.values() if not w.put.principal and w.beat_at <= now]
            await asyncio.gather(*(self._beat(written) for written in due))
            await asyncio.sleep(LOOK_SECONDS)

    async def _beat(self, written: _Written) -> None:
        instance = written.put.instance
        word = "pass" if instance.state == "passing" else "fail"
        path = f"/v1/agent/check/{word}/{quote(check_id(instance.id), safe='')}"
        written.beat_at = self._now() + BEAT_SECONDS * random.uniform(0.85, 1.0)
        try:
            async with self._beating:
                status, _, _ = await self._agents.ask("PUT", path, {"note": instance.state}, answers=(200, 404, 500))
        except Away:
            written.beat_at = self._now() + FIRST_RETRY * random.uniform(0.5, 1.5)
            return
        except StoreRefused as error:
            self._agents.complain(f"{instance.id}: {error}")
            return
        put = self._own.get(instance.id)
        if status != 200 and put is not None and instance.id not in self._lanes:
            log.info("Consul has lost %s (%s): it is registered again", instance.id, status)
            self._enqueue(put)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _keep_reading(self) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                await self._read()
            except* (Away, StoreRefused) as errors:
                self._agents.complain(str(_first(errors)))
            except* Exception:
                log.exception("%r could not read what Consul says; it starts anew", self)
            delay, self.connected = FIRST_RETRY if self.connected else delay, False
            self.replica.disconnected()
            await self._tell([])
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LAST_RETRY)

    async def _read(self) -> None:
        """Until something fails."""
        self._listings = {}
        readers: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            async for answer in self._agents.follow("/v1/catalog/services", NAMES_PER_SECOND):
                names = set(answer.body) if isinstance(answer.body, dict) else set()
                for name in [n for n, listing in self._listings.items() if n not in names and not listing]:
                    del self._listings[name]
                    readers.pop(name).cancel()
                for name in names - self._listings.keys():
                    self._listings[name] = None
                    readers[name] = group.create_task(self._read_service(name))
                await self._complete()

    async def _read_service(self, name: str) -> None:
        async for answer in self._agents.follow(f"/v1/health/service/{quote(name, safe='')}", LISTINGS_PER_SECOND):
            if answer.backwards:
                self._write_all_again()
            before, now = self._listings[name] or {}, entries(answer.body)
            self._listings[name] = now
            self._compare(name, now)
            if not self.connected:
                await self._complete()
            elif changes := list(self._differences(name, before, now)):
                await self._tell(changes)

    def _write_all_again(self) -> None:
        """The index went backwards: another state of the world, in which what we wrote last may be missing."""
        for id, put in self._own.items():
            if id not in self._lanes and id not in self._yielded:
                self._enqueue(put)

    async def _complete(self) -> None:
        """The first time that every listing is there, the copy is put in order as a whole."""
        if self.connected or None in self._listings.values():
            return
        everything = [entry for listing in self._listings.values() for entry in (listing or {}).values()]
        rows = [entry.put for entry in everything if self._is_copied(entry)]
        marks = [entry.mark for entry in everything if entry.mark]
        changes = self.replica.replace(rows, marks, self._now(), hold=True)
        self.connected = True
        self._agents.content()
        log.info("following Consul at %s: %d instances of others", self._agents.host, len(rows))
        await self._tell(changes)

    def _compare(self, name: str, listing: dict[str, Entry]) -> None:
        """A listing may be older than what we wrote. Where it lacks ours, the agent is asked, which knows at once."""
        for id in [id for id in self._yielded if self._own[id].instance.service == name]:
            if (entry := self._listed(id)) is None or not entry.alive:
                log.info("%s is not held by anybody else any more", id)
                self._enqueue(self._own[id])
        for id, written in self._written.items():
            entry = listing.get(id)
            if written.put.instance.service != name or (entry is not None and entry.writer == self.uid):
                continue
            # One that lives by us and is not there at all is noticed by its next beat.
            if (entry is not None or written.put.principal) and id not in self._doubted:
                self._doubted.add(id)
                self._spawn(self._look_after(id, written))

    async def _look_after(self, id: str, written: _Written) -> None:
        """Whether it is still ours; if somebody took it over, or removed it, it is not to be written again."""
        try:
            writer = await self._writer_of(id)
        except (Away, StoreRefused):
            return  # the next listing, of the next connection, brings it up again
        finally:
            self._doubted.discard(id)
        if writer == self.uid or self._written.get(id) is not written or id in self._lanes:
            return
        changes: list[Change] = []
        if writer is not None and not written.put.principal:
            log.info("%s was taken over by another writer: ours is kept for the time after", id)
            self._yielded.add(id)
        elif written.put.principal:
            log.info("%s was removed, or written, by somebody else", id)
            del self._own[id]
            changes += [Gone(written.put.instance, written.put.principal)] if writer is None else []
        else:
            return
        del self._written[id]
        if self.connected and (entry := self._listed(id)) is not None and self._is_copied(entry):
            changes += self.replica.receive(entry.put)
        await self._tell(changes)

    async def _writer_of(self, id: str) -> str | None:
        """None: the agent knows no such service."""
        path = f"/v1/agent/service/{quote(id, safe='')}"
        status, _, text = await self._agents.ask("GET", path, answers=(200, 404))
        return str(_meta(text).get(WRITER, "")) if status == 200 else None

    def _differences(self, name: str, before: dict[str, Entry], now: dict[str, Entry]) -> Iterable[Change]:
        for id in before.keys() | now.keys():
            old, new = before.get(id), now.get(id)
            known = self.replica.get(id)
            if new is not None and self._is_copied(new):
                yield from self.replica.receive(new.put)
            elif known is not None and known.instance.service == name:  # otherwise it is another service's by now
                yield from self.replica.receive(Gone(known.instance, known.principal))
            if new is not None and new.mark:
                yield from self.replica.receive(new.mark)
            elif (old is not None and old.mark) and (new is not None or self._listed(id) is None):
                yield from self.replica.receive(Mark(id, True))

    def _is_copied(self, entry: Entry) -> bool:
        """The copy holds what lives, and is not ours: nor what is ours in a moment."""
        id = entry.put.instance.id
        return entry.alive and entry.writer != self.uid and (id not in self._own or id in self._yielded)

    def _listed(self, id: str) -> Entry | None:
        return next((listing[id] for listing in self._listings.values() if listing and id in listing), None)

    async def _demand(
        self,
        id: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        answers: tuple[int, ...] = (200,),
    ) -> int:
        """A PUT about `id`, which a refusal names."""
        try:
            status, _, _ = await self._agents.ask("PUT", path, query, body, answers=answers)
        except StoreRefused as error:
            raise StoreRefused(f"{id}: {error}") from error
        return status

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of %r failed", self, exc_info=error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _meta(text: str) -> dict[str, Any]:
    try:
        meta = json.loads(text).get("Meta")
    except (ValueError, AttributeError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _first(errors: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
