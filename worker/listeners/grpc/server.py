"""gRPC: one port for TensorFlow Serving's protocol and the Open Inference Protocol, with health checks and reflection.

Services are built from the tables of worker/wire: their messages live in a pool of their own, and disturb nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import _async as reflection
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ...errors import BadRequest, ConfigurationError, ModelError, NotReady, WorkerError
from ...wire import load, protobuf
from ...wire.timing import FIELD, completed
from . import health, model_service, openinference, predict
from .call import Behaviour, Call, code_of, metadata_of
from .health import Health

if TYPE_CHECKING:
    from ..http.message import Served

log = logging.getLogger("fairway.worker")

SPARE = 1 << 16  # bytes of a message beside its tensors or pictures
WATCHERS = 100  # calls beside those of a model: health checks, reflection
LAST_SECONDS = 1.0  # for clients that must be told, answers that are being sent, and streams that nobody closes
QUIET_SECONDS = 0.1  # without a call: who still had this address has been told
SERVICES = (predict, model_service, openinference)


class GrpcListener:
    """`port`: the one it is bound to, as soon as it is made; it answers between `start` and `close`.

    Raises ConfigurationError where the port cannot be had.
    """

    def __init__(self, served: Served, host: str, port: int, *, max_bytes: int, deadline_seconds: float) -> None:
        self._served, self._deadline_seconds = served, deadline_seconds
        self._in_flight, self._idle, self._closing = 0, asyncio.Event(), False
        self._refused = asyncio.Event()
        self._idle.set()
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_bytes + SPARE),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two workers on one port would each get half of the calls
            ),
            # What is beyond this is refused before it is kept; the engine refuses earlier, and says more.
            maximum_concurrent_rpcs=2 * served.engine.max_waiting + WATCHERS,
        )
        names = []
        for service in SERVICES:
            known = protobuf.methods(service.SERVICE)
            self._serve(service.SERVICE, {
                name: self._handler(known[name], behaviour)
                for name, behaviour in service.methods(served, max_bytes).items()
            })  # fmt: skip
            names.append(service.SERVICE)
        self._health = Health(served, names)
        self._serve(health.SERVICE, self._health.handlers())
        self._reflect([*names, health.SERVICE])
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigurationError(f"the worker cannot listen on {address} for gRPC; is the port taken?") from error

    async def start(self) -> None:
        await self._server.start()

    async def close(self, finish_seconds: float) -> None:
        """Refuses new calls, waits so long for those in flight, and ends what is left."""
        self._closing = True
        self._health.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(finish_seconds):
                await self._idle.wait()
        last_seconds = min(LAST_SECONDS, finish_seconds)
        # A server that is stopped cuts off what arrives at that moment, as CANCELLED, which no client tries again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(last_seconds):
                while not await self._is_quiet():
                    pass
        await self._server.stop(last_seconds)

    # -- one call ---------------------------------------------------------------------------------------------------

    def _serve(self, service: str, handlers: dict[str, Any]) -> None:
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _handler(self, method: protobuf.Method, behaviour: Behaviour) -> Any:
        # Messages are read and written here, not by gRPC, whose own errors would say nothing.
        async def one(raw: bytes, context: Any) -> bytes:
            began = time.monotonic()
            call = self._call(context, began)
            try:
                answer = await self._answer(method, behaviour, raw, call)
            except WorkerError as error:
                await self._refuse(context, error)
            said = [self._load()]
            if call.timing is not None:
                said.append((FIELD.lower(), completed(call.timing, time.monotonic() - began)))
            context.set_trailing_metadata(said)
            return answer

        async def many(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for raw in requests:
                try:
                    answer = await self._answer(method, behaviour, raw, self._call(context, time.monotonic()))
                except WorkerError as error:
                    await self._refuse(context, error)
                yield answer

        if method.streams:
            return grpc.stream_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(one)

    async def _answer(self, method: protobuf.Method, behaviour: Behaviour, raw: bytes, call: Call) -> bytes:
        """Raises WorkerError's children."""
        if self._closing:
            self._refused.set()
            raise NotReady("the worker is stopping; try another one")
        self._in_flight += 1
        self._idle.clear()
        try:
            answer: bytes = (await behaviour(_read(method, raw), call)).SerializeToString()
            return answer
        except WorkerError:
            raise
        except Exception as error:
            log.exception("%s failed", method.path)
            raise ModelError(f"the worker failed: {type(error).__name__}") from error
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _call(self, context: Any, now: float) -> Call:
        remaining = context.time_remaining()
        seconds = self._deadline_seconds if remaining is None else min(remaining, self._deadline_seconds)
        return Call(now + seconds)

    async def _is_quiet(self) -> bool:
        self._refused.clear()
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self._refused.wait()
        except TimeoutError:
            return True
        return False

    def _load(self) -> tuple[str, str]:
        return load.FIELD, load.encode(*self._served.engine.load())

    async def _refuse(self, context: Any, error: WorkerError) -> None:
        await context.abort(code_of(error), str(error), (self._load(), *metadata_of(error)))

    def _reflect(self, names: list[str]) -> None:
        """Lets grpcurl and its kin find out what there is."""
        own = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
        pool = protobuf.build(*protobuf.TABLES)
        for file in (health.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            pool.AddSerializedFile(file.serialized_pb)
        servicer = reflection.ReflectionServicer([*names, own], pool=pool)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._server)


def _read(method: protobuf.Method, raw: bytes) -> Any:
    try:
        return method.request.FromString(raw)
    except DecodeError as error:
        raise BadRequest(f"these bytes are no {method.request.DESCRIPTOR.full_name}") from error
