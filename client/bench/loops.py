"""The two ways to ask: clients who wait for their answers, and requests that come whatever becomes of earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import cycle
from time import monotonic

from .alarm import Alarm
from .tally import CUT_OFF, NO_PREDICTION, NOT_SENT, TIMEOUT, WRONG, Reply, Tally
from .uploads import Upload
from .way import Book, Way

AGAIN_SECONDS = 0.1  # a client who was turned away waits for so long: else it would be its own speed that is counted
PATIENT = frozenset((TIMEOUT, WRONG, NO_PREDICTION))  # these took their time
ENDED = Reply(CUT_OFF, "no answer until the end")
BOOKS = 32  # clients among whom the open loop's requests go round, each with its own addresses


async def closed_loop(way: Way, clients: int, uploads: Iterator[Upload], tally: Tally) -> None:
    """Until the window's end; who waits then gets its answer. `uploads` is shared: an upload, the next client the next."""

    async def client() -> None:
        book = Book()
        while (due := monotonic()) < tally.end:
            try:
                reply = await way.send(next(uploads), book)
            except asyncio.CancelledError:
                tally.record(due, due, monotonic(), ENDED)
                raise
            tally.record(due, due, monotonic(), reply)
            if reply.kind and reply.kind not in PATIENT:
                await asyncio.sleep(AGAIN_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def open_loop(way: Way, due: Iterable[float], uploads: Iterator[Upload], tally: Tally, most: int) -> None:
    """`due`: times by `time.monotonic`, in order. At its end all that are under way get their answers.

    Nobody waits for a free connection or for anybody's answer; but of more than `most` at once the next is not sent, and
    counted as an error: it is the server that is late, and it must not look better for it.
    """
    under_way: set[asyncio.Task[None]] = set()
    books = cycle([Book() for _ in range(BOOKS)])

    async def one(at: float) -> None:
        begun = monotonic()
        try:
            reply = await way.send(next(uploads), next(books))
        except asyncio.CancelledError:
            tally.record(at, begun, monotonic(), ENDED)
            raise
        tally.record(at, begun, monotonic(), reply)

    try:
        with Alarm() as alarm:
            for at in due:
                await alarm.until(at)
                if len(under_way) >= most:
                    now = monotonic()
                    tally.record(at, now, now, Reply(NOT_SENT, f"{len(under_way)} in flight"))
                    continue
                task = asyncio.create_task(one(at))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.gather(*under_way)
    finally:
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
