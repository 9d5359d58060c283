"""TensorFlow Serving's ModelService: the states of a model's versions, and a new set of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import BadRequest, ConfigurationError
from ...model_config import config_of
from ...wire import predict as wire
from ...wire.protobuf import enum, message
from .call import Behaviour, Call

if TYPE_CHECKING:
    from ..http.message import Served

SERVICE = "tensorflow.serving.ModelService"


def methods(served: Served, most: int) -> dict[str, Behaviour]:
    states, codes = enum("tensorflow.serving.ModelVersionStatus.State"), enum("tensorflow.error.Code")

    async def get_model_status(proto: Any, call: Call) -> Any:
        wanted = wire.read_wanted(proto)
        response = message("tensorflow.serving.GetModelStatusResponse")()
        # A label narrows nothing here, as in TensorFlow Serving.
        for status in served.repository.statuses(wanted.model, wanted.version):
            one = response.model_version_status.add(version=status.version, state=states[status.state])
            one.status.error_code, one.status.error_message = codes[status.code], status.message
        return response

    async def handle_reload_config_request(proto: Any, call: Call) -> Any:
        try:
            config = config_of(proto.config)
        except ConfigurationError as error:
            raise BadRequest(str(error)) from error
        await served.repository.apply(config)
        response = message("tensorflow.serving.ReloadConfigResponse")()
        response.status.SetInParent()  # OK
        return response

    return {"GetModelStatus": get_model_status, "HandleReloadConfigRequest": handle_reload_config_request}
