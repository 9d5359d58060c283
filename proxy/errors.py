"""What the proxy itself answers with, instead of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ProxyError(Exception):
    """Base; `status` and `headers` go into the answer, the text into its `{"error": ...}`."""

    status = 500
    headers: ClassVar[Mapping[str, str]] = {}


class ClientGone(ConnectionError):
    """The client broke off, or takes nothing any more: nobody's fault, and nobody is left to answer."""


class AnswerBroken(ConnectionError):
    """The worker broke off in the middle of its answer. `framed`: a client sees from what it got that it is not all."""

    def __init__(self, text: str, framed: bool) -> None:
        super().__init__(text)
        self.framed = framed


class BadRequest(ProxyError):
    status = 400


class Unauthorized(ProxyError):
    """An administrator's page, asked for without the token."""

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(ProxyError):
    """An administrator's page, asked for without the right to it."""

    status = 403


class NotFound(ProxyError):
    """A reserved path that is not there, or a service nobody ever registered."""

    status = 404


class MethodNotAllowed(ProxyError):
    status = 405
    headers: ClassVar[Mapping[str, str]] = {"Allow": "GET, HEAD"}


class BodyTooLarge(ProxyError):
    status = 413


class RequestTimeout(ProxyError):
    """A head, or a body, that did not come in its time."""

    status = 408


class TargetTooLong(ProxyError):
    status = 414


class UnknownExpectation(ProxyError):
    status = 417


class HeadTooLarge(ProxyError):
    status = 431


class UnsupportedFraming(ProxyError):
    """A transfer coding other than chunked."""

    status = 501


class UnsupportedVersion(ProxyError):
    """A request line with another version than HTTP/1.0 or 1.1."""

    status = 505


class WorkerLost(ProxyError):
    """The worker broke the connection, and the upload could not be sent to another."""

    status = 502


class WorkerAnswersBadly(ProxyError):
    """It answers with what is no HTTP, or what could be read in two ways."""

    status = 502


class Overloaded(ProxyError):
    """More requests, or connections, than the proxy was told to hold."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class NoWorker(ProxyError):
    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class DeadlineExceeded(ProxyError):
    status = 504
