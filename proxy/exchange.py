"""One request, carried to a worker, and the answer back.

So long as all of an upload that was passed on is still held, a worker that dies, refuses or drains costs a retry on another
one, not an error (client/retry.py is the table of it). The first byte of an answer that reaches the client ends that.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Final

from ..client.pool import ABANDONED, ANSWERED, Outcome, Pool, Upstream
from ..client.retry import Failure, may_retry
from .chunks import LAST, Dechunker, chunk
from .errors import (
    AnswerBroken,
    BadRequest,
    ClientGone,
    WorkerAnswersBadly,
)
from .forward import Failed, Forwarder, no_worker
from .head import END, AnswerHead, RequestHead, parse_answer
from .reactor import EVENT, Task
from .route import Route
from .server_timing import line as server_timing
from .stream import Stream
from .tunnel import tunnel
from .upload import Upload

log = logging.getLogger("fairway.proxy")

READ_BYTES: Final = 64 * 1024
MAX_ANSWER_HEAD: Final = 64 * 1024
MAX_KEPT_ANSWER: Final = 64 * 1024  # a refusal that is kept while somebody else is asked
MAX_INTERIMS: Final = 16  # 1xx answers before the one that counts
OUTCOMES = {502: Outcome.GATEWAY, 503: ANSWERED, 504: Outcome.GATEWAY}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """`status`, `worker`, `retries`, `received`, `sent`: what became of it, for those who count and write logs.

    `reusable`: the client's connection is at the end of the request, and `rest` is what came after it. `started`: the
    client has heard the beginning of an answer.
    """

    status: int = 0
    retries: int = 0
    received: int = 0
    sent: int = 0
    worker: str = ""
    rest: bytes = b""
    reusable: bool = False
    started: bool = False
    _interims: int = 0
    _framed: bool = True  # the client can see whether it got all of the answer
    _sent: bool = False  # all of the request, to the worker
    _seconds: float | None = None  # that the worker took to begin its answer
    _key: bytes = b""
    _pool: Pool | None = None
    _upstream: Upstream
    _upload: Upload

    def __init__(
        self, door: Forwarder, task: Task, client: Stream, head: RequestHead, route: Route, added: bytes, origin: bytes
    ) -> None:
        """`origin`: lines for the worker; `added`: lines for both."""
        self._door, self._task, self._client, self._head, self._route = door, task, client, head, route
        self._added, self._origin, self._began = added, origin, self._door.reactor.now

    async def run(self, first: bytes) -> None:
        """`first`: what came along with the head. Raises ProxyError, ClientGone, AnswerBroken."""
        settings, head, service = self._door.settings, self._head, self._route.service
        expects = bool(head.noted) and head.expects
        if self._door.resolver.key_header:
            self._key = head.value(self._door.resolver.key_header)
        self._upload = upload = Upload(
            self._task, self._client, head, first, self._door.holding, settings.max_body, settings.stall_seconds
        )
        try:
            if upload.left:
                if not self._door.resolver.has(service, self._route.model):
                    await self._somebody(settings.wait_seconds)
                if expects and not first:
                    await self._client.send(CONTINUE)
                await upload.hold()
            # Chosen only now: an upload may take long, and who was the right one at its beginning may be gone at its end.
            chosen = self._door.resolver.choose_now(service, (), self._key, self._route.model)
            chosen = chosen or await self._somebody(settings.wait_seconds)
            await self._attempts(chosen)
            self.reusable = head.keep_alive and not upload.left
        finally:
            self.rest = upload.rest
            self.received = upload.received
            upload.close()

    async def _attempts(self, chosen: tuple[Pool, Upstream]) -> None:
        door, reactor = self._door, self._door.reactor
        deadline = reactor.now + door.settings.deadline_seconds
        door.requests += 1
        tried: set[str] = set()
        while True:
            pool, upstream = self._pool, self._upstream = chosen
            pool.started(upstream, reactor.now)
            outcome, again_at_once = ABANDONED, False
            worker = door.links.take(upstream)
            fresh = worker is None
            try:
                if worker is None:
                    worker = await self._connected(upstream, deadline)
                elif worker.peek():  # it ended meanwhile, or says what would be taken for our answer
                    worker.close()
                    worker, fresh = await self._connected(upstream, deadline), True
                worker.task = self._task
                await self._ask(worker, deadline)
                return
            except Failed as failed:
                last = failed
                if failed.stale and not fresh:
                    # The worker closed it as we began to use it, which says nothing of the worker.
                    door.links.forget(upstream)
                    again_at_once = True
                else:  # busy is not ill: it answered
                    outcome = ANSWERED if failed.failure is Failure.BUSY else Outcome.CONNECTION
            finally:
                self._finished(outcome)
            if again_at_once:
                continue
            log.info("%s %s at %s: %s", self._head.method.decode(), self._route.target, upstream.instance.address, last)
            if self.started:
                raise AnswerBroken("the worker broke off in the middle of its answer", self._framed)
            tried.add(upstream.instance.id)
            again = await self._another(last, tried, deadline)
            if again is None:
                if last.refusal is None:
                    raise last.error()
                await self._pass_on(*last.refusal)
                return
            self.retries += 1
            door.metrics.retried(self._route.service, last.failure.value)
            chosen = again

    async def _another(self, last: Failed, tried: set[str], deadline: float) -> tuple[Pool, Upstream] | None:
        """Whom to try next; None: nobody."""
        door, service, model = self._door, self._route.service, self._route.model
        door.budget.request(door.reactor.now, door.requests)
        door.requests = 0
        if not may_retry(last.failure, self._upload.replayable) or not door.budget.spend(door.reactor.now):
            return None
        chosen = door.resolver.choose_now(service, tried, self._key, model)
        # A worker that is gone may already be missing from the list: whoever is left, or comes, is the next.
        # To a cluster at its limit nobody comes; to wait would only hold the upload longer.
        full = last.refusal is not None and last.refusal[0].status == 429
        wait = min(door.settings.wait_seconds, deadline - door.reactor.now)
        if chosen is None and not full and wait > 0 and await self._available(wait, tried):
            chosen = door.resolver.choose_now(service, tried, self._key, model)
        return chosen

    def _finished(self, outcome: Outcome) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self.worker = self._upstream.instance.id
            if pool.finished(self._upstream, outcome, self._door.reactor.now, self._seconds):
                self._door.metrics.ejected(self._route.service, self.worker)
            self._seconds = None

    async def _somebody(self, seconds: float) -> tuple[Pool, Upstream]:
        """A worker, if need be a little later. Raises NoWorker, NotFound."""
        if await self._available(seconds, ()):
            chosen = self._door.resolver.choose_now(self._route.service, (), self._key, self._route.model)
            if chosen is not None:
                return chosen
        raise no_worker(self._route, self._door.resolver)

    async def _available(self, seconds: float, tried: set[str] | tuple[()]) -> bool:
        self._task.deadline = inf  # this wait has its own end
        metrics, route = self._door.metrics, self._route
        metrics.waiting += 1
        try:
            return await asyncio.ensure_future(
                self._door.resolver.available(route.service, seconds, tried, route.model)
            )
        finally:
            metrics.waiting -= 1

    async def _connected(self, upstream: Upstream, deadline: float) -> Stream:
        address, door = upstream.instance.address, self._door
        self._task.deadline = min(deadline, door.reactor.now + door.settings.connect_seconds)
        try:
            return await door.links.open(self._task, address)
        except TimeoutError:
            raise Failed(Failure.NOT_SENT, f"{address} cannot be reached") from None
        except OSError as error:
            raise Failed(Failure.NOT_SENT, f"{address}: {error.strerror or error}") from error

    async def _ask(self, worker: Stream, deadline: float) -> None:
        """The request to the worker, its answer to the client. Raises Failed, and what `run` raises."""
        client, upload, task = self._client, self._upload, self._task
        head = self._head.to_worker(self._route.target_bytes, upload.length, self._added, self._origin)
        piece, heard, self._sent = upload.piece, False, True
        began = self._door.reactor.now
        task.deadline = deadline
        try:
            try:
                if piece is None:
                    held, seconds = not upload.left, self._door.settings.deadline_seconds
                    self._sent = await upload.send(worker, head, seconds)
                    began = self._door.reactor.now
                    if not held:  # a slow client has used up its own time, not the worker's
                        task.deadline = self._door.reactor.now + seconds
                elif (sent := worker.try_send_two(head, piece)) < len(head) + len(piece):
                    self._sent = await worker.send_rest(head + piece, sent, True)
            except ClientGone:
                raise
            except ConnectionError:
                self._sent = False  # what it said before it hung up is still to be read
            data = None
            while data is None:
                while not worker.readable:
                    if client.ended and not upload.left:
                        raise ClientGone("the client did not wait for its answer")
                    await EVENT
                data = worker.try_recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection without an answer")
            heard, self._seconds = True, self._door.reactor.now - began
            await self._answer(worker, data)
        except WorkerAnswersBadly as error:
            raise Failed(Failure.BROKEN, str(error)) from error
        except TimeoutError:
            raise Failed(Failure.TIMEOUT, "no answer in time") from None
        except ClientGone:
            raise
        except OSError as error:
            text = error.strerror or str(error) or type(error).__name__
            raise Failed(Failure.BROKEN, text, stale=not heard and upload.replayable) from error
        finally:
            if worker.task is task:  # else it rests, or works for somebody else by now
                worker.close()

    async def _answer(self, worker: Stream, data: bytes) -> None:
        """Passes on the answer that begins with `data`."""
        lines, end, rest = data.partition(END)
        while not end:
            data = await self._more_head(worker, data)
            lines, end, rest = data.partition(END)
        answer, data = parse_answer(lines, self._head.method), rest
        if answer.status < 200:
            await self._interim(worker, answer, data)
            return
        upload, length, client, task = self._upload, answer.length, self._client, self._task
        if answer.noted and (load := answer.noted.get(b"endpoint-load-metrics")):
            assert self._pool is not None
            self._pool.reported(self._upstream, load)
        if answer.status in (429, 503) and upload.replayable:
            await self._refused(worker, answer, data)
        self.status = answer.status
        task.deadline = self._door.reactor.now + self._door.settings.stall_seconds
        lines, chunked = self._lines(answer)
        if length is not None and 0 <= length <= len(data):
            self._answered(worker, answer, length == len(data))
            self.started, self.sent = True, length
            out = lines + data[:length]
            try:
                sent = client.try_send(out)
            except OSError as error:
                raise ClientGone("the client did not wait for its answer") from error
            if sent < len(out):
                await self._deliver(out[sent:])
        elif length is None:
            self._answered(worker, answer, await self._relay_chunks(worker, lines, data, chunked))
        else:
            self._answered(worker, answer, await self._relay(worker, lines, data, length, chunked))

    def _answered(self, worker: Stream, answer: AnswerHead, exact: bool) -> None:
        """The answer was read to its end: the connection rests, unless either side has more to say."""
        # After an answer that has no body by its kind, a worker that sends one anyway would answer the next client with it.
        bodyless = self._head.method == b"HEAD" or answer.status in (204, 304)
        if exact and answer.keep_alive and self._sent and not self._upload.left and not bodyless:
            self._door.links.give(self._upstream, worker)
        else:
            worker.close()
        if answer.status in (429, 503):
            self._seconds = None  # a quick refusal is no speed
        self._finished(ANSWERED if answer.status < 500 else OUTCOMES.get(answer.status, Outcome.FAILED))

    def _lines(self, answer: AnswerHead) -> tuple[bytes, bool]:
        """-> the head of the answer as it goes to the client, whether its body is sent in chunks."""
        head, chunked, framing = self._head, False, b""
        # What is left of an upload must not be taken for the next request.
        keep_alive = head.keep_alive and not self._upload.left and not self._door.draining
        if answer.length is None or answer.length < 0:
            if head.http11:
                framing, chunked = b"Transfer-Encoding: chunked\r\n", True
            else:
                keep_alive = self._framed = False
        if not keep_alive:
            head.keep_alive = False
            framing += b"Connection: close\r\n"
        elif not head.http11:
            framing += b"Connection: keep-alive\r\n"
        timing = server_timing(self._door.reactor.now - self._began - (self._seconds or 0.0))
        return answer.to_client(framing, self._added, timing), chunked

    async def _more_head(self, worker: Stream, data: bytes) -> bytes:
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise WorkerAnswersBadly("the worker's answer is not HTTP")
        if len(data) > MAX_ANSWER_HEAD:
            raise WorkerAnswersBadly("the head of the worker's answer has no end")
        more = await self._more(worker)
        if not more:
            raise ConnectionResetError("it broke off in its answer's head")
        return data + more

    async def _interim(self, worker: Stream, answer: AnswerHead, data: bytes) -> None:
        """1xx: passed on, but for the 100 that was ours to say. 101 makes a tunnel of the two connections."""
        if answer.status == 101:
            if not self._head.upgrade:
                raise WorkerAnswersBadly("the worker switches protocols, which nobody asked it to")
            await self._switch(worker, answer, data)
            return
        self._interims += 1
        if self._interims > MAX_INTERIMS:
            raise WorkerAnswersBadly("the worker has more to say before its answer than in it")
        if answer.status != 100 and self._head.http11:
            try:
                await self._client.send(answer.to_client())
            except OSError as error:
                raise ClientGone("the client did not wait for its answer") from error
        await self._answer(worker, data or await self._more_head(worker, data))

    async def _refused(self, worker: Stream, answer: AnswerHead, data: bytes) -> None:
        """Keeps a short refusal, and raises Failed: somebody else is to be asked. A long one is passed on at once."""
        length = answer.length
        if length is None or not 0 <= length <= MAX_KEPT_ANSWER:
            return
        while len(data) < length:
            more = await self._more(worker)
            if not more:
                raise ConnectionResetError("it broke off in its answer")
            data += more
        assert self._pool is not None
        self._pool.busy(self._upstream, self._door.reactor.now + _seconds(answer.noted.get(b"retry-after")))
        self._answered(worker, answer, len(data) == length)
        raise Failed(Failure.BUSY, f"it answered {answer.status}", refusal=(answer, data[:length]))

    async def _relay(self, worker: Stream, lines: bytes, data: bytes, length: int, chunked: bool) -> bool:
        """A body of `length` bytes, or (-1) up to the connection's end. Whether the connection is at its end exactly."""
        left, turns = length if length >= 0 else inf, 0
        while True:
            exact = len(data) <= left
            data = data if exact else data[: int(left)]
            left -= len(data)
            self.sent += len(data)
            await self._deliver(lines + (chunk(data) if chunked and data else data))
            lines = b""
            if not left:
                return exact
            data = await self._more(worker)
            if not data:
                if left != inf:
                    raise ConnectionResetError("it broke off in its answer")
                if chunked:
                    await self._deliver(LAST)
                return False
            turns += 1
            if turns % 16 == 0:
                await self._task.others()

    async def _relay_chunks(self, worker: Stream, lines: bytes, data: bytes, chunked: bool) -> bool:
        dechunker, turns = Dechunker(), 0
        while True:
            pieces = [lines]
            try:
                for piece in dechunker.feed(data):
                    self.sent += len(piece)
                    pieces.append(chunk(piece) if chunked else piece)
            except BadRequest as error:
                await self._deliver(b"".join(pieces))
                raise WorkerAnswersBadly(f"its answer is malformed: {error}") from None
            if dechunker.done and chunked:
                pieces.append(LAST)
            await self._deliver(b"".join(pieces))
            if dechunker.done:
                return not dechunker.rest
            lines = b""
            data = await self._more(worker)
            if not data:
                raise ConnectionResetError("it broke off in its answer")
            turns += 1
            if turns % 16 == 0:
                await self._task.others()

    async def _more(self, worker: Stream) -> bytes:
        """What the worker says next; nothing at its end."""
        if self.started:
            self._task.deadline = self._door.reactor.now + self._door.settings.stall_seconds
        while True:
            while not worker.readable:
                if self._client.ended and not self._upload.left:
                    raise ClientGone("the client did not wait for the end of its answer")
                await EVENT
            data = worker.try_recv(READ_BYTES)
            if data is not None:
                return data

    async def _deliver(self, data: bytes) -> None:
        """To the client. One that left, or reads nothing for so long, is not the worker's fault."""
        self.started = True
        self._task.deadline = self._door.reactor.now + self._door.settings.stall_seconds
        try:
            if data:
                await self._client.send(data)
        except (TimeoutError, OSError) as error:
            raise ClientGone("the client does not take its answer") from error

    async def _pass_on(self, answer: AnswerHead, data: bytes) -> None:
        """A refusal that was kept while others were asked: nobody else was there."""
        self.status, self.sent = answer.status, len(data)
        lines, _ = self._lines(answer)
        await self._deliver(lines + data)

    async def _switch(self, worker: Stream, answer: AnswerHead, data: bytes) -> None:
        """To a WebSocket: from here on it is bytes, both ways, until either side ends it."""
        self.status, self._head.keep_alive, self._framed = 101, False, False
        await self._deliver(answer.to_client(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", self._added) + data)
        self.sent = await tunnel(self._task, self._client, self._upload.rest, worker)


def _seconds(retry_after: bytes | None) -> float:
    """Of a Retry-After field; a date, or none, counts as one second. At the most a minute is believed."""
    return min(60.0, float(retry_after)) if retry_after is not None and retry_after.isdigit() else 1.0
