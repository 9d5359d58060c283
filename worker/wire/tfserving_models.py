"""What TensorFlow Serving says of models: which versions there are, and what their signatures take and give.

Laid out as Protocol Buffers print JSON: indented by one space, whole numbers of 64 bits in quotes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..tensor import Signature, TensorSpec

METHOD = "tensorflow/serving/"
# NumPy's dtypes, and TensorSpec's `bytes`, under TensorFlow's names where upper case is not all of it.
DTYPES = {"float16": "HALF", "float32": "FLOAT", "float64": "DOUBLE", "bytes": "STRING"}


class Status(Protocol):
    """A version's. `state`: START, LOADING, AVAILABLE, UNLOADING or END; `code`: OK, or what went wrong, in words."""

    @property
    def version(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...


def encode_status(statuses: Iterable[Status]) -> bytes:
    return _printed({"model_version_status": [_status(status) for status in statuses]})


def encode_list(models: Mapping[str, Iterable[Status]]) -> bytes:
    """All models. TensorFlow Serving has no such answer."""
    listed = [{"name": name, "model_version_status": [_status(s) for s in models[name]]} for name in models]
    return _printed({"models": listed})


def encode_metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> bytes:
    spec = {"name": name, "signature_name": "", "version": str(version)}
    defs = {key: _signature(signatures[key]) for key in sorted(signatures)}
    # Two messages one after the other, as TensorFlow Serving puts them together.
    return (
        b'{\n"model_spec":' + _printed(spec) + b',\n"metadata": {"signature_def": '
        + _printed({"signature_def": defs}) + b"}\n}\n"
    )  # fmt: skip


def dtype_name(dtype: str) -> str:
    """`DT_FLOAT` for float32."""
    return "DT_" + DTYPES.get(dtype, dtype.upper())


def _status(status: Status) -> dict[str, Any]:
    return {
        "version": str(status.version),
        "state": status.state,
        "status": {"error_code": status.code, "error_message": status.message},
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor(spec) for spec in signature.inputs},
        "outputs": {spec.name: _tensor(spec) for spec in signature.outputs},
        "method_name": METHOD + signature.method,
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": dtype_name(spec.dtype),
        "tensor_shape": {"dim": sizes, "unknown_rank": spec.shape is None},
        "name": f"{spec.name}:0",  # which of a graph's tensors it was, a model that is loaded does not tell any more
    }


def _printed(message: dict[str, Any]) -> bytes:
    return json.dumps(message, indent=1).encode() + b"\n"
