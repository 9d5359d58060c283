"""What a caller can meet: who erred decides the class, and `status` is what a server said, or would say."""

from __future__ import annotations


class ClientError(Exception):
    """Base of every error the client library raises on purpose."""

    status = 500


class InputRefused(ClientError):
    """The worker would not take what was sent: an unknown tensor, another dtype or shape. Trying again will not help."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ImageRefused(InputRefused):
    """The worker would not take this image: not an image, broken, too large."""


class NoWorker(ClientError):
    """Nobody serves this model at the moment."""

    status = 503


class Busy(ClientError):
    """Every worker that was asked is at its limit."""

    status = 429


class WorkerFailed(ClientError):
    """A worker answered with an error that is its own fault, or with something that is no answer."""

    status = 502


class Unreachable(ClientError):
    """Nobody answers at the address that was given."""

    status = 502


class DeadlineExceeded(ClientError):
    """No answer in time."""

    status = 504
