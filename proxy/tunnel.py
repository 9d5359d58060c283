"""Bytes both ways, after a 101: the proxy understands nothing of them."""

from __future__ import annotations

from .errors import ClientGone
from .reactor import EVENT, Task
from .stream import Stream

READ_BYTES = 64 * 1024
IDLE_SECONDS = 3600.0  # neither side said anything: WebSockets that live send pings


class _Way:
    """One direction: what was read on one side and not yet taken by the other."""

    __slots__ = ("ended", "source", "target", "unsent")

    def __init__(self, source: Stream, target: Stream, unsent: bytes) -> None:
        self.source, self.target, self.unsent, self.ended = source, target, unsent, False

    def move(self) -> int:
        """As far as it goes without waiting; how many bytes were taken."""
        moved = 0
        while moved < 16 * READ_BYTES:
            if not self.unsent:
                if self.ended or not self.source.readable:
                    break
                data = self.source.try_recv(READ_BYTES)
                if data is None:
                    break
                if not data:
                    self.ended = True
                    self.target.finish_sending()
                    break
                self.unsent = data
            if not self.target.writable:
                break
            sent = self.target.try_send(self.unsent)
            self.unsent = self.unsent[sent:]
            moved += sent
        return moved


async def tunnel(task: Task, client: Stream, unsent: bytes, worker: Stream) -> int:
    """Until either side has ended and the other took all of it; bytes to the client. Raises ClientGone."""
    up, down = _Way(client, worker, unsent), _Way(worker, client, b"")
    count = 0
    task.deadline = task.now + IDLE_SECONDS
    try:
        while not ((up.ended and not up.unsent) or (down.ended and not down.unsent)):
            moved = down.move()
            count += moved
            if up.move() + moved:
                task.deadline = task.now + IDLE_SECONDS
                await task.others()
            else:
                await EVENT
    except (TimeoutError, OSError) as error:
        raise ClientGone("the tunnel broke") from error
    return count
