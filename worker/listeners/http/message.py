"""A request that has come whole, and an answer that goes out whole: what the server gives to a protocol, and takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from re import Pattern
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from ...engine import Engine
    from ...repository import Repository

JSON = "application/json"
SMALL_BYTES = 256 * 1024  # of text that is read, or will be written, in the loop; with more a thread is busy
Result = TypeVar("Result")


@dataclass(slots=True)
class Response:
    """`body`: one piece of memory, or several that are sent one after the other. `headers`: beyond type and length."""

    body: bytes | list[bytes | memoryview] = b""
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """`path`: percent-encoded, as it came, without the query. `headers`: by lower-case name; of several fields of one name
    the values joined by commas. `body`: all of it, `Content-Encoding` taken off; within the limit of uploads.

    `deadline`: when nobody waits for the answer any longer, in seconds of the engine's clock (`time.monotonic`).
    """

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes
    deadline: float

    @cached_property
    def query(self) -> dict[str, str]:
        """Of parameters that are given twice, the last."""
        return {name: values[-1] for name, values in parse_qs(self.raw_query, keep_blank_values=True).items()}

    @property
    def content_type(self) -> str:
        """In lower case, without parameters; empty if not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


Handler = Callable[..., Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Route:
    """`path`: a text that is the whole path, or a pattern that matches all of it; its named groups are percent-decoded
    and given to `handler(request, **groups)`; those that did not take part are left out.

    What a handler raises as WorkerError becomes `{"error": text}` with its status; anything else a 500. It is cancelled
    when the request's deadline is past, or its client gone; `patient`: only then. `takes`, `gives`: media types, for
    /openapi.json.
    """

    method: str
    path: str | Pattern[str]
    handler: Handler
    summary: str = ""  # one line for /openapi.json
    takes: tuple[str, ...] = (JSON,)  # of a POST or PUT
    gives: tuple[str, ...] = (JSON,)
    patient: bool = False


@dataclass(frozen=True)
class Served:
    """What protocols work with. Each of their files has `routes(served) -> list[Route]`."""

    engine: Engine
    repository: Repository
    service: str
    cors: bool = False


async def run(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """`work(*arguments)`, which is about `size` bytes of text.

    This bounds, and does not cure: the parser keeps the interpreter to itself, in a thread as well. The loop gets its turn
    between the steps of reading, of which the longest takes about a millisecond a megabyte; see --max-json-bytes.
    """
    return work(*arguments) if size <= SMALL_BYTES else await asyncio.to_thread(work, *arguments)
