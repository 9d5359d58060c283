"""The Open Inference Protocol over gRPC, called with Triton's client in a process of its own; health and reflection."""

# ruff: noqa: E402  the libraries may be missing, and then the whole file is skipped
from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("grpc_reflection", reason="grpcio-reflection is not installed")
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.listeners.grpc.server import GrpcListener
from fairway.worker.listeners.http.message import Served
from fairway.worker.wire.protobuf import methods

from .colours import plain
from .foreign import triton_python
from .grpc_door import LIMIT, GrpcDoor, open_door, write_twice

OIP = methods("inference.GRPCInferenceService")
BEGIN = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)  # what hangs says where
import sys
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
client = triton.InferenceServerClient(sys.argv[1])
def tensor(name, array, datatype):
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made
def rows(*values):
    return [tensor("x", np.array(values, "float32"), "FP32")]
def refused(code, text, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        assert error.status() == "StatusCode." + code, error
        assert text in error.message(), error
    else:
        raise AssertionError("not refused")
"""

END = """
client.close()  # its __del__ would, while the interpreter ends, and may wait for ever then
"""


@pytest.fixture
async def door() -> AsyncIterator[GrpcDoor]:
    async with open_door() as opened:
        yield opened


async def triton(door: GrpcDoor, script: str, *words: str, after: threading.Event | None = None) -> None:
    """Runs `script` where Triton's client is; what it asserts must hold. It may read a line, which comes with `after`."""
    process = await asyncio.create_subprocess_exec(
        await asyncio.to_thread(triton_python), "-c", BEGIN + script + END, door.address, *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    if after is not None:
        await asyncio.to_thread(after.wait, 20)
    async with asyncio.timeout(60):
        said, _ = await process.communicate(b"go on\n")
    assert not process.returncode, said.decode()


async def test_what_there_is(door: GrpcDoor) -> None:
    script = """
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("half") and client.is_model_ready("half", "1")
refused("NOT_FOUND", "Could not find any versions of model third", client.is_model_ready, "third")
server = client.get_server_metadata()
assert server.name == "fairway" and "classification" in server.extensions
model = client.get_model_metadata("half")
assert (model.name, list(model.versions), model.platform) == ("half", ["1", "2"], "python")
assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("x", "FP32", [-1, 2])]
assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [("half", "FP32", [-1, 2]), ("total", "FP32", [-1])]
config = client.get_model_config("half").config
assert config.max_batch_size > 0 and list(config.input[0].dims) == [2] and config.input[0].data_type == 11
index = {(m.name, m.version): m.state for m in client.get_model_repository_index().models}
assert index == {("half", "1"): "READY", ("half", "2"): "READY", ("colours", "1"): "READY"}
refused("NOT_FOUND", "Specific(half, 7)", client.get_model_metadata, "half", "7")
refused("UNIMPLEMENTED", "", client.get_system_shared_memory_status)
"""
    await triton(door, script)


async def test_tensors_pictures_and_classes(door: GrpcDoor) -> None:
    script = """
result = client.infer("half", rows([1, 2], [3, 4]), request_id="42")
assert result.as_numpy("half").tolist() == [[0.5, 1], [1.5, 2]] and result.as_numpy("total").tolist() == [3, 7]
said = result.get_response()
assert (said.id, said.model_name, said.model_version) == ("42", "half", "2")
only = client.infer("half", rows([1, 2]), model_version="1", outputs=[triton.InferRequestedOutput("total")])
assert only.get_response().model_version == "1" and only.as_numpy("half") is None
red, blue = (bytes.fromhex(word) for word in sys.argv[2:])
pictures = [tensor("image", np.array([red, blue], object), "BYTES")]
scores = client.infer("colours", pictures).as_numpy("scores")
assert scores.shape == (2, 3) and scores.argmax(axis=1).tolist() == [0, 2]
best = client.infer("colours", pictures, outputs=[triton.InferRequestedOutput("scores", class_count=1)])
assert [text.split(b":")[2] for text in best.as_numpy("scores").reshape(-1)] == [b"red", b"blue"]
pixels = [tensor("image", np.full((1, 4, 4, 3), 7, "float32"), "FP32")]
assert client.infer("colours", pixels).as_numpy("scores").shape == (1, 3)
compressed = client.infer("half", rows([1, 2]), compression_algorithm="gzip")
assert compressed.as_numpy("total").tolist() == [3]
statistics = client.get_inference_statistics("half", "2").model_stats[0]
assert (statistics.name, statistics.version) == ("half", "2") and statistics.inference_stats.success.count >= 2
"""
    await triton(door, script, plain("#c02020").hex(), plain("#2020c0").hex())


async def test_wrong_calls_are_told_of(door: GrpcDoor) -> None:
    script = """
infer = client.infer
refused("NOT_FOUND", "Servable not found for request: Latest(third)", infer, "third", rows([1, 2]))
refused("NOT_FOUND", "Servable not found for request: Specific(half, 7)", infer, "half", rows([1, 2]), "7")
refused("INVALID_ARGUMENT", "Unrecognized servable version label: best", infer, "half", rows([1, 2]), "best")
refused("INVALID_ARGUMENT", "shape", infer, "half", rows([1, 2, 3]))
refused("INVALID_ARGUMENT", "float64", infer, "half", [tensor("x", np.ones((1, 2)), "FP64")])
refused("INVALID_ARGUMENT", "'y'", infer, "half", [tensor("y", np.ones((1, 2), "float32"), "FP32")])
refused("INVALID_ARGUMENT", "no output 'z'", infer, "half", rows([1, 2]), outputs=[triton.InferRequestedOutput("z")])
refused("INTERNAL", "13 has no half", infer, "half", rows([13, 1]))
refused("INVALID_ARGUMENT", "not an image", infer, "colours", [tensor("image", np.array([b"text"], object), "BYTES")])
refused("INVALID_ARGUMENT", "takes no pictures", infer, "half", [tensor("image", np.array([b"text"], object), "BYTES")])
refused("RESOURCE_EXHAUSTED", "larger than", infer, "half", rows(*[[0, 0]] * 20_000))
refused("RESOURCE_EXHAUSTED", "larger than", infer, "half", rows(*[[0, 0]] * 2_000_000), compression_algorithm="gzip")
assert infer("half", rows([1, 2])).as_numpy("total").tolist() == [3]
"""
    await triton(door, script)
    assert door.engine.waiting == 0


async def test_a_stream(door: GrpcDoor) -> None:
    script = """
import queue
answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for value in (1, 13, 3):
    client.async_stream_infer("half", rows([value, 1]), request_id=str(value))
got = [answers.get(timeout=20) for _ in range(3)]
client.stop_stream()
assert [result and result.as_numpy("total").tolist() for result, _ in got] == [[2], None, [4]]
assert "13 has no half" in got[1][1].message()
"""
    await triton(door, script)


async def test_a_cancelled_call(door: GrpcDoor) -> None:
    script = """
import queue
answers = queue.Queue()
call = client.async_infer("half", rows([1, 2]), lambda result, error: answers.put(error))
sys.stdin.readline()
call.cancel()
assert "CANCELLED" in answers.get(timeout=20).status()
"""
    door.half.gate.clear()
    await triton(door, script, after=door.half.entered)
    counts = door.engine.metrics.of("half", 2)
    await door.until(lambda: counts.failures["CANCELED"] == 1)
    assert door.engine.waiting == 0


async def test_out_of_service_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    script = """
(name,) = {m.name for m in client.get_model_repository_index().models}
assert client.infer(name, rows([1, 2])).as_numpy("y").tolist() == [[2, 4]]
client.unload_model(name)
assert not client.is_model_ready(name)
assert client.get_model_repository_index().models[0].state == "UNAVAILABLE"
refused("NOT_FOUND", "Servable not found", client.infer, name, rows([1, 2]))
refused("NOT_FOUND", "third", client.unload_model, "third")
refused("INVALID_ARGUMENT", "as it lies in its folder", client.load_model, name, config="{}")
client.load_model(name)
assert client.is_model_ready(name)
assert client.infer(name, rows([1, 2])).as_numpy("y").tolist() == [[2, 4]]
"""
    async with open_door(settings=WorkerSettings(model=write_twice(tmp_path), registry="none")) as door:
        await triton(door, script)


async def test_a_worker_that_drains(door: GrpcDoor) -> None:
    door.engine.draining = True
    script = """
assert client.is_server_live() and not client.is_server_ready() and not client.is_model_ready("half")
assert client.infer("half", rows([1, 2])).as_numpy("total").tolist() == [3]
"""
    await triton(door, script)


def call(door: GrpcDoor, name: str, request: Any) -> Any:
    method = OIP[name]
    return door.channel.unary_unary(method.path, type(request).SerializeToString, method.response.FromString)(request)


async def test_a_request_may_have_a_deadline_of_its_own(door: GrpcDoor) -> None:
    door.half.gate.clear()
    request = OIP["ModelInfer"].request(model_name="half")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    request.parameters["timeout"].int64_param = 200_000  # microseconds
    with pytest.raises(grpc.aio.AioRpcError, match="time was over") as caught:
        await call(door, "ModelInfer", request)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    door.half.gate.set()


async def test_an_answer_of_contents_is_read_as_well_as_one_of_bytes(door: GrpcDoor) -> None:
    request = OIP["ModelInfer"].request(model_name="half", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    answer = await call(door, "ModelInfer", request)
    assert answer.id == "7"
    assert [output.name for output in answer.outputs] == ["half", "total"]
    assert len(answer.raw_output_contents) == 2


# -- health -----------------------------------------------------------------------------------------------------------

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health(door: GrpcDoor, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(door.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_is_readiness(door: GrpcDoor) -> None:
    names = ["", "PredictionService", "ModelService", "tensorflow.serving.PredictionService",
             "tensorflow.serving.ModelService", "inference.GRPCInferenceService", "grpc.health.v1.Health"]  # fmt: skip
    assert [await health(door, name) for name in names] == [SERVING] * len(names)
    door.engine.draining = True
    assert [await health(door, name) for name in names] == [NOT_SERVING] * len(names)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health(door, "nothing")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_watchers_are_told_and_let_go(door: GrpcDoor) -> None:
    stub = health_pb2_grpc.HealthStub(door.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
    assert (await watch.read()).status == SERVING
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    door.engine.draining = True
    async with asyncio.timeout(10):
        assert (await watch.read()).status == NOT_SERVING
        door.engine.draining = False
        assert (await watch.read()).status == SERVING
        await door.listener.close(10)  # ends before its time: nothing is in flight but them
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() == grpc.aio.EOF


# -- reflection -------------------------------------------------------------------------------------------------------


async def test_reflection(door: GrpcDoor) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(door.channel)
    asked = [
        ask(list_services=""),
        ask(file_containing_symbol="tensorflow.serving.PredictionService"),
        ask(file_containing_symbol="inference.GRPCInferenceService"),
        ask(file_containing_symbol="grpc.health.v1.Health"),
        ask(file_containing_symbol="no.such.Thing"),
    ]
    services, predict, infer, checks, nothing = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    assert {service.name for service in services.list_services_response.service} == {
        "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "inference.GRPCInferenceService",
        "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    for answer, method in ((predict, "Predict"), (infer, "ModelInfer"), (checks, "Check")):
        files = answer.file_descriptor_response.file_descriptor_proto
        found = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files]
        assert method in {m.name for file in found for service in file.service for m in service.method}
    assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


# -- the port ---------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken(door: GrpcDoor) -> None:
    served = Served(door.engine, door.repository, "classify")
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{door.listener.port} for gRPC"):
        GrpcListener(served, "127.0.0.1", door.listener.port, max_bytes=LIMIT, deadline_seconds=1)


async def test_what_is_in_flight_is_answered_before_the_end(door: GrpcDoor) -> None:
    door.half.gate.clear()
    request = OIP["ModelInfer"].request(model_name="half")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    answering = asyncio.ensure_future(call(door, "ModelInfer", request))
    await asyncio.to_thread(door.half.entered.wait, 10)
    closing = asyncio.create_task(door.listener.close(10))
    await door.until(lambda: door.engine.waiting == 1)
    with pytest.raises(grpc.aio.AioRpcError, match="the worker is stopping") as caught:
        await call(door, "ServerLive", OIP["ServerLive"].request())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert await health(door) == NOT_SERVING
    assert not closing.done()
    door.half.gate.set()
    assert len((await answering).outputs) == 2
    await closing


async def test_who_calls_at_the_end_is_told_so(door: GrpcDoor) -> None:
    request = OIP["ModelInfer"].request(model_name="half")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    answered = asyncio.Event()

    async def caller(number: int) -> Any:
        # Options that differ: else gRPC would give all of them one connection.
        async with grpc.aio.insecure_channel(door.address, options=[("caller", number)]) as channel:
            infer = channel.unary_unary(OIP["ModelInfer"].path)
            try:
                while True:
                    await infer(request.SerializeToString())
                    answered.set()
            except grpc.aio.AioRpcError as error:
                return error

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    await answered.wait()
    await door.listener.close(10)
    ends = await asyncio.gather(*callers)
    assert {end.code() for end in ends} == {grpc.StatusCode.UNAVAILABLE}
