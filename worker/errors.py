"""What can go wrong in a worker, and the HTTP status a listener answers it with.

Flat on purpose. `BadRequest` and its kin mean *the caller erred*; `ModelError` and its kin mean *we failed*.
"""

from __future__ import annotations

from ..registry.errors import ConfigurationError

__all__ = [
    "BadRequest",
    "BrokenImage",
    "ConfigurationError",
    "DeadlineExceeded",
    "ModelError",
    "NotAnImage",
    "NotFound",
    "NotReady",
    "Overloaded",
    "TooLarge",
    "WorkerError",
]


class WorkerError(Exception):
    """Base of every error a worker raises on purpose; its text is fit to be shown to the caller."""

    status = 500


# -- the caller erred -------------------------------------------------------------------------------------------


class BadRequest(WorkerError):
    """The request is not one this worker understands."""

    status = 400


class BrokenImage(WorkerError):
    """It begins like an image, but cannot be decoded."""

    status = 400


class NotAnImage(WorkerError):
    """Nothing known to the decoder begins like this."""

    status = 415


class NotFound(WorkerError):
    """No such model, version, label or signature."""

    status = 404


class TooLarge(WorkerError):
    """More bytes or more pixels than the worker was told to accept."""

    status = 413


# -- we failed ----------------------------------------------------------------------------------------------------


class ModelError(WorkerError):
    """The model failed on a valid input."""

    status = 500


class NotReady(WorkerError):
    """The model is not loaded yet, or the worker is draining."""

    status = 503


class Overloaded(WorkerError):
    """More requests are waiting than the worker was told to hold.

    `queue`: how many wait. `retry_after`: seconds until there will be room, at the rate of late; at least 1 is said.
    """

    status = 429

    def __init__(self, text: str, queue: int = 0, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.queue, self.retry_after = queue, retry_after


class DeadlineExceeded(WorkerError):
    """Its time was over before the model came to it; it was not run."""

    status = 504
