"""Answers as they go out: one head, its length always known, then the body."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

from ...errors import Overloaded, WorkerError
from ...wire import answer
from .errors import MethodNotAllowed
from .message import JSON, Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JOINED = 64 * 1024  # a body up to this size is joined with its head: one piece of memory, one system call
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def refusal(error: WorkerError) -> Response:
    """`{"error": text}`, with the fields that belong to its status."""
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if error.status in (429, 503):
        seconds = error.retry_after if isinstance(error, Overloaded) else 1.0
        headers["Retry-After"] = str(max(1, ceil(seconds)))
    return Response(answer.encode_error(str(error)), error.status, JSON, headers)


def encode(response: Response, more: str, body_too: bool = True) -> bytes | list[bytes | memoryview]:
    """The bytes of an answer. `more`: whole lines for its head. Without `body_too` it is an answer to HEAD.

    Raises ValueError if a field has a line end in it.
    """
    body = response.body
    length = len(body) if isinstance(body, bytes) else sum(map(_size, body))
    lines = "".join([f"{name}: {_line(value)}\r\n" for name, value in response.headers.items()])
    kind = f"Content-Type: {response.content_type}\r\n" if length or response.content_type != JSON else ""
    head = f"{STATUS_LINES[response.status]}{kind}Content-Length: {length}\r\n{lines}{more}\r\n".encode(
        "latin-1", "replace"
    )
    if not body_too:
        return head
    if isinstance(body, bytes):
        return head + body if length <= JOINED else [head, body]
    return b"".join((head, *body)) if length <= JOINED else [head, *body]


def _line(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise ValueError(f"a line end in a field of an answer: {value!r}")
    return value


def _size(part: bytes | memoryview) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)
