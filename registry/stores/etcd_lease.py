"""The one lease under which a store's ephemeral rows lie in etcd: granted when first needed, renewed, missed when gone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from ..errors import StoreUnavailable
from ..store import TTL_SECONDS
from .gateway import CALL_SECONDS, EtcdError, Gateway

log = logging.getLogger("fairway.registry.etcd")

FIRST_RETRY, LAST_RETRY = 0.2, 2.0  # seconds between attempts to renew it, doubling, with jitter


class Lease:
    """`on_lost()` is called when etcd says that it is gone, and with it all that was bound to it."""

    def __init__(self, gateway: Gateway, on_lost: Callable[[], None]) -> None:
        self._gateway, self._on_lost = gateway, on_lost
        self.id = ""  # none is held
        self._renewing: asyncio.Task[None] | None = None

    async def hold(self) -> str:
        """Its id. Raises StoreUnavailable or EtcdError."""
        if not self.id:
            granted = await self._gateway.call("lease/grant", {"TTL": str(int(TTL_SECONDS))})
            self.id = str(granted["ID"])
            # etcd may grant a longer one than it was asked for.
            self._renewing = asyncio.create_task(self._keep(self.id, float(granted["TTL"])))
        return self.id

    def lost(self, id: str) -> None:
        """Somebody learned that etcd does not know `id`."""
        if id != self.id:  # it is known already
            return
        self.id = ""
        if self._renewing and self._renewing is not asyncio.current_task():
            self._renewing.cancel()
        self._on_lost()

    async def close(self) -> None:
        """Gives it back, if etcd is there: what is bound to it is removed at once."""
        id, self.id = self.id, ""
        if self._renewing:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if id:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._gateway.call("lease/revoke", {"ID": id})
            except (StoreUnavailable, EtcdError, TimeoutError) as error:
                log.warning("could not take our rows out of etcd (%s): it drops them by itself", error or "no answer")

    async def _keep(self, id: str, ttl_seconds: float) -> None:
        beat, retry = ttl_seconds / 3, FIRST_RETRY
        wait = beat
        while True:
            await asyncio.sleep(wait * random.uniform(0.9, 1.0))
            try:
                # One request a renewal: a stream of them may stop renewing without a word (etcd issue 8237).
                answer = await self._gateway.call("lease/keepalive", {"ID": id})
                alive = int(answer["result"].get("TTL", 0)) > 0  # of one that is gone it says no TTL, and no error
            except (StoreUnavailable, EtcdError, KeyError, ValueError) as error:
                log.debug("could not renew our lease (%s): trying on", error)
                wait, retry = retry, min(retry * 2, LAST_RETRY)
                continue
            if not alive:
                self.lost(id)
                return
            wait, retry = beat, FIRST_RETRY
