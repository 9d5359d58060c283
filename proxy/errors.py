"""What the proxy itself answers with, instead of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ProxyError(Exception):
    """Base; `status` and `headers` go into the answer, the text into its `{"error": ...}`."""

    status = 500
    headers: ClassVar[Mapping[str, str]] = {}


class BadRequest(ProxyError):
    status = 400


class NotFound(ProxyError):
    """A reserved path that is not there, or a service nobody ever registered."""

    status = 404


class MethodNotAllowed(ProxyError):
    status = 405
    headers: ClassVar[Mapping[str, str]] = {"Allow": "GET, HEAD"}


class BodyTooLarge(ProxyError):
    status = 413


class UnknownExpectation(ProxyError):
    status = 417


class UnsupportedFraming(ProxyError):
    """A transfer coding other than chunked."""

    status = 501


class UnsupportedVersion(ProxyError):
    """A request line with another version than HTTP/1.0 or 1.1."""

    status = 505


class WorkerLost(ProxyError):
    """The worker broke the connection, and the upload could not be sent to another."""

    status = 502


class NoWorker(ProxyError):
    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class DeadlineExceeded(ProxyError):
    status = 504
