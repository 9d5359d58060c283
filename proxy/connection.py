"""One client's connection: its requests one after the other, each answered before the next is read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .accounts import GONE
from .errors import AnswerBroken, ClientGone, HeadTooLarge, Overloaded, ProxyError, RequestTimeout, WorkerLost
from .exchange import Exchange
from .head import END, MAX_HEAD, RequestHead, origin, parse_request, without
from .holding import SMALL_BYTES
from .reactor import EVENT, Task
from .reply import refusal
from .route import Route
from .stream import Stream
from .tracing import Span

if TYPE_CHECKING:
    from .server import Proxy

log = logging.getLogger("fairway.proxy")

FIRST_READ: Final = 4096  # a head and little more: a large body goes by another way than through here
WHOLE_READ: Final = 64 * 1024  # a head and a small body at once, from a client whose last one was small
SHARE: Final = 32  # requests in one go
LINGER_BYTES, LINGER_SECONDS = 8 * 1024 * 1024, 2.0


class Connection:
    """`resting`: between two requests. `peer`: the client's address, for the log and the worker."""

    __slots__ = (
        "_admin", "_host", "_last", "_origin", "_proxy", "_read", "_task", "peer", "pending", "requests", "resting",
        "stream",
    )  # fmt: skip

    def __init__(self, proxy: Proxy, stream: Stream, peer: str, admin: bool = False) -> None:
        self._proxy, self.stream, self.peer, self._admin = proxy, stream, peer, admin
        self.pending, self._host, self._origin = b"", b"\0", b""
        self._read = FIRST_READ
        self._last = False  # whether the last answer was said, and the client may still be sending
        self.requests, self.resting = 0, True

    async def serve(self, task: Task) -> None:
        self._task = self.stream.task = task
        try:
            if await self.stream.handshake(task, self._proxy.settings.head_seconds):
                while await self._one():
                    if self.requests % SHARE == 0:
                        await task.others()  # one that asks without end, and never waits, keeps nobody waiting
                if self._last:
                    await self._linger()
        except ClientGone:
            self.stream.abort()  # an answer under way is broken off, so that nobody takes it for a whole one
        except AnswerBroken as error:
            if not error.framed:
                self.stream.abort()
        except (TimeoutError, OSError):
            pass
        finally:
            self.stream.close()
            self._proxy.left(self)

    async def refuse(self, task: Task) -> None:
        """Says that there is no room, to whatever the client wants."""
        self._task = self.stream.task = task
        try:
            if not self.stream.encrypted:  # a TLS handshake would be the most expensive part of it
                answer = refusal(Overloaded("too many connections; try again in a second")).encode(b"GET", True, True)
                await self._say(answer, False)
                await self._linger()
        except (TimeoutError, OSError):
            pass
        finally:
            self.stream.close()
            self._proxy.left(self)

    def drain(self, grace_seconds: float) -> None:
        """Ends it after a while if it rests: a request that is on its way is answered, and the connection closed then."""
        if self.resting:
            self._task.deadline = self._proxy.reactor.now + grace_seconds

    async def _one(self) -> bool:
        """One request. Whether another one may follow."""
        proxy, stream, task = self._proxy, self.stream, self._task
        data, self.pending = self.pending, b""
        if not data:
            if proxy.draining:
                return False
            self.resting = True
            settings = proxy.settings
            task.deadline = proxy.reactor.now + (settings.idle_seconds if self.requests else settings.head_seconds)
            while True:
                while not stream.readable:
                    await EVENT
                read = stream.try_recv(self._read)
                if read:
                    data = read
                    break
                if read is not None:
                    return False
            self.resting = False
        self.requests += 1
        began = proxy.reactor.now
        proxy.in_flight += 1
        head: RequestHead | None = None
        found: Route | None = None
        exchange: Exchange | None = None
        span: Span | None = None
        request_id, status, sent = b"", 0, 0
        try:
            head_bytes, end, rest = data.partition(END)
            if not end or data[:1] == b"\r":
                head_bytes, end, rest = (await self._head(data)).partition(END)
                if not end:
                    return False
            if len(head_bytes) > MAX_HEAD:
                raise HeadTooLarge(f"the head of the request is larger than {MAX_HEAD} bytes")
            known = proxy.lookups.get(head_bytes)
            if known is not None and not rest:  # `GET /` once more, byte for byte
                head, found, format = known
                again = head.keep_alive
                if format is not None and (line := proxy.pages.line(found.service, format, not again)) is not None:
                    status, sent = 200, len(line)
                    await self._say(line, again)
                    return again
            else:
                head = parse_request(head_bytes)
                found = proxy.route(head)
            if found.manner == "forward" and not self._admin:
                origin = self._origin if head.host == self._host and not head.noted else self._origin_of(head)
                request_id = proxy.request_id(head)
                if proxy.accounts.tracer is not None:
                    span = proxy.accounts.tracer.begin(head.method, head.target, head.noted.get(b"traceparent"))
                    origin = traced(head, span) + origin
                exchange = Exchange(proxy.forwarder, task, stream, head, found, request_id, origin)
                if proxy.in_flight > proxy.most_in_flight:
                    raise Overloaded(
                        f"{proxy.most_in_flight} requests are being worked on already; try again in a second"
                    )
                await exchange.run(rest)
                self.pending, status = exchange.rest, exchange.status
                self._read = WHOLE_READ if exchange.received <= SMALL_BYTES else FIRST_READ
                self._last = not exchange.reusable
                return exchange.reusable
            proxy.remember(head_bytes, head, found)
            reply = await proxy.pages.reply(head, found, task, self._admin)
            status, sent = reply.status, len(reply.body)
            again = head.keep_alive and head.length == 0 and not proxy.draining
            await self._say(reply.encode(head.method, not again, head.http11), again)
            self.pending = rest
            return again
        except ProxyError as error:
            if exchange is not None and exchange.started:
                raise ClientGone(str(error)) from error  # a second answer must not follow the first
            reply = refusal(error)
            status, sent = reply.status, len(reply.body)
            await self._say(reply.encode(head.method if head else b"", True, True), False)
            return False
        except AnswerBroken:
            status = WorkerLost.status
            raise
        except ClientGone:
            status = GONE
            raise
        finally:
            proxy.in_flight -= 1
            if status:
                proxy.accounts.settle(
                    self.peer, head, found, exchange, status, sent, proxy.reactor.now - began, request_id, span
                )
            if proxy.draining:
                proxy.ended()

    async def _head(self, data: bytes) -> bytes:
        """`data` and more, until there is a head; less if the client left in the middle of it."""
        task = self._task
        task.deadline = task.now + self._proxy.settings.head_seconds
        searched, empty = 0, False
        while True:
            if not empty and data[:2] == b"\r\n":  # RFC 9112 2.2: an empty line before a request is overlooked
                data, searched, empty = data[2:], 0, True
            if data.find(END, searched) >= 0:
                return data
            if len(data) > MAX_HEAD:
                raise HeadTooLarge(f"the head of the request is larger than {MAX_HEAD} bytes")
            searched = max(0, len(data) - 3)
            try:
                more = await self.stream.recv(FIRST_READ)
            except TimeoutError:
                if not data:
                    return b""
                seconds = self._proxy.settings.head_seconds
                raise RequestTimeout(f"the head of the request did not come within {seconds:g} s") from None
            if not more:
                return b""
            data += more

    def _origin_of(self, head: RequestHead) -> bytes:
        """The lines that say where this request came from; the same for all that a client sends to one host."""
        if b"x-forwarded-for" in head.noted and self._proxy.trusts(self.peer):
            return origin(self.peer, self._proxy.scheme, head.host, head.noted[b"x-forwarded-for"])
        if head.host != self._host:
            self._host, self._origin = head.host, origin(self.peer, self._proxy.scheme, head.host)
        return self._origin

    async def _say(self, answer: bytes, again: bool) -> None:
        self._task.deadline = self._task.now + self._proxy.settings.stall_seconds
        try:
            await self.stream.send(answer)
        except (TimeoutError, OSError) as error:
            raise ClientGone("the client does not take its answer") from error
        self._last = not again

    async def _linger(self) -> None:
        """Reads on a little before closing: a close with bytes unread is a reset, which can overtake our answer.

        RFC 9112 9.6.
        """
        stream, left = self.stream, LINGER_BYTES
        stream.finish_sending()
        self._task.deadline = self._task.now + LINGER_SECONDS
        try:
            while left > 0 and (data := await stream.recv(128 * 1024)):
                left -= len(data)
        except (TimeoutError, OSError):
            pass

    def __repr__(self) -> str:
        return f"<Connection {self.peer} [{self.requests} requests, {'resting' if self.resting else 'at work'}]>"


def traced(head: RequestHead, span: Span) -> bytes:
    """The traceparent of `span` in place of the caller's; a trace that begins here has no tracestate of others."""
    head.kept = without(head.kept, {b"traceparent", b"tracestate"} if span.new else {b"traceparent"})
    return b"traceparent: %b\r\n" % span.header
