"""One client's connection: its requests one after the other, each answered before the next is read.

Bytes are read into one piece of memory that all connections share, and copied once, into the body they belong to. What
comes while a request is being answered is kept, and no more is read until then: pipelining costs one read.
"""

from __future__ import annotations

import asyncio
import logging
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, cast

from ...errors import DeadlineExceeded, WorkerError
from .call import Call
from .errors import HeadTooLarge, RequestTimeout
from .head import END, MAX_HEAD, Head
from .message import Response
from .reply import CONTINUE, encode, refusal
from .router import Matched

if TYPE_CHECKING:
    from .server import HttpListener

log = logging.getLogger("fairway.worker")

KEEP_ALIVE_SECONDS = 120.0  # longer than any proxy keeps an idle connection, so that it is never we who cut one in use
HEAD_SECONDS = 10.0  # from a head's first byte to its last
STALL_SECONDS = 30.0  # an upload that makes no progress for this long is given up, and so is an answer nobody takes
MIN_RATE = 1024  # bytes a second: what an upload must come at, after its first STALL_SECONDS
SKIPPED_BYTES = 1024 * 1024  # a refused body up to this size is read to its end, and the connection goes on
LINGER_BYTES, LINGER_SECONDS = 8 * 1024 * 1024, 2.0
SHARE = 32  # requests in one go

STAGES = ("reads a head", "reads a body", "reads chunks", "answers", "sends", "skips", "lingers", "closes")
READING_HEAD, READING_BODY, READING_CHUNKS, ANSWERING, FLUSHING, SKIPPING, LINGERING, CLOSING = range(len(STAGES))


class Connection(asyncio.BufferedProtocol):
    """`deadline`: of what it waits for, in seconds of `time.monotonic`; past it the listener calls `expire`."""

    __slots__ = (
        "_began", "_body", "_call", "_clogged", "_feeding", "_head", "_held", "_left", "_listener", "_matched", "_partial",
        "_paused", "_received", "_settled", "_stage", "_transport", "_unsent", "_uploads", "deadline",
    )  # fmt: skip

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._stage, self._left = READING_HEAD, 0
        self._head: Head | None = None  # of the request being read or answered
        self._matched: Matched | None = None
        self._settled = True  # whether it is no longer counted among those in flight
        self._began, self._received = 0.0, 0
        self._call: Call | None = None
        self._body = BytesIO()
        self._partial, self._held = b"", b""  # of a head; of what came while a request was answered
        self._clogged = self._paused = self._feeding = False
        self._unsent = 0
        self._uploads = False  # whether it counts among those that hold a body

    # -- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = monotonic() + HEAD_SECONDS
        self._listener.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._stage = CLOSING
        self._listener.left(self)
        call, self._call = self._call, None
        if call is not None:
            call.cancel()  # nobody is left to answer
        self._settle()
        self._forget()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._listener.buffer

    def buffer_updated(self, count: int) -> None:
        buffer = self._listener.buffer
        if self._partial:
            data = self._partial + buffer[:count]
            self._partial = b""
            self._feed(data, len(data))
        else:
            self._feed(buffer, count)

    def eof_received(self) -> None:
        """Who says nothing more waits for nothing more: the transport closes, and its request is cancelled."""

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        if self._stage == FLUSHING:
            self._next()

    # -- called by the listener -------------------------------------------------------------------------------------

    @property
    def resting(self) -> bool:
        """Between two requests."""
        return self._stage == READING_HEAD and not self._partial and not self._held

    def expire(self, now: float) -> None:
        """What it waits for did not come in its time."""
        stage = self._stage
        if stage == ANSWERING and self._call is not None:
            self.deadline = now + STALL_SECONDS
            self._call.cancel(DeadlineExceeded(f"no answer within {self._listener.deadline_seconds:g} s"))
        elif stage == READING_HEAD and self._partial:
            self._refuse(RequestTimeout(f"the head of the request did not come within {HEAD_SECONDS:g} s"))
        elif stage in (READING_BODY, READING_CHUNKS):
            self._refuse(RequestTimeout(f"the upload stood still for {STALL_SECONDS:g} s, or came too slowly"))
        elif stage in (FLUSHING, LINGERING, CLOSING) and 0 < self._transport.get_write_buffer_size() < self._unsent:
            self._unsent = self._transport.get_write_buffer_size()
            self.deadline = now + STALL_SECONDS  # slowly, but it is taken
        else:
            self._transport.abort()

    def finish(self) -> None:
        """No further request is read: one at rest ends now, one at work with its answer."""
        if self.resting:
            self._end(linger=True)

    def abort(self) -> None:
        self._transport.abort()

    # -- reading ----------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes | bytearray, end: int) -> None:
        """Takes in `data[:end]`; what belongs to a later request is held until this one is answered."""
        at, share = 0, SHARE
        self._feeding = True
        while at < end:
            stage = self._stage
            if stage == READING_HEAD and share:
                share -= 1
                at = self._take_head(data, at, end)
            elif stage == READING_BODY:
                at = self._take_body(data, at, end)
            elif stage == READING_CHUNKS:
                self._take_chunks(bytes(data[at:end]))
                break
            elif stage in (SKIPPING, LINGERING):
                at = self._skip(at, end)
            elif stage == CLOSING:
                break
            else:
                self._held = bytes(data[at:end])
                if not self._paused:
                    self._paused = True
                    self._transport.pause_reading()
                if stage == READING_HEAD:  # who asks without end, and never waits, keeps nobody waiting
                    asyncio.get_running_loop().call_soon(self._go_on)
                break
        self._feeding = False

    def _go_on(self) -> None:
        """With what was held."""
        if self._held and self._stage not in (ANSWERING, FLUSHING, CLOSING):
            held, self._held = self._held, b""
            self._feed(held, len(held))
        if self._paused and not self._held and self._stage != CLOSING:
            self._paused = False
            self._transport.resume_reading()

    def _take_head(self, data: bytes | bytearray, at: int, end: int) -> int:
        if data.startswith(b"\r\n", at, end):  # RFC 9112 2.2: an empty line before a request is overlooked
            at += 2
        stop = data.find(END, at, end)
        if stop - at > MAX_HEAD or (stop < 0 and end - at > MAX_HEAD):
            self._refuse(HeadTooLarge(f"the head of the request is larger than {MAX_HEAD} bytes"))
            return end
        if stop < 0:
            self._partial = bytes(data[at:end])
            if self._partial:
                self._began = self._began or monotonic()
                self.deadline = self._began + HEAD_SECONDS
            return end
        self._began = 0.0
        raw, at = bytes(data[at : stop + 4]), stop + 4
        self._settled = False
        self._listener.in_flight += 1
        try:
            head = self._head = Head(raw)
            self._matched = self._listener.admit(head)
        except WorkerError as error:
            self._refuse(error)
            return at
        if head.length == 0:
            self._run(b"")
            return at
        self._uploads = True
        self._listener.uploads += 1
        if head.length is not None and end - at >= head.length:
            self._run(bytes(memoryview(data)[at : at + head.length]))
            return at + head.length
        if head.expects and at == end:
            self._transport.write(CONTINUE)
        self._began, self._received = monotonic(), 0
        self.deadline = self._began + STALL_SECONDS
        self._stage, self._left = (READING_CHUNKS, 0) if head.length is None else (READING_BODY, head.length)
        return at

    def _take_body(self, data: bytes | bytearray, at: int, end: int) -> int:
        stop = min(end, at + self._left)
        self._body.write(memoryview(data)[at:stop])
        self._left -= stop - at
        if self._left:
            self._came(stop - at)
        else:
            self._run(self._whole())
        return stop

    def _take_chunks(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        try:
            for piece in head.feed(data):
                self._body.write(piece)
            if self._body.tell() > self._listener.max_bytes:
                raise self._listener.too_large(None)
        except WorkerError as error:
            self._refuse(error)
            return
        if not head.complete:
            self._came(len(data))
            return
        head.keep_alive = head.keep_alive and not head.more
        self._run(self._whole())

    def _came(self, count: int) -> None:
        """More of a body: its time is counted anew, but not for ever."""
        self._received += count
        self.deadline = min(monotonic(), self._began + self._received / MIN_RATE) + STALL_SECONDS

    def _whole(self) -> bytes:
        body, self._body = self._body.getvalue(), BytesIO()
        return body

    def _skip(self, at: int, end: int) -> int:
        """Of a refused body, or of what comes before the connection ends."""
        stop = min(end, at + self._left)
        self._left -= stop - at
        if self._stage == LINGERING:
            if not self._left:
                self._stage = CLOSING
                self._transport.abort()
        elif self._left:
            self.deadline = monotonic() + STALL_SECONDS
        else:
            self._next()
        return stop

    # -- answering --------------------------------------------------------------------------------------------------

    def _run(self, body: bytes) -> None:
        assert self._head is not None
        assert self._matched is not None
        self._stage, self._began = ANSWERING, monotonic()
        coroutine, self.deadline = self._listener.handle(self._head, self._matched, body)
        self._call = Call(coroutine, self._answer)
        self._call.start()

    def _answer(self, response: Response | None, error: BaseException | None) -> None:
        """What became of a request. Called at once, or when its handler is through."""
        self._call = None
        if response is None:
            response = self._listener.failure(error)
        head = self._head
        assert head is not None
        if head.keep_alive and not self._listener.draining:
            self._say(response)
            self._next()
        else:
            self._say(response, closing=True)
            # Who asked for the end sends no more. Others may have: a close with bytes unread is a reset, which can
            # overtake the answer (RFC 9112 9.6).
            self._end(linger=head.keep_alive)

    def _refuse(self, error: WorkerError) -> None:
        """Before the request has come whole. A small body is read to its end, behind a larger one the connection ends."""
        head = self._head
        left = head.length if head is not None and self._stage == READING_HEAD else None
        goes_on = head is not None and head.keep_alive and not head.expects and not self._listener.draining
        if left is None or left > SKIPPED_BYTES:
            goes_on = False
        self._say(refusal(error), closing=not goes_on)
        if not goes_on:
            self._end(linger=True)
        elif left:
            self._stage, self._left = SKIPPING, left
            self.deadline = monotonic() + STALL_SECONDS
        else:
            self._next()

    def _say(self, response: Response, closing: bool = False) -> None:
        self._settle()
        head = self._head
        more = self._listener.fields(response, self._began)
        if closing:
            more += "Connection: close\r\n"
        elif head is not None and not head.http11:
            more += "Connection: keep-alive\r\n"
        answer = encode(response, more, head is None or head.method != "HEAD")
        if isinstance(answer, bytes):
            self._transport.write(answer)
        else:
            self._transport.writelines(answer)

    def _next(self) -> None:
        """The request is through; the next one may come, once its answer is on its way."""
        self._forget()
        self._began = 0.0
        if self._clogged:
            self._stage = FLUSHING
            self._unsent = self._transport.get_write_buffer_size() + 1
            self.deadline = monotonic() + STALL_SECONDS
            return
        self._stage = READING_HEAD
        self.deadline = monotonic() + KEEP_ALIVE_SECONDS
        if not self._feeding and self._paused:
            self._go_on()

    def _end(self, linger: bool) -> None:
        """Says no more. `linger`: reads on a little, so that a client who still sends gets to read its answer."""
        self._forget()
        self._held = b""
        self._unsent = self._transport.get_write_buffer_size() + 1
        if linger and self._transport.can_write_eof():
            self._stage, self._left = LINGERING, LINGER_BYTES
            self.deadline = monotonic() + LINGER_SECONDS
            self._transport.write_eof()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
        else:
            self._stage = CLOSING
            self.deadline = monotonic() + STALL_SECONDS
            self._transport.close()

    def _settle(self) -> None:
        """The request counts no more among those in flight."""
        if not self._settled:
            self._settled = True
            self._listener.settle(self._uploads)
            self._uploads = False

    def _forget(self) -> None:
        """Nothing of this request is held any more."""
        if self._head is not None:
            self._head.forget()
            self._head = None
        self._matched = None
        self._partial = b""
        if self._body.tell():
            self._body = BytesIO()

    def __repr__(self) -> str:
        return f"<Connection [{STAGES[self._stage]}]>"
