"""Plain coroutines on raw sockets: one edge-triggered epoll set, which the asyncio loop polls as if it were a single file.

asyncio's own streams and protocols hand every byte through Python objects, a task switch and a buffer of their own. Here a
coroutine tries the system call first, and only when that would block gives way until an event comes for one of *its*
sockets. So one upload is one coroutine that reads from top to bottom, and costs what its system calls cost.

An edge says only "there is news": `Stream.readable` and `writable` keep it until a call says that there is nothing left.
Where there is no epoll (not Linux), streams ask the loop for one event at a time instead; nobody else sees the difference.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable, Coroutine, Generator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .stream import Stream

log = logging.getLogger("fairway.proxy")

FORM = "interpreted" if __file__.endswith(".py") else "compiled"  # the whole data path, or nothing of it

SWEEP_SECONDS: Final = 0.1  # how late a deadline may be noticed
EVENTS: Final = 256  # taken in one turn; the loop's other work comes between two turns

if hasattr(select, "epoll"):
    EDGES: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
    OUT: Final = select.EPOLLOUT
    ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Event:
    """`await EVENT`: gives way until there is news for one of this task's streams.

    Raises TimeoutError past the task's deadline.
    """

    __slots__ = ()

    def __await__(self) -> Generator[None]:
        yield


EVENT: Final = Event()


class Task:
    """One coroutine of the reactor. `deadline` is for whatever it waits for next; it moves it along as it goes."""

    __slots__ = ("_coroutine", "_future", "_reactor", "deadline", "spent")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._coroutine: Coroutine[Any, None, None] | None = None
        self._future: asyncio.Future[Any] | None = None
        self.spent = False
        self.deadline = inf

    @property
    def now(self) -> float:
        return self._reactor.now

    async def others(self) -> None:
        """Lets others run: for one that finds something to do for ever."""
        self.spent = True
        self._reactor.later(self)
        while self.spent:
            await EVENT

    def run(self, coroutine: Coroutine[Any, None, None]) -> None:
        """To its first wait."""
        self._coroutine = coroutine
        self.step()

    def step(self, error: BaseException | None = None) -> None:
        """Runs it to its next wait. Called for each event of its streams."""
        if self._future is not None or self._coroutine is None:
            return  # it waits for something else, and the streams remember their news; or it has ended
        try:
            waiting = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._end()
        except asyncio.CancelledError:  # by `close`, or of the future it waited for: the loop ends
            self._end()
        except Exception:
            log.exception("a connection's task failed")
            self._end()
        else:
            if waiting is not None:  # an asyncio future, as `await future` yields it
                waiting._asyncio_future_blocking = False
                self._future = waiting
                waiting.add_done_callback(self._resume)

    def fail(self, error: BaseException) -> None:
        """Raises `error` where it waits."""
        if self._future is not None:
            future, self._future = self._future, None
            future.remove_done_callback(self._resume)
            future.cancel()
        self.step(error)

    def _end(self) -> None:
        self._coroutine = None
        self._reactor.tasks.discard(self)

    def _resume(self, future: asyncio.Future[Any]) -> None:
        self._future = None
        self.step()

    def __repr__(self) -> str:
        return f"<Task {self._coroutine} {'waits' if self._future else 'listens'}>"


class Reactor:
    """`start()` and `close()` within a running loop. `now` is the time of the turn, in seconds (monotonic)."""

    def __init__(self) -> None:
        self.now = monotonic()
        self.tasks: set[Task] = set()
        self._streams: dict[int, Stream] = {}
        self._spent: list[Task] = []  # had their share of this turn
        self._epoll = select.epoll() if hasattr(select, "epoll") else None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._epoll is not None:
            self._loop.add_reader(self._epoll.fileno(), self._turn)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Ends what still runs: each task is cancelled where it waits."""
        for task in list(self.tasks):
            task.fail(asyncio.CancelledError())
        for stream in list(self._streams.values()):
            stream.close()
        self._sweeper.cancel()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def run(self, coroutine: Callable[[Task], Coroutine[Any, None, None]]) -> Task:
        """Starts `coroutine(task)` at once."""
        task = Task(self)
        self.tasks.add(task)
        task.run(coroutine(task))
        return task

    def add(self, stream: Stream) -> None:
        self._streams[stream.fd] = stream
        if self._epoll is not None:
            self._epoll.register(stream.fd, EDGES)

    def remove(self, stream: Stream) -> None:
        """Before its socket is closed, which takes it out of the epoll set."""
        self._streams.pop(stream.fd, None)

    def later(self, task: Task) -> None:
        """Steps `task` when others have had their turn."""
        if not self._spent:
            self._loop.call_soon(self._go_on)
        self._spent.append(task)

    def _go_on(self) -> None:
        self.now = monotonic()
        spent, self._spent = self._spent, []
        for task in spent:
            task.spent = False
            task.step()

    def _turn(self) -> None:
        self.now = monotonic()
        assert self._epoll is not None
        streams = self._streams
        for fd, mask in self._epoll.poll(0, EVENTS):
            stream = streams.get(fd)
            if stream is None:
                continue  # closed earlier in this turn
            if mask != OUT:
                stream.readable = True
                if mask & ENDED:
                    stream.ended = True
            if mask & OUT:
                stream.writable = True
            task = stream.task
            if task is not None:
                task.step()
            else:
                stream.stirred()

    def _sweep(self) -> None:
        self.now = now = monotonic()
        for task in [task for task in self.tasks if task.deadline <= now]:
            task.deadline = inf
            task.fail(TimeoutError())
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def __repr__(self) -> str:
        return f"<Reactor {len(self.tasks)} tasks, {len(self._streams)} streams>"
