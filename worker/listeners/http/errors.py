"""What HTTP itself can refuse, beside the worker's own errors, and the status it is answered with."""

from __future__ import annotations

from ...errors import WorkerError


class MethodNotAllowed(WorkerError):
    """There is something at this path, but not for this method. `allowed`: the methods there are."""

    status = 405

    def __init__(self, text: str, allowed: tuple[str, ...]) -> None:
        super().__init__(text)
        self.allowed = allowed


class RequestTimeout(WorkerError):
    """The head of the request, or its body, did not come in its time."""

    status = 408


class TargetTooLong(WorkerError):
    """The request target is longer than is read."""

    status = 414


class UnsupportedCoding(WorkerError):
    """A Content-Encoding that is not understood here."""

    status = 415


class UnknownExpectation(WorkerError):
    """An Expect field that says anything but 100-continue."""

    status = 417


class HeadTooLarge(WorkerError):
    """More bytes, or more fields, than are read of a head."""

    status = 431


class UnsupportedFraming(WorkerError):
    """A Transfer-Encoding that is not understood here."""

    status = 501


class UnsupportedVersion(WorkerError):
    """Neither HTTP/1.1 nor HTTP/1.0."""

    status = 505
