"""The Open Inference Protocol, with Triton's extensions for streams, configurations, statistics and the repository.

Shared memory, tracing and log settings are not served: gRPC says UNIMPLEMENTED by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from .... import __version__
from ... import openinference
from ...errors import BadRequest, NotReady, WorkerError
from ...wire import datatypes
from ...wire import openinference_grpc as wire
from ...wire.protobuf import enum, message
from ...wire.timing import timing
from .call import Behaviour, Call

if TYPE_CHECKING:
    from ...tensor import TensorSpec
    from ..http.message import Served

SERVICE = "inference.GRPCInferenceService"
# Here all tensors come and go as bytes: nothing to announce.
EXTENSIONS = tuple(name for name in openinference.EXTENSIONS if name != "binary_tensor_data")


def methods(served: Served, most: int) -> dict[str, Behaviour]:
    engine, repository = served.engine, served.repository

    async def server_live(proto: Any, call: Call) -> Any:
        return message("inference.ServerLiveResponse")(live=engine.alive)

    async def server_ready(proto: Any, call: Call) -> Any:
        return message("inference.ServerReadyResponse")(ready=engine.ready and repository.ready)

    async def model_ready(proto: Any, call: Call) -> Any:
        try:
            openinference.require_ready(engine, repository, proto.name, proto.version)
        except NotReady:
            return message("inference.ModelReadyResponse")(ready=False)
        return message("inference.ModelReadyResponse")(ready=True)

    async def server_metadata(proto: Any, call: Call) -> Any:
        response = message("inference.ServerMetadataResponse")
        return response(name="fairway", version=__version__, extensions=EXTENSIONS)

    async def model_metadata(proto: Any, call: Call) -> Any:
        model = openinference.find(repository, proto.name, proto.version)
        return _said("inference.ModelMetadataResponse", openinference.metadata(repository, model))

    async def model_infer(proto: Any, call: Call) -> Any:
        model = openinference.find(repository, proto.model_name, proto.model_version)
        request = wire.decode_request(proto)
        response, _, answer = await openinference.infer(engine, model, request, call.deadline)
        call.timing = timing(answer)
        return wire.encode_response(response)

    async def model_stream_infer(proto: Any, call: Call) -> Any:
        """One answer for each request; what is wrong with one of them ends no stream."""
        try:
            response = await model_infer(proto, call)
        except WorkerError as error:
            failed = message("inference.ModelStreamInferResponse")(error_message=str(error))
            failed.infer_response.id = proto.id
            return failed
        return message("inference.ModelStreamInferResponse")(infer_response=response)

    async def model_config(proto: Any, call: Call) -> Any:
        """As far as clients that make up requests read it: what goes in and out, and how many items at once."""
        model = openinference.find(repository, proto.name, proto.version)
        signature = model.loaded.signatures[model.loaded.default]
        platform = openinference.metadata(repository, model)["platform"]
        response = message("inference.ModelConfigResponse")()
        config = response.config
        config.name, config.platform, config.backend = model.name, platform, model.loaded.runtime
        # Of more items a call is split: no number of them is too many.
        config.max_batch_size = MANY if signature.batch == 0 else signature.batch or 0
        for tensors, specs in ((config.input, signature.inputs), (config.output, signature.outputs)):
            for spec in specs:
                tensors.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, config.max_batch_size > 0))
        return response

    async def model_statistics(proto: Any, call: Call) -> Any:
        found = openinference.statistics(engine, repository, proto.name, proto.version)
        return _said("inference.ModelStatisticsResponse", found)

    async def repository_index(proto: Any, call: Call) -> Any:
        found = openinference.index(repository, proto.ready)
        return _said("inference.RepositoryIndexResponse", {"models": found})

    async def repository_model_load(proto: Any, call: Call) -> Any:
        if proto.parameters:
            raise BadRequest("a model is loaded as it lies in its folder; parameters like config are not taken")
        await repository.load(proto.model_name)
        return message("inference.RepositoryModelLoadResponse")()

    async def repository_model_unload(proto: Any, call: Call) -> Any:
        # `unload_dependents` means nothing here: no model needs another one.
        await repository.unload(proto.model_name)
        return message("inference.RepositoryModelUnloadResponse")()

    return {
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelInfer": model_infer,
        "ModelStreamInfer": model_stream_infer,
        "ModelConfig": model_config,
        "ModelStatistics": model_statistics,
        "RepositoryIndex": repository_index,
        "RepositoryModelLoad": repository_model_load,
        "RepositoryModelUnload": repository_model_unload,
    }


MANY = 2**31 - 1


def _said(name: str, fields: dict[str, Any]) -> Any:
    """What both transports say, as a message: its fields have the names that JSON has."""
    return json_format.ParseDict(fields, message(name)())


def _data_type(spec: TensorSpec) -> int:
    name = datatypes.name_of(spec.dtype)
    return enum("inference.DataType").get("TYPE_STRING" if name == "BYTES" else f"TYPE_{name}", 0)


def _dims(spec: TensorSpec, batched: bool) -> list[int]:
    """Without the dimension that counts items."""
    shape = (None,) if spec.shape is None else spec.shape[1:] if batched else spec.shape
    return [-1 if size is None else size for size in shape]
