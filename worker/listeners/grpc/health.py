"""grpc.health.v1: whether the worker can be sent requests, as a whole and by the name of any of its services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

if TYPE_CHECKING:
    from ..http.message import Served

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
DESCRIPTOR = health_pb2.DESCRIPTOR
SHORT = ("PredictionService", "ModelService")  # what TensorFlow Serving calls them here
WATCH_SECONDS = 1.0  # how late a watcher may hear of it: readiness is asked for, it is announced to nobody


class Health:
    """`services`: full names of those that are served; the empty one is the worker."""

    def __init__(self, served: Served, services: list[str]) -> None:
        self._served = served
        self._known = {"", SERVICE, *services, *SHORT}
        self._closed = asyncio.Event()

    def handlers(self) -> dict[str, Any]:
        asked, answered = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, asked, answered),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, asked, answered),
        }

    def close(self) -> None:
        """Watchers are told, and let go: they would hold up the end."""
        self._closed.set()

    def _status(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        if service not in self._known:
            return statuses.SERVICE_UNKNOWN
        ready = self._served.engine.ready and self._served.repository.ready and not self._closed.is_set()
        return statuses.SERVING if ready else statuses.NOT_SERVING

    async def _check(self, request: Any, context: Any) -> Any:
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        said = None
        while True:
            closed = self._closed.is_set()
            if (status := self._status(request.service)) != said:
                yield health_pb2.HealthCheckResponse(status=status)
                said = status
            if closed:
                return
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._closed.wait()
            except TimeoutError:
                pass
