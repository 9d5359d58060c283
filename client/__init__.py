"""Find a worker, send it an image.

Nouns: a `Client` (or `SyncClient`) uploads images and returns `Prediction`s; a `Resolver` keeps a `Pool` of `Upstream`s per
service up to date; a *balancer* chooses among those the pool offers; `retry` says what may be tried again.
"""

from typing import TYPE_CHECKING

from ..worker.tensor import Prediction
from .errors import Busy, ClientError, DeadlineExceeded, ImageRefused, InputRefused, NoWorker, Unreachable, WorkerFailed

if TYPE_CHECKING:
    from .client import Client
    from .sync import SyncClient

__all__ = [
    "Busy",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "ImageRefused",
    "InputRefused",
    "NoWorker",
    "Prediction",
    "SyncClient",
    "Unreachable",
    "WorkerFailed",
]


def __getattr__(name: str) -> object:
    """A proxy takes the pool and the resolver, and does without the HTTP client."""
    if name == "Client":
        from .client import Client

        return Client
    if name == "SyncClient":
        from .sync import SyncClient

        return SyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
