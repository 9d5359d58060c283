"""One client's connection: its requests one after the other, each answered before the next is read."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import AnswerBroken, ClientGone, HeadTooLarge, Overloaded, ProxyError, RequestTimeout
from .forward import Exchange
from .head import END, MAX_HEAD, RequestHead, origin, parse_request
from .reactor import Task, event
from .reply import refusal
from .route import Route, route
from .stream import Stream

if TYPE_CHECKING:
    from .server import Proxy

log = logging.getLogger("fairway.proxy")

FIRST_READ = 4096  # a head and little more: what follows it may go by another way than through here
LINGER_BYTES, LINGER_SECONDS = 8 * 1024 * 1024, 2.0
MEMORABLE = 256  # bytes of a target whose route is kept
cached_route = lru_cache(1024)(route)


class Connection:
    """`resting`: between two requests. `peer`: the client's address, for the log and the worker."""

    __slots__ = ("_proxy", "_task", "peer", "pending", "requests", "resting", "stream")

    def __init__(self, proxy: Proxy, stream: Stream, peer: str) -> None:
        self._proxy, self.stream, self.peer = proxy, stream, peer
        self.pending = b""
        self.requests, self.resting = 0, True

    async def serve(self, task: Task) -> None:
        self._task = self.stream.task = task
        try:
            if await self.stream.handshake(task, self._proxy.settings.head_seconds):
                while await self._one():
                    pass
        except ClientGone:
            self.stream.abort()  # an answer under way is broken off, so that nobody takes it for a whole one
        except AnswerBroken as error:
            if not error.framed:
                self.stream.abort()
        except (TimeoutError, OSError):
            pass
        finally:
            self.stream.close()
            self._proxy.closed(self)

    async def refuse(self, task: Task) -> None:
        """Says that there is no room, to whatever the client wants."""
        self._task = self.stream.task = task
        try:
            if self.stream.spliceable:  # a TLS handshake would be the most expensive part of it
                answer = refusal(Overloaded("too many connections; try again in a second")).encode(b"GET", True, True)
                await self._say(answer, False)
        except (TimeoutError, OSError):
            pass
        finally:
            self.stream.close()
            self._proxy.closed(self)

    def drain(self) -> None:
        """Ends it if it rests. One that has just been sent a request answers it, and is closed then."""
        if self.resting and not (self.stream.readable or self.stream.peek()):
            self._task.fail(ConnectionAbortedError("the proxy stops"))

    async def _one(self) -> bool:
        """One request. Whether another one may follow."""
        proxy, stream, task = self._proxy, self.stream, self._task
        data, self.pending = self.pending, b""
        if not data:
            if proxy.draining:
                return False
            self.resting = True
            task.deadline = task.now + (proxy.settings.idle_seconds if self.requests else proxy.settings.head_seconds)
            while not data:
                while not stream.readable:
                    await event()
                read = stream.try_recv(FIRST_READ)
                if read is not None:
                    if not read:
                        return False
                    data = read
            self.resting = False
        self.requests += 1
        began = task.now
        proxy.began()
        head: RequestHead | None = None
        exchange: Exchange | None = None
        try:
            end = data.find(END)
            if end < 0 or data.startswith(b"\r\n"):
                data = await self._head(data)
                end = data.find(END)
                if end < 0:
                    return False
            if end > MAX_HEAD:
                raise HeadTooLarge(f"the head of the request is larger than {MAX_HEAD} bytes")
            head_bytes, data = data[:end], data[end + 4 :]
            known = proxy.lookups.get(head_bytes)
            if known is not None and not data:  # `GET /` once more, byte for byte
                head, found = known
            else:
                head = parse_request(head_bytes)
                found = self._route(head)
                proxy.remember(head_bytes, head, found)
            if found.manner == "forward":
                if proxy.in_flight > proxy.settings.max_in_flight:
                    raise Overloaded(
                        f"{proxy.in_flight - 1} requests are being worked on already; try again in a second"
                    )
                added = proxy.request_line(head)
                exchange = Exchange(proxy.forwarder, task, stream, head, found, added, self._origin(head))
                await exchange.run(data)
                self.pending = exchange.rest
                again = exchange.reusable
                proxy.forwarded(self, head, found, exchange, began)
                if again:
                    return True
                await self._linger()
                return False
            reply = await proxy.reply(head, found, task)
            whole = head.length == 0
            again = head.keep_alive and whole and not proxy.draining
            await self._say(reply.encode(head.method, not again, head.http11), again)
            self.pending = data
            proxy.replied(self, head, found, reply.status, len(reply.body), began)
            return again
        except ProxyError as error:
            if exchange is not None and exchange.started:
                raise ClientGone(str(error)) from error  # a second answer must not follow the first
            reply = refusal(error)
            await self._say(reply.encode(head.method if head else b"", True, True), False)
            proxy.refused(self, head, error, exchange, began)
            return False
        except (ClientGone, AnswerBroken) as error:
            proxy.gone(self, head, exchange, error, began)
            raise
        finally:
            proxy.ended()

    async def _head(self, data: bytes) -> bytes:
        """`data` and more, until there is a head; less if the client left in the middle of it."""
        task = self._task
        task.deadline = task.now + self._proxy.settings.head_seconds
        searched = 0
        if data[:2] == b"\r\n":  # RFC 9112 2.2: an empty line before a request is overlooked
            data = data[2:]
        while data.find(END, searched) < 0:
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
            data = data + more if data or more[:2] != b"\r\n" else more[2:]
        return data

    def _route(self, head: RequestHead) -> Route:
        settings = self._proxy.settings
        named = head.noted.get(b"x-fairway-service")
        choose = cached_route if len(head.target) <= MEMORABLE else route
        return choose(
            settings.mode,
            head.method.decode("ascii"),
            head.target.decode("ascii"),
            None if named is None else named.decode("latin-1"),
            settings.service,
        )

    def _origin(self, head: RequestHead) -> bytes:
        before = b""
        if b"x-forwarded-for" in head.noted and self._proxy.trusts(self.peer):
            before = head.noted[b"x-forwarded-for"]
        return origin(self.peer, self._proxy.scheme, head.host, before)

    async def _say(self, answer: bytes, again: bool) -> None:
        self._task.deadline = self._task.now + self._proxy.settings.stall_seconds
        try:
            await self.stream.send(answer)
        except (TimeoutError, OSError) as error:
            raise ClientGone("the client does not take its answer") from error
        if not again:
            await self._linger()

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
