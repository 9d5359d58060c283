"""Calls of TensorFlow Serving's services, made with its own messages."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2


def named(request: Any, model: str = "half", signature: str = "", version: int | None = None, label: str = "") -> Any:
    spec = request.model_spec if hasattr(request, "model_spec") else request
    spec.name, spec.signature_name = model, signature
    if version is not None:
        spec.version.value = version
    elif label:
        spec.version_label = label
    return request


def asked(*rows: Any, dtype: str = "float32", **spec: Any) -> Any:
    return with_inputs({"x": np.array(rows or [[1, 2]], dtype)}, **spec)


def with_inputs(inputs: dict[str, Any], outputs: tuple[str, ...] = (), **spec: Any) -> Any:
    request = named(predict_pb2.PredictRequest(output_filter=outputs), **spec)
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def numbers(response: Any) -> dict[str, Any]:
    return {name: tf.make_ndarray(proto).tolist() for name, proto in response.outputs.items()}


async def refused(call: Any, code: Any, text: str) -> Any:
    """The error, if it is that."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), caught.value.details()) == (code, text)
    return caught.value
