"""A call of a method: until when somebody waits for it, what is said beside its answer, and how errors are said."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from ...errors import BadRequest, Overloaded, TooLarge, WorkerError
from ...wire.timing import Timing

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # what gRPC itself says of a message that is too large
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
PUSHBACK = "grpc-retry-pushback-ms"  # gRPC's Retry-After; a negative one: do not try again


@dataclass(slots=True)
class Call:
    """`deadline`: when nobody waits for the answer any longer, in seconds of the engine's clock. `timing`: what the
    engine measured, set by the method."""

    deadline: float
    timing: Timing | None = None


# Takes the request's message, gives the answer's; raises WorkerError.
Behaviour = Callable[[Any, Call], Awaitable[Any]]


class FailedPrecondition(BadRequest):
    """The model is there, but cannot be asked for this."""


class Unimplemented(WorkerError):
    """The protocol knows it, this worker does not."""

    status = 501


def code_of(error: WorkerError) -> grpc.StatusCode:
    if isinstance(error, FailedPrecondition):
        return grpc.StatusCode.FAILED_PRECONDITION
    return CODES.get(error.status, grpc.StatusCode.INTERNAL)


def metadata_of(error: WorkerError) -> tuple[tuple[str, str], ...]:
    """When to try again, for clients that do so by themselves: gRPC's proposal A6."""
    if isinstance(error, Overloaded):
        return ((PUSHBACK, str(math.ceil(max(error.retry_after, 0) * 1000))),)
    if isinstance(error, TooLarge):
        return ((PUSHBACK, "-1"),)
    return ()
