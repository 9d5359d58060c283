"""The body of one request: held as far as it may be, and carried to a worker, again if need be.

small            read into a buffer: sent with the head in one call
up to the window moved into a pipe by the kernel (or read into memory, where it cannot), and sent from a tee of it
larger           passed through as it comes; it cannot be sent again, and neither can what found no room
chunked          decoded: held in memory up to the window and then of known length, else chunked again
"""

from __future__ import annotations

import fcntl
import termios
from typing import Final

from .chunks import LAST, Dechunker, chunk
from .errors import BodyTooLarge, ClientGone, RequestTimeout
from .head import RequestHead
from .holding import SMALL_BYTES, Holding
from .pipes import MOVE_BYTES, Pipe
from .reactor import EVENT, Task
from .stream import Stream

READ_BYTES: Final = 128 * 1024
MIN_RATE = 1024  # bytes a second, on average, beside the stall that is allowed: slower is not an upload but a siege


class Upload:
    """`length`: of the body if it is known, else None. `left`: bytes still to come; of an unknown length, those that may.

    `replayable`: nothing of it was passed on that is not held too. `piece`: all of it, where one piece of memory holds it.
    """

    # What most uploads never need is set where it is needed.
    replayable: bool = True
    rest: bytes = b""
    piece: bytes | memoryview | None
    _first: bytes = b""
    _memory: list[bytes]
    _buffer: bytearray | None = None
    _pipe: Pipe | None = None
    _dechunker: Dechunker | None = None
    _reserved: int = 0
    _started: float = -1.0

    def __init__(
        self, task: Task, client: Stream, head: RequestHead, first: bytes, holding: Holding, max_body: int, stall: float
    ) -> None:
        """`first`: what came along with the head. Raises BodyTooLarge."""
        self._task, self._client, self._holding, self._max_body, self._stall = task, client, holding, max_body, stall
        self.length = length = head.length
        self.piece = None
        if length is None:
            self._dechunker, self._first, self.left = Dechunker(), first, max_body + 1
        elif length > max_body:
            raise too_large(max_body)
        elif len(first) >= length:
            self.left = 0
            if len(first) > length:
                first, self.rest = first[:length], first[length:]
            self.piece = first
        else:
            self._first, self.left = first, length - len(first)

    @property
    def received(self) -> int:
        return self.length - self.left if self.length is not None else self._max_body + 1 - self.left

    async def hold(self) -> None:
        """Reads all of it that may be held; not to be called when it is whole.

        Raises ClientGone, RequestTimeout, BodyTooLarge, BadRequest.
        """
        self._memory = []
        if self.length is None:
            await self._hold_chunks()
        elif self.length > max(self._holding.window, SMALL_BYTES) or not self._reserve_to(self.length):
            self._memory = [self._first]
        elif self.length <= SMALL_BYTES:
            await self._hold_small(self.length)
        else:
            self._memory = [self._first]
            self._pipe = self._holding.pipe() if self._client.spliceable else None
            if self._pipe is not None:
                await self._hold_in_pipe(self._pipe)
            else:
                while self.left:
                    self._memory.append(await self._read(min(READ_BYTES, self.left)))

    async def _hold_small(self, length: int) -> None:
        self._buffer = buffer = self._holding.buffer()
        view = memoryview(buffer)[:length]
        at = len(self._first)
        view[:at] = self._first
        try:
            while at < length:
                self._await_client()
                count = await self._client.recv_into(view[at:])
                if not count:
                    raise ClientGone("the client broke off its upload")
                at += count
                self.left -= count
        except TimeoutError:
            raise self._too_slow() from None
        except OSError as error:
            raise ClientGone(f"the client broke off its upload: {error}") from None
        self.piece = view

    async def _hold_in_pipe(self, pipe: Pipe) -> None:
        while self.left and not pipe.full:
            self.left -= await self._fill(pipe, self.left)
        if pipe.full:  # so many small packets: the rest cannot be held beside them
            self.replayable = False

    async def _hold_chunks(self) -> None:
        assert self._dechunker is not None
        window, data, held = self._holding.window, self._first, 0
        while True:
            for piece in self._dechunker.feed(data):
                self._memory.append(piece)
                held += len(piece)
                self.left -= len(piece)
                if self.left <= 0:
                    raise too_large(self._max_body)
            if self._dechunker.done:
                self.left, self.rest = 0, self._dechunker.rest
                self.length = held
                break
            if held >= window or not self._reserve_to(held):
                break
            data = await self._read(min(READ_BYTES, window))

    def _reserve_to(self, count: int) -> bool:
        if count > self._reserved:
            if not self._holding.reserve(count - self._reserved, self._reserved > 0):
                return False
            self._reserved = count
        return True

    async def send(self, worker: Stream, head: bytes, seconds: float) -> bool:
        """`head`, and all of a body that is not in one piece. False: the worker has something to say before it took it all.

        `seconds`: how long the worker may take for each piece of what is not held. Raises TimeoutError and
        ConnectionError for the worker, ClientGone and its like for the client.
        """
        pieces = self._memory
        if self.length is None:
            pieces = [chunk(piece) for piece in pieces if len(piece)]
        if pieces:
            head, pieces = head + pieces[0], pieces[1:]
        sent = worker.try_send(head, more=self._pipe is not None and self._pipe.held > 0)
        if sent < len(head) and not await worker.send_rest(head, sent, True):
            return False
        for piece in pieces:
            if not await worker.send(piece, True):
                return False
        if self._pipe is not None and not await self._send_held(self._pipe, worker):
            return False
        if self.left == 0:
            return self.length is not None or await worker.send(LAST, True)
        self.replayable = False
        if self.length is None:
            return await self._pass_chunks(worker, seconds)
        pipe = self._holding.passing_pipe() if self._client.spliceable and worker.spliceable else None
        if pipe is None:
            return await self._pass_copies(worker, seconds)
        try:
            return await self._pass_pipe(pipe, worker, seconds)
        finally:
            self._holding.give_passing(pipe)

    async def _send_held(self, pipe: Pipe, worker: Stream) -> bool:
        """From a second pipe that refers to the same pages; from the only one, if there can be no second."""
        copy = self._holding.pipe() if self.replayable else None
        if copy is not None and not pipe.copy_to(copy):
            copy.close()
            copy = None
        if copy is None:
            self.replayable = False
        try:
            return await self._drain(copy or pipe, worker, self.left > 0)
        finally:
            if copy is not None:
                self._holding.give_pipe(copy)

    async def _drain(self, pipe: Pipe, worker: Stream, more: bool) -> bool:
        while pipe.held:
            try:
                pipe.drain(worker.fd, more)
            except BlockingIOError:
                worker.unwritable()
                while not worker.writable:
                    if worker.readable:
                        return False
                    await EVENT
        return True

    async def _pass_pipe(self, pipe: Pipe, worker: Stream, seconds: float) -> bool:
        task, turns = self._task, 0
        while self.left:
            self.left -= await self._fill(pipe, min(self.left, MOVE_BYTES), worker)
            if worker.readable:
                return False
            task.deadline = task.now + seconds
            if not await self._drain(pipe, worker, self.left > 0):
                return False
            turns += 1
            if turns % 16 == 0:
                await task.others()
        return True

    async def _pass_copies(self, worker: Stream, seconds: float) -> bool:
        turns = 0
        while self.left:
            data = await self._read(min(READ_BYTES, self.left), worker)
            if worker.readable:
                return False
            self._task.deadline = self._task.now + seconds
            if not await worker.send(data, True):
                return False
            turns += 1
            if turns % 16 == 0:
                await self._task.others()
        return True

    async def _pass_chunks(self, worker: Stream, seconds: float) -> bool:
        assert self._dechunker is not None
        while not self._dechunker.done:
            data = await self._read(READ_BYTES, worker)
            if worker.readable:
                return False
            pieces = []
            for piece in self._dechunker.feed(data):
                pieces.append(chunk(piece))
                self.left -= len(piece)
                if self.left <= 0:
                    raise too_large(self._max_body)
            if self._dechunker.done:
                self.left, self.rest = 0, self._dechunker.rest
                pieces.append(LAST)
            self._task.deadline = self._task.now + seconds
            if pieces and not await worker.send(b"".join(pieces), True):
                return False
        return True

    async def _fill(self, pipe: Pipe, most: int, worker: Stream | None = None) -> int:
        """Into the pipe; marks it full when it takes no more. Returns early, with 0, when the worker speaks."""
        client = self._client
        while True:
            if client.readable:
                try:
                    count = pipe.fill(client.fd, most)
                except BlockingIOError:
                    if pipe.held and _waiting(client.fd):
                        pipe.full = True
                        return 0
                    client.unreadable()
                    continue
                except OSError as error:
                    raise ClientGone(f"the client broke off its upload: {error}") from None
                if not count:
                    raise ClientGone("the client broke off its upload")
                return count
            if worker is not None and worker.readable:
                return 0
            self._await_client()
            try:
                await EVENT
            except TimeoutError:
                raise self._too_slow() from None

    async def _read(self, most: int, worker: Stream | None = None) -> bytes:
        client = self._client
        while worker is not None and not client.readable:
            if worker.readable:
                return b""
            self._await_client()
            try:
                await EVENT
            except TimeoutError:
                raise self._too_slow() from None
        self._await_client()
        try:
            data = await client.recv(most)
        except TimeoutError:
            raise self._too_slow() from None
        except OSError as error:
            raise ClientGone(f"the client broke off its upload: {error}") from None
        if not data:
            raise ClientGone("the client broke off its upload")
        if self.length is not None:
            self.left -= len(data)
        return data

    def _await_client(self) -> None:
        """The client's time, not the worker's: so long without a byte, and so slow on the whole."""
        now = self._task.now
        if self._started < 0:
            self._started = now
        self._task.deadline = min(now, self._started + self.received / MIN_RATE) + self._stall

    def _too_slow(self) -> RequestTimeout:
        return RequestTimeout(
            f"the upload stood still for {self._stall:g} s, or came at less than {MIN_RATE} bytes a second"
        )

    def close(self) -> None:
        """Gives back all that held it."""
        if self._buffer is not None:
            self._holding.give_back(self._buffer)
            self._buffer = None
        if self._pipe is not None:
            self._holding.give_pipe(self._pipe)
            self._pipe = None
        if self._reserved:
            self._holding.release(self._reserved)
            self._reserved = 0


def too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the upload is larger than {most} bytes, which is all that is accepted")


def _waiting(fd: int) -> bool:
    """Whether a socket has bytes to read (FIONREAD: man 4 tty_ioctl, man 7 tcp)."""
    return fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0"
