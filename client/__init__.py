"""Find a worker, send it an image.

Nouns: a `Client` (or `SyncClient`) uploads images and returns `Prediction`s; a `Resolver` keeps a `Pool` of `Upstream`s per
service up to date; a *balancer* chooses among those the pool offers; `retry` says what may be tried again.
"""

from ..worker.tensor import Prediction
from .client import Client
from .errors import Busy, ClientError, DeadlineExceeded, ImageRefused, NoWorker, Unreachable, WorkerFailed
from .sync import SyncClient

__all__ = [
    "Busy",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "ImageRefused",
    "NoWorker",
    "Prediction",
    "SyncClient",
    "Unreachable",
    "WorkerFailed",
]
