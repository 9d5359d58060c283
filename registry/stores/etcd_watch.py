"""What lies under a prefix in etcd, listed once and then followed, for ever: whatever breaks, compacts or falls silent."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from ..errors import StoreUnavailable
from ..instance import Address
from .gateway import Answer, EtcdError, Gateway

log = logging.getLogger("fairway.registry.etcd")

FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds between attempts, doubling, with jitter
PROBE_SECONDS = 10.0  # how often we look whether a watch that says nothing has nothing to say
SUSPICION_SECONDS = 2.0  # ... and how soon again when it seems to be behind
TICK_SECONDS = 0.5
PAGE_KEYS = 400  # of documents of at most 8 KiB: gRPC lets 4 MiB pass in one message
LIST_SECONDS = 5.0


@dataclass(frozen=True)
class Found:
    """A key and what lies there since `revision`; None: nothing any more."""

    key: str
    value: bytes | None
    revision: int


class Reader(Protocol):
    """Whoever wants to know. The calls come one after the other, in etcd's order; none is to wait before it has read."""

    @property
    def unseen(self) -> bool:
        """Whether something was written that the watch has yet to show."""

    async def listed(self, found: Sequence[Found], same: bool) -> None:
        """All there is. `same`: it is the etcd that was followed before, and none of what it knew was lost."""

    async def heard(self, found: Sequence[Found]) -> None:
        """Changes since, each one."""

    async def turned(self, up: bool) -> None:
        """Whether the watch stands."""

    async def refused(self, reason: str) -> None:
        """etcd will not let us read: not allowed, not with this password."""

    async def tick(self, now: float) -> None:
        """While the watch stands, every TICK_SECONDS."""


class Watch:
    """`run()` it in a task. `range`: of keys, as etcd's requests say it. While listing, it holds `writing`: what is
    acknowledged before is in the list, and what comes after is not."""

    def __init__(self, gateway: Gateway, range: Answer, reader: Reader, writing: asyncio.Lock) -> None:
        self._gateway, self._range, self._reader, self._writing = gateway, range, reader, writing
        self.at = gateway.endpoints[0]  # the member that we follow, or tried last
        self.up = False
        self.trouble = "not connected yet"  # why it is not up, or was not when last it was so
        self.revision = 0  # the reader knows everything up to it
        self.keys: set[str] = set()  # all that there are, strangers' too
        self._cluster = ""
        self._listed = False  # and whether we may go on from `revision`

    def list_anew(self) -> None:
        """On the next connection."""
        self._listed = False

    async def run(self) -> None:
        endpoints = self._gateway.endpoints
        delay, said, tried = FIRST_RETRY, False, 0
        turn = random.randrange(len(endpoints))  # not all of us at the first
        while True:
            self.at, turn, tried = endpoints[turn % len(endpoints)], turn + 1, tried + 1
            try:
                await self._converse(self.at)
            except StoreUnavailable as error:
                self.trouble = str(error)
            except EtcdError as error:
                self.trouble, self._listed = str(error), False
                if not error.compacted:
                    await self._reader.refused(self.trouble)
            except Exception as error:  # neither a bug nor an etcd that answers strangely is to end it
                log.exception("etcd at %s says what we do not understand", self.at)
                self.trouble = repr(error)
            if self.up:
                log.warning("lost etcd at %s (%s); going on with what is known", self.at, self.trouble)
                delay, said, tried = FIRST_RETRY, True, 1
                self.up = False
                await self._reader.turned(False)
            elif not said:
                log.warning("no etcd at %s yet (%s): trying on", self.at, self.trouble)
                said = True
            if tried >= len(endpoints):  # all were
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay, tried = min(delay * 2, LAST_RETRY), 0

    async def _converse(self, at: Address) -> None:
        """Until it breaks. Raises StoreUnavailable or EtcdError."""
        fresh = not self._listed
        if fresh:
            async with self._writing:
                await self._list(at)
        tasks = [asyncio.create_task(self._follow(at, fresh)), asyncio.create_task(self._look_after(at, fresh))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        raise next(end for end in ends if isinstance(end, Exception))

    async def _list(self, at: Address) -> None:
        page = self._range | {"limit": str(PAGE_KEYS)}
        found: list[Found] = []
        while True:
            answer = await self._gateway.call("kv/range", page, at, LIST_SECONDS)
            header, kvs = answer["header"], answer.get("kvs", [])
            page.setdefault("revision", header["revision"])  # the pages are of one moment
            found += [_found(kv) for kv in kvs]
            if not answer.get("more"):
                break
            page["key"] = base64.b64encode(base64.b64decode(kvs[-1]["key"]) + b"\0").decode()
        cluster, revision = str(header["cluster_id"]), int(page["revision"])
        # One that was set up anew bears the same name; what it knows goes back to the beginning.
        same = cluster == self._cluster and revision >= self.revision
        self._cluster, self.revision, self._listed = cluster, revision, True
        self.keys = {one.key for one in found}
        await self._reader.listed(found, same)

    async def _follow(self, at: Address, fresh: bool) -> None:
        request = self._range | {"start_revision": str(self.revision + 1), "fragment": True}
        events: list[Answer] = []
        async with aclosing(self._gateway.stream(at, "watch", {"create_request": request})) as results:
            async for result in results:
                if result.get("canceled"):  # the stream itself stays open
                    if "compact_revision" in result:
                        self._listed = False
                        raise StoreUnavailable("what changed meanwhile was compacted away; listing all anew")
                    self._gateway.forget_login()  # it may have become worthless: a call says so, a watch hardly does
                    raise StoreUnavailable(f"the watch was cancelled: {result.get('cancel_reason')}")
                if result.get("created"):
                    self._recognise(result["header"], fresh)
                    log.info("following etcd at %s", at)
                    self.up = True
                    await self._reader.turned(True)
                events += result.get("events", ())
                if events and not result.get("fragment"):
                    await self._hear(events)
                    events = []

    def _recognise(self, header: Answer, fresh: bool) -> None:
        """A member that lags behind the list just made catches up; one that was set up anew would be silent for long."""
        if header["cluster_id"] != self._cluster or not (fresh or int(header["revision"]) >= self.revision):
            self._listed = False
            raise StoreUnavailable("it does not know what we know; listing all anew")

    async def _hear(self, events: Sequence[Answer]) -> None:
        found = [_found(event["kv"], event.get("type") == "DELETE") for event in events]
        for one in found:
            if one.value is None:
                self.keys.discard(one.key)
            else:
                self.keys.add(one.key)
        self.revision = max(self.revision, found[-1].revision)
        await self._reader.heard(found)

    async def _look_after(self, at: Address, fresh: bool) -> None:
        """Raises StoreUnavailable when the member does not answer, or the watch misses what is there."""
        loop = asyncio.get_running_loop()
        # What was deleted in the very revision up to which etcd compacts is told to nobody who goes on from there.
        probe_at, suspected = loop.time() + (PROBE_SECONDS if fresh else SUSPICION_SECONDS), -1
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._reader.tick(loop.time())
            if loop.time() < probe_at:
                continue
            answer = await self._gateway.call("kv/range", self._range | {"count_only": True}, at)
            behind = self._reader.unseen or int(answer.get("count", 0)) != len(self.keys)
            if behind and self.revision == suspected:
                self._listed = False
                raise StoreUnavailable("its watch has fallen silent; listing all anew")
            suspected = self.revision if behind else -1
            probe_at = loop.time() + (SUSPICION_SECONDS if behind else PROBE_SECONDS)


def _found(kv: Answer, deleted: bool = False) -> Found:
    key = base64.b64decode(kv["key"]).decode("utf-8", "surrogateescape")  # a stranger's may be anything
    return Found(key, None if deleted else base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))
