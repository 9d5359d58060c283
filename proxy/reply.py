"""What the proxy itself answers, as bytes. Sans-io."""

from __future__ import annotations

import json
from http import HTTPStatus

from .errors import ProxyError


class Reply:
    """What the proxy itself answers."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.status, self.body, self.content_type, self.headers = status, body, content_type, headers

    def encode(self, method: bytes, close: bool, http11: bool, added: bytes = b"") -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        ending = "Connection: close\r\n" if close else "" if http11 else "Connection: keep-alive\r\n"
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n{lines}{ending}"
        ).encode("latin-1")
        return head + added + b"\r\n" + (b"" if method == b"HEAD" else self.body)


def refusal(error: ProxyError) -> Reply:
    """An error as everybody gets it: `{"error": "what was wrong and what was expected"}`."""
    body = json.dumps({"error": str(error)}).encode() + b"\n"
    return Reply(error.status, body, headers=tuple(error.headers.items()))
