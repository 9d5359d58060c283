"""Our tables beside the descriptors of the public packages, field by field."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

protobuf = pytest.importorskip("fairway.worker.wire.protobuf", reason="protobuf is not installed")
from google.protobuf import descriptor_pb2, descriptor_pool, text_format  # noqa: E402

from .foreign import triton_python  # noqa: E402

# What the tables leave out on purpose, of messages that they have.
LEFT_OUT = {
    "tensorflow.TensorProto.resource_handle_val",
    "tensorflow.TensorProto.variant_val",
    "tensorflow.TensorInfo.composite_tensor",
    "tensorflow.serving.PredictRequest.predict_streamed_options",
    "tensorflow.serving.PredictRequest.client_id",
    "tensorflow.serving.PredictRequest.request_options",
    "tensorflow.serving.SamplingConfig.attributes",
    "tensorflow.serving.SamplingConfig.per_task_sampling_configs",
    "tensorflow.serving.PredictionLog.log_metadata",
    "tensorflow.serving.PredictionLog.predict_streamed_log",
    "tensorflow.serving.PredictionLog.session_run_log",
    *(f"inference.ModelInput.{name}" for name in (
        "format", "reshape", "is_shape_tensor", "allow_ragged_batch", "optional", "is_non_linear_format_io")),
    *(f"inference.ModelOutput.{name}" for name in ("reshape", "is_shape_tensor", "is_non_linear_format_io")),
    *(f"inference.ModelDynamicBatching.{name}" for name in (
        "preserve_ordering", "priority_levels", "default_priority_level", "default_queue_policy",
        "priority_queue_policy")),
    *(f"inference.ModelConfig.{name}" for name in (
        "runtime", "version_policy", "batch_input", "batch_output", "optimization", "sequence_batching",
        "ensemble_scheduling", "instance_group", "default_model_filename", "cc_model_filenames", "metric_tags",
        "parameters", "model_warmup", "model_operations", "model_transaction_policy", "model_repository_agents",
        "response_cache", "model_metrics")),
    *(f"inference.ModelStatistics.{name}" for name in ("memory_usage", "response_stats")),
    *(f"inference.GRPCInferenceService.{kind}SharedMemory{verb}"
      for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
    "inference.GRPCInferenceService.TraceSetting",
    "inference.GRPCInferenceService.LogSettings",
}  # fmt: skip

DUMP = """
import base64, json
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2
print(json.dumps([base64.b64encode(file.serialized_pb).decode()
    for file in (*service_pb2.DESCRIPTOR.dependencies, service_pb2.DESCRIPTOR)]))
"""


def tensorflow_pool() -> Any:
    pytest.importorskip("tensorflow_serving", reason="TensorFlow Serving's stubs are not installed")
    # Importing them is what fills the default pool.
    from tensorflow_serving.apis import model_service_pb2, prediction_log_pb2, prediction_service_pb2  # noqa: F401

    return descriptor_pool.Default()


def triton_pool() -> Any:
    said = subprocess.run([triton_python(), "-c", DUMP], check=True, capture_output=True, text=True, timeout=60).stdout
    pool = descriptor_pool.DescriptorPool()
    for file in json.loads(said):
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(file)))
    return pool


def kind(field: Any) -> str:
    """The type of a field, as a text."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{kind(key)}, {kind(value)}>"
    named = field.message_type or field.enum_type
    many = f"repeated{' packed' if field.is_packed else ''} " if field.is_repeated else ""
    return many + (named.full_name if named else f"scalar {field.type}")


def facts(message: Any) -> dict[str, tuple[object, ...]]:
    return {
        f"{message.full_name}.{field.name}": (
            field.number, kind(field), field.has_presence, field.containing_oneof and field.containing_oneof.name,
        )
        for field in message.fields
    }  # fmt: skip


def messages(file: Any) -> Iterator[Any]:
    def inside(message: Any) -> Iterator[Any]:
        if not message.GetOptions().map_entry:
            yield message
            for nested in message.nested_types:
                yield from inside(nested)

    for message in file.message_types_by_name.values():
        yield from inside(message)


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow.error", "tensorflow.serving", "inference"])
def test_every_table_is_what_the_public_package_says(package: str) -> None:
    theirs = triton_pool() if package == "inference" else tensorflow_pool()
    ours = protobuf.pool().FindFileByName(package.replace(".", "/") + ".proto")
    missing: set[str] = set()
    enums = list(ours.enum_types_by_name.values())
    for message in messages(ours):
        there = facts(theirs.FindMessageTypeByName(message.full_name))
        here = facts(message)
        assert here == {name: fact for name, fact in there.items() if name in here}
        missing |= there.keys() - here.keys()
        enums += message.enum_types
    for enum in enums:
        there = {value.name: value.number for value in theirs.FindEnumTypeByName(enum.full_name).values}
        here = {value.name: value.number for value in enum.values}
        assert here == {name: number for name, number in there.items() if name in here}
        # References to tensors belong to graphs; the other is a joke of their file.
        assert not [n for n in there.keys() - here.keys() if not n.endswith("_REF") and not n.startswith("DO_NOT_USE")]
    for service in ours.services_by_name.values():
        there = {method.full_name: signature(method) for method in theirs.FindServiceByName(service.full_name).methods}
        here = {method.full_name: signature(method) for method in service.methods}
        assert here == {name: ends for name, ends in there.items() if name in here}
        missing |= there.keys() - here.keys()
    assert missing == {name for name in LEFT_OUT if name.rpartition(".")[0].rpartition(".")[0] == package}


def signature(method: Any) -> tuple[object, ...]:
    ends = (method.input_type.full_name, method.output_type.full_name)
    return (*ends, method.client_streaming, method.server_streaming)


def test_what_a_table_leaves_out_is_kept_unread() -> None:
    tensorflow_pool()
    from tensorflow_serving.apis import predict_pb2

    sent = predict_pb2.PredictRequest(client_id=b"me")
    sent.model_spec.name = "half"
    ours = protobuf.message("tensorflow.serving.PredictRequest").FromString(sent.SerializeToString())
    assert ours.model_spec.name == "half"
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == sent


def test_nothing_of_ours_stands_in_the_default_pool() -> None:
    protobuf.message("inference.ModelInferRequest")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_the_text_form_is_read() -> None:
    text = 'model_config_list { config { name: "half" version_labels { key: "stable" value: 3 } } }'
    config = text_format.Parse(text, protobuf.message("tensorflow.serving.ModelServerConfig")())
    assert dict(config.model_config_list.config[0].version_labels) == {"stable": 3}


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("package p\nM: 1 x Nothing", "Nothing is in no table"),
        ("package p\nthing M: 1 x int32", "neither a message nor an enum nor a service"),
    ],
)
def test_a_faulty_table_is_told_of(table: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        protobuf.build(table)
