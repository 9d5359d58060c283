"""TensorFlow Serving's Predict over gRPC, called with its own stubs."""

# ruff: noqa: E402  the libraries may be missing, and then the whole file is skipped
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from fairway.worker.wire import load, timing

from .colours import plain
from .grpc_calls import asked, numbers, refused, with_inputs
from .grpc_door import COLOURS, LIMIT, GrpcDoor, open_door

StatusCode = grpc.StatusCode
RED, BLUE = plain("#c02020"), plain("#2020c0")


@pytest.fixture
async def door() -> AsyncIterator[GrpcDoor]:
    async with open_door() as opened:
        yield opened


@pytest.fixture
def stub(door: GrpcDoor) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(door.channel)


async def test_tensors_in_tensors_out(stub: Any) -> None:
    response = await stub.Predict(asked([1, 2], [3, 4]))
    assert numbers(response) == {"half": [[0.5, 1], [1.5, 2]], "total": [3, 7]}
    assert list(response.outputs["total"].float_val) == [3, 7]  # where other languages' clients look
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 2, "serving_default")


async def test_versions_signatures_and_filters(stub: Any) -> None:
    response = await stub.Predict(asked(version=1, outputs=("total",)))
    assert response.model_spec.version.value == 1
    assert numbers(response) == {"total": [3]}
    response = await stub.Predict(with_inputs({"t": np.array([b"a", b"\xff"], object)}, signature="texts"))
    assert tf.make_ndarray(response.outputs["u"]).tolist() == [b"A", b"\xff"]
    assert response.model_spec.signature_name == "texts"


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 1)])
async def test_encoded_pictures_are_decoded(stub: Any, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    pictures = np.array([RED, BLUE][:count], object).reshape(shape)
    response = await stub.Predict(with_inputs({"image": pictures}, model="colours"))
    scores = tf.make_ndarray(response.outputs["scores"])
    assert scores.shape == (count, 3)
    assert [COLOURS[best] for best in scores.argmax(axis=1)] == ["red", "blue"][:count]
    pixels = np.full((1, 4, 4, 3), 7, "float32")
    assert numbers(await stub.Predict(with_inputs({"image": pixels}, model="colours"))) == {
        "scores": [pytest.approx([1 / 3] * 3)],
        "total": [336],
    }


async def test_answers_tell_load_and_timing(door: GrpcDoor, stub: Any) -> None:
    call = stub.Predict(asked())
    await call
    said = dict(await call.trailing_metadata())
    assert load.decode(said["endpoint-load-metrics"].encode()).in_flight is not None
    assert timing.decode(said["server-timing"]).keys() == {"queue", "decode", "infer", "encode"}
    counted = door.engine.metrics.text().splitlines()
    assert 'fairway_worker_encode_seconds_count{model="half",version="2"} 1' in counted


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (predict_pb2.PredictRequest(), StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
        (asked(model="third"), StatusCode.NOT_FOUND, "Servable not found for request: Latest(third)"),
        (asked(version=7), StatusCode.NOT_FOUND, "Servable not found for request: Specific(half, 7)"),
        (asked(label="best"), StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: best"),
        (asked(signature="none"), StatusCode.FAILED_PRECONDITION, 'Serving signature key "none" not found.'),
        (
            with_inputs({}),
            StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            with_inputs({"x": [[1.0]], "a": [1]}),
            StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 2!=1 len({a,x}) != len({x}). Sent extra: {a}. Missing but required: {}.",
        ),
        (
            with_inputs({"y": [[1.0]]}),
            StatusCode.INVALID_ARGUMENT,
            "input tensor alias not found in signature: x. Inputs expected to be in the set {x}.",
        ),
        (
            asked(outputs=("third",)),
            StatusCode.INVALID_ARGUMENT,
            "output tensor alias not found in signature: third Outputs expected to be in the set {half,total}.",
        ),
        (asked(outputs=("half", "half")), StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: half"),
        (asked([13, 1]), StatusCode.INTERNAL, "the model failed: ArithmeticError: 13 has no half"),
        (
            with_inputs({"image": np.array([RED[:60]], object)}, model="colours"),
            StatusCode.INVALID_ARGUMENT,
            None,
        ),
        (with_inputs({"image": np.array([b"text"], object)}, model="colours"), StatusCode.INVALID_ARGUMENT, None),
        (
            with_inputs({"image": np.array([plain("red", (200, 100))], object)}, model="colours"),
            StatusCode.RESOURCE_EXHAUSTED,
            None,
        ),
        (
            with_inputs({"image": np.array([RED], object)}, ("third",), model="colours"),
            StatusCode.INVALID_ARGUMENT,
            "output tensor alias not found in signature: third Outputs expected to be in the set {scores,total}.",
        ),
        (
            with_inputs({"image": np.array([RED], object)}, ("total",), model="colours"),
            StatusCode.INVALID_ARGUMENT,
            "of pictures only the output scores is answered",
        ),
        (asked([1, 2, 3]), StatusCode.INVALID_ARGUMENT, None),
        (asked(dtype="float64"), StatusCode.INVALID_ARGUMENT, None),
        (with_inputs({"x": np.array([b"a"], object)}), StatusCode.INVALID_ARGUMENT, None),
    ],
)
async def test_wrong_calls_are_told_of(door: GrpcDoor, stub: Any, request_: Any, code: Any, text: str | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Predict(request_)
    assert caught.value.code() == code
    assert caught.value.details()
    assert text is None or caught.value.details() == text
    assert numbers(await stub.Predict(asked()))["total"] == [3]
    assert door.engine.waiting == 0


async def test_bytes_that_do_not_match_their_shape(stub: Any) -> None:
    request = asked()
    request.inputs["x"].tensor_content = b"1234567"
    await refused(
        stub.Predict(request),
        StatusCode.INVALID_ARGUMENT,
        "tensor parsing error: x: its content has 7 bytes, but shape [1, 2] of DT_FLOAT takes 8",
    )


async def test_a_short_list_cannot_ask_for_more_memory_than_an_upload_may_have(stub: Any) -> None:
    request = asked()
    del request.inputs["x"].tensor_shape.dim[:]
    request.inputs["x"].tensor_shape.dim.add(size=2**30)
    error = await refused(
        stub.Predict(request),
        StatusCode.INVALID_ARGUMENT,
        f"tensor parsing error: x: its content has 8 bytes, but shape [{2**30}] of DT_FLOAT takes {2**32}",
    )
    request.inputs["x"].ClearField("tensor_content")
    request.inputs["x"].float_val.append(1)
    error = await refused(
        stub.Predict(request),
        StatusCode.RESOURCE_EXHAUSTED,
        f"a tensor of shape [{2**30}] and type DT_FLOAT takes more than {LIMIT} bytes",
    )
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"  # never again


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_over_the_limit(stub: Any, compression: Any) -> None:
    request = asked(*[[0, 0]] * 2_000_000)  # a few kilobytes, compressed
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Predict(request, compression=compression)
    assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
    assert "larger than" in caught.value.details()
    fits = asked(*[[0, 0]] * 6_000)
    assert len(numbers(await stub.Predict(fits, compression=compression))["total"]) == 6_000


async def test_bytes_that_are_no_message(door: GrpcDoor) -> None:
    call = door.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    await refused(call(b"\xff"), StatusCode.INVALID_ARGUMENT, "these bytes are no tensorflow.serving.PredictRequest")


async def test_a_cancelled_call_is_not_run(door: GrpcDoor, stub: Any) -> None:
    door.half.gate.clear()
    first = asyncio.ensure_future(stub.Predict(asked()))
    await asyncio.to_thread(door.half.entered.wait, 10)
    second, third = stub.Predict(asked([2, 2])), stub.Predict(asked([3, 3]))
    await door.until(lambda: door.engine.waiting == 3)
    second.cancel()
    third.cancel()
    await door.until(lambda: door.engine.waiting == 1)
    door.half.gate.set()
    assert numbers(await first)["total"] == [3]
    assert numbers(await stub.Predict(asked([4, 4])))["total"] == [8]
    assert door.half.calls == 2


async def test_a_deadline_passes(door: GrpcDoor, stub: Any) -> None:
    door.half.gate.clear()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Predict(asked(), timeout=0.2)
    assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
    await door.until(lambda: door.engine.waiting == 0)
    door.half.gate.set()
    assert numbers(await stub.Predict(asked()))["total"] == [3]


async def test_the_workers_own_deadline_passes() -> None:
    async with open_door(deadline_seconds=0.2) as door:
        door.half.gate.clear()
        stub = prediction_service_pb2_grpc.PredictionServiceStub(door.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(asked())
        assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
        assert "time was over" in caught.value.details()


async def test_a_full_queue_says_when_to_come_again() -> None:
    async with open_door(max_waiting=1) as door:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(door.channel)
        door.half.gate.clear()
        first = asyncio.ensure_future(stub.Predict(asked()))
        await asyncio.to_thread(door.half.entered.wait, 10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(asked())
        assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1000
        assert load.decode(dict(caught.value.trailing_metadata())["endpoint-load-metrics"].encode()).in_flight == 1
        door.half.gate.set()
        await first
