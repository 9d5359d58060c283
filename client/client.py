"""Find a worker, send it an image: the client library.

    async with Client("http://127.0.0.1:12480") as client:
        print(await client.classify("daisy.jpg"))

By address: the proxy is asked for a few workers at a time; their addresses are kept for the time it allows and used in
turn. An upload that fails is tried again (retry.py is the table of it): by address and redirect on another worker at once,
with the same one, or with the proxy, after a pause; all within one deadline, and within a budget all uploads share.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from aiohttp import hdrs

from ..worker.errors import BadRequest
from ..worker.tensor import Prediction
from ..worker.wire import answer, multipart
from .addresses import AddressCache
from .config import Via
from .courier import Courier, Failed, Parcel, origin
from .errors import Busy, ClientError, DeadlineExceeded, InputRefused
from .retry import ATTEMPTS, CLIENT_AGAIN, FIRST_ATTEMPTS, FIRST_PAUSE, Attempts, Budget, Failure

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")
Source = str | os.PathLike[str] | bytes

KEEP_SECONDS = 1.0  # the proxy is away: for how long its last word is used before it is asked again
ASK_AGAIN = 5  # a proxy that redirects to a worker that has just failed us is asked for another one so often


class Client:
    """`url`: the proxy's; `via`: address, forward or redirect; `timeout`: seconds for one image, attempts included.

    `attempt_timeout`: seconds after which a worker that takes nothing and answers nothing is given up for another one;
    half of `timeout`, if not given. Shorter is better where answers come quickly.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:12480",
        *,
        via: Via = "address",
        service: str = "",
        timeout: float = 30.0,
        attempt_timeout: float | None = None,
    ) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.via = via
        self.timeout = timeout
        headers = {"X-Fairway-Service": service} if service else {}
        self._courier = Courier(headers, timeout / 2 if attempt_timeout is None else attempt_timeout)
        self._addresses = AddressCache()
        self._budget = Budget()
        self._met = False  # whether a worker has ever answered: who has not may be where we think in vain
        self._looking: asyncio.Task[None] | None = None
        self._refused: tuple[float, Failed] | None = None  # until when, and why, the proxy is not asked for addresses

    async def __aenter__(self) -> Self:
        await self._courier.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._courier.__aexit__(kind, error, trace)

    async def classify(self, image: Source, top: int = answer.DEFAULT_TOP) -> Prediction:
        """`image`: a path, or the bytes of an image file. Raises ClientError's children, and OSError for the path."""
        data = image if isinstance(image, bytes) else await asyncio.to_thread(_read, image)
        name = "image" if isinstance(image, bytes) else os.path.basename(image)
        body, content_type = multipart.encode({"data": (name, data)})
        query = f"?top={top}" if top != answer.DEFAULT_TOP else ""
        return await self._deliver(
            Parcel(query, body, {hdrs.CONTENT_TYPE: content_type}, lambda _, said: answer.decode(said), "a prediction")
        )

    async def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        model: str,
        *,
        version: str | int = "",
        outputs: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Tensors in and out, by name, as bytes over the Open Inference Protocol. `version`: a number, or a label.

        Texts and bytes travel as BYTES, and come as arrays of objects; BF16 comes as float32. A model that sees pictures
        takes them encoded as well: `{"image": [jpeg, ...]}` -> `scores`, (n, classes). `outputs`: those wanted; all of
        them, if none is named. Raises what `classify` raises, and ValueError for what has no form in the protocol.
        """
        try:
            import numpy as np

            from ..worker.wire import openinference
        except ImportError as error:
            raise ClientError(f"tensors need NumPy and more: pip install 'fairway[worker]' ({error})") from error

        def read(headers: Mapping[str, str], body: bytes) -> dict[str, NDArray[Any]]:
            try:
                length = openinference.header_length(headers.get(openinference.HEADER), len(body))
                return openinference.decode_response(body, length).outputs
            except BadRequest as error:
                raise ValueError(str(error)) from error

        # NumPy's own strings of bytes lose the zeros at their ends.
        arrays = {
            name: a if (a := np.asarray(v)).dtype.kind != "S" else np.array(v, object) for name, v in inputs.items()
        }
        wanted = tuple(openinference.RequestedOutput(name, binary=True) for name in outputs)
        try:
            pieces, length = openinference.encode_request(openinference.InferRequest(arrays, wanted, binary=True))
        except BadRequest as error:
            raise ValueError(str(error)) from error
        path = f"v2/models/{quote(model, safe='')}" + (f"/versions/{quote(str(version), safe='')}" if version else "")
        headers = {hdrs.CONTENT_TYPE: openinference.BINARY, openinference.HEADER: str(length)}
        return await self._deliver(Parcel(f"{path}/infer", b"".join(pieces), headers, read, "tensors", InputRefused))

    async def classify_many(
        self,
        images: Iterable[Source] | AsyncIterable[Source],
        *,
        concurrency: int = 16,
        top: int = answer.DEFAULT_TOP,
    ) -> AsyncGenerator[tuple[Source, Prediction | ClientError | OSError]]:
        """(image, its prediction or its error) in the order of `images`; one bad image does not end the others.

        At most `concurrency` uploads at once; `images` is read only a little ahead of them.
        """
        source = images if isinstance(images, AsyncIterable) else _one_by_one(images)
        reader, slots = aiter(source), asyncio.Semaphore(concurrency)
        running: deque[tuple[Source, asyncio.Task[Prediction | ClientError | OSError]]] = deque()
        reading: asyncio.Task[Source | None] | None = None
        exhausted = False
        try:
            while running or not exhausted:
                if reading is None and not exhausted and len(running) < 4 * concurrency:
                    reading = asyncio.ensure_future(_next(reader))
                await asyncio.wait(
                    {task for task in (reading, running[0][1] if running else None) if task is not None},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading is not None and reading.done():
                    image, reading = reading.result(), None
                    if image is None:
                        exhausted = True
                    else:
                        running.append((image, asyncio.create_task(self._one_of_many(image, top, slots))))
                while running and running[0][1].done():
                    image, task = running.popleft()
                    yield image, task.result()
        finally:
            left: list[asyncio.Task[Any]] = [task for _, task in running]
            left += [reading] if reading is not None else []
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)  # nothing of it outlives the client's session

    async def _one_of_many(
        self, image: Source, top: int, slots: asyncio.Semaphore
    ) -> Prediction | ClientError | OSError:
        async with slots:
            try:
                return await self.classify(image, top)
            except (ClientError, OSError) as error:
                return error

    async def _deliver(self, parcel: Parcel[T]) -> T:
        course = _Course(self._now() + self.timeout, self.url)
        self._budget.request(self._now())
        try:
            async with asyncio.timeout_at(course.attempts.deadline):
                return await self._attempts(parcel, course)
        except TimeoutError as error:
            before = f"; before that: {course.last}" if course.last else ""
            raise DeadlineExceeded(f"no answer from {course.asked} within {self.timeout:g} s{before}") from error

    async def _attempts(self, parcel: Parcel[T], course: _Course) -> T:
        while True:
            place = self.url
            try:
                url = await self._whom(parcel, course)
                place = self.url if self.via == "forward" else origin(url)
                await self._turn(place, course)
                course.asked = url
                found = await self._courier.upload(url, parcel)
            except Failed as failed:
                now = self._now()
                self._heard(place, failed, now)
                course.last = failed
                most = ATTEMPTS if self._met else FIRST_ATTEMPTS
                again = course.attempts.failed(place, failed.failure, failed.told, now, most)
                if not again or not self._budget.spend(now):
                    raise failed.error from failed
                continue
            self._met = True
            self._addresses.answered(place)
            return found

    async def _whom(self, parcel: Parcel[T], course: _Course) -> str:
        """The URL to upload to."""
        match self.via:
            case "forward":
                return f"{self.url}/{parcel.path}"
            case "address":
                return await self._next_address(course) + parcel.path
        for _ in range(ASK_AGAIN):
            await self._turn(self.url, course)
            course.asked = f"{self.url}/-/direct/{parcel.path}"
            location = await self._courier.redirect(course.asked, parcel)
            place = origin(location)
            if place not in course.attempts.places and not self._addresses.resting(place, self._now()):
                break
        return location

    async def _turn(self, place: str, course: _Course) -> None:
        """Waits until `place` may be asked; raises the last failure if that would be too late."""
        pause = course.attempts.pause(place, self._now(), random.random())
        if pause is None:
            assert course.last is not None, "only who has failed is waited for"
            raise course.last.error from course.last
        if pause:
            await asyncio.sleep(pause)

    def _heard(self, place: str, failed: Failed, now: float) -> None:
        """What one upload has met, the others need not meet."""
        self._met = self._met or isinstance(failed.error, Busy)
        if place != self.url:
            rest = CLIENT_AGAIN[failed.failure][1] if failed.told is None else failed.told
            self._addresses.failed(place, now, rest, ill=failed.failure is not Failure.BUSY)

    async def _next_address(self, course: _Course) -> str:
        """A worker's URL, from the cache or from the proxy; preferably none that has failed this image."""
        while not self._addresses.fresh(self._now()):
            await self._turn(self.url, course)
            course.asked = self.url
            # Whoever comes meanwhile shares the look-up under way, and its failure; and that, until it may be asked again.
            if self._looking is None:
                if self._refused and (left := self._refused[0] - self._now()) > 0:
                    refused = self._refused[1]
                    raise Failed(refused.failure, refused.error, left)
                self._looking = asyncio.create_task(self._renew())
                self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen by somebody
            await asyncio.shield(self._looking)
            if self._addresses.known:  # even if they may be kept for no time at all
                break
        return self._addresses.next(self._now(), course.attempts.places)

    async def _renew(self) -> None:
        try:
            self._addresses.fill(await self._courier.look_up(self.url), self._now())
            self._refused = None
        except Failed as failed:
            if failed.failure is Failure.BUSY or not self._addresses.known:
                self._refused = (self._now() + (failed.told or FIRST_PAUSE), failed)
                raise
            self._addresses.keep(self._now() + KEEP_SECONDS)  # it is away; its workers need not be
        finally:
            # Within the task, so that nobody can meet one that is over and still in its place.
            self._looking = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def __repr__(self) -> str:
        return f"<Client {self.url} via {self.via} [{self._addresses!r}]>"


class _Course:
    """One image on its way: `asked` and `last` are for its caller's error."""

    def __init__(self, deadline: float, asked: str) -> None:
        self.attempts, self.asked = Attempts(deadline), asked
        self.last: Failed | None = None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except ValueError as error:  # a NUL in it: no file is called so
        raise FileNotFoundError(errno.ENOENT, str(error), os.fspath(path)) from error


async def _one_by_one(images: Iterable[Source]) -> AsyncIterator[Source]:
    for image in images:
        yield image


async def _next(reader: AsyncIterator[Source]) -> Source | None:
    return await anext(reader, None)
