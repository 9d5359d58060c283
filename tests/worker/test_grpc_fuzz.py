"""Messages that were damaged on their way: each is answered or refused, and none is the worker's failure."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
from google.protobuf.message import DecodeError

from fairway.worker.errors import WorkerError
from fairway.worker.listeners.grpc import model_service, openinference, predict
from fairway.worker.listeners.grpc.call import Call
from fairway.worker.listeners.http.message import Served
from fairway.worker.wire import openinference_grpc
from fairway.worker.wire import predict as wire
from fairway.worker.wire.openinference import InferRequest, RequestedOutput
from fairway.worker.wire.predict import Wanted
from fairway.worker.wire.protobuf import message, methods

from .colours import plain
from .grpc_door import LIMIT, open_door

SERVICES = (predict, model_service, openinference)
ROUNDS = 200  # of each message, in each of two ways


def whole() -> dict[str, list[Any]]:
    """Good messages, by their methods."""
    rows, picture = np.array([[1, 2], [3, 4]], "float32"), np.array([plain("red")], object)
    examples = wire.write_examples([{"x": 0.5, "n": 3}, {"x": 1.0, "word": "w"}])
    pictures = wire.write_examples([{"image/encoded": plain("red")}])
    half = wire.model_spec(Wanted("half", 1, signature="kinds"))
    task = {"model_spec": half, "method_name": "tensorflow/serving/classify"}
    listed = wire.encode_response(Wanted("half"), {"x": rows})  # as lists of values
    return {
        "Predict": [
            wire.encode_request(wire.Call(Wanted("half", 2, signature="serving_default"), {"x": rows}, ("total",))),
            wire.encode_request(wire.Call(Wanted("half", signature="texts"), {"t": np.array([b"a", b"b"], object)})),
            wire.encode_request(wire.Call(Wanted("colours"), {"image": picture})),
            message("tensorflow.serving.PredictRequest")(
                model_spec=listed.model_spec, inputs=dict(listed.outputs.items())
            ),
        ],
        "Classify": [
            message("tensorflow.serving.ClassificationRequest")(model_spec=half, input=examples),
            message("tensorflow.serving.ClassificationRequest")(
                model_spec=wire.model_spec(Wanted("colours")), input=pictures
            ),
        ],
        "Regress": [
            message("tensorflow.serving.RegressionRequest")(
                model_spec=wire.model_spec(Wanted("half", signature="value")), input=examples
            )
        ],
        "MultiInference": [message("tensorflow.serving.MultiInferenceRequest")(tasks=[task], input=examples)],
        "GetModelMetadata": [
            message("tensorflow.serving.GetModelMetadataRequest")(model_spec=half, metadata_field=["signature_def"])
        ],
        "GetModelStatus": [message("tensorflow.serving.GetModelStatusRequest")(model_spec=half)],
        "ModelInfer": [
            openinference_grpc.encode_request(
                InferRequest({"x": rows}, (RequestedOutput("half", 1),), "42", {"timeout": 10**9}), "half", "1"
            ),
            openinference_grpc.encode_request(InferRequest({"image": picture}), "colours"),
        ],
        "ModelMetadata": [message("inference.ModelMetadataRequest")(name="half", version="1")],
        "ModelConfig": [message("inference.ModelConfigRequest")(name="half", version="1")],
        "ModelReady": [message("inference.ModelReadyRequest")(name="half", version="1")],
        "ModelStatistics": [message("inference.ModelStatisticsRequest")(name="half", version="1")],
        "RepositoryIndex": [message("inference.RepositoryIndexRequest")(ready=True)],
    }


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Some of its bytes are others, or gone, or come twice."""
    out = bytearray(raw)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(out))
        match chance.randrange(4):
            case 0 | 1:
                out[at] = chance.randrange(256)
            case 2 if len(out) > 8:
                del out[at : at + chance.randint(1, 2)]
            case _:
                out[at:at] = out[at : at + chance.randint(1, 8)]
    return bytes(out)


def twisted(proto: Any, chance: random.Random) -> Any:
    """The message, with another value in one place of it, which still has the field's type."""
    place = proto
    while True:
        fields = [field for field, _ in place.ListFields()]
        if not fields or chance.random() < 0.1:
            place.Clear()
            return proto
        field = chance.choice(fields)
        value = getattr(place, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            key = chance.choice(sorted(value))
            if chance.random() < 0.2 or field.message_type.fields_by_name["value"].message_type is None:
                del value[key]
                return proto
            place = value[key]
        elif field.is_repeated:
            if chance.random() < 0.3 or not field.message_type:
                value.extend([value[0]] * chance.randint(1, 3)) if chance.random() < 0.5 else value.pop()
                return proto
            place = chance.choice(value)
        elif field.message_type:
            place = value
        else:
            setattr(place, field.name, another(value, chance))
            return proto


def another(value: Any, chance: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([0, 1, 3, 7, 19, 2**31 - 1])
        case float():
            return chance.choice([0.0, -1.5, float("nan"), float("inf")])
        case bytes():
            return chance.choice([b"", value[:-1], value * 2, b"\0"])
        case _:
            return chance.choice(["", "x", "half", "kinds", "value", "BYTES", "INT8", "FP32", "BF16", "\0", "7"])


async def test_damaged_messages() -> None:
    async with open_door() as door:
        served = Served(door.engine, door.repository, "classify")
        behaviours = {
            name: (methods(service.SERVICE)[name], behaviour)
            for service in SERVICES
            for name, behaviour in service.methods(served, LIMIT).items()
        }
        chance = random.Random(5)
        answered, refused = 0, Counter[str]()
        for name, requests in whole().items():
            method, behaviour = behaviours[name]
            for request in requests:
                raw = request.SerializeToString()
                assert await behaviour(method.request.FromString(raw), Call(time.monotonic() + 10)) is not None
                for number in range(2 * ROUNDS):
                    try:
                        came = method.request.FromString(damaged(raw, chance) if number % 2 else raw)
                    except DecodeError:
                        continue
                    if not number % 2:
                        twisted(came, chance)
                    try:
                        (await behaviour(came, Call(time.monotonic() + 10))).SerializeToString()
                        answered += 1
                    except WorkerError as error:
                        refused[type(error).__name__] += 1
        assert answered > 500
        assert refused["BadRequest"] > 500
        assert refused["NotFound"] > 50
        assert door.engine.waiting == 0
