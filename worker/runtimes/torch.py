"""PyTorch: TorchScript (.pt) and torch.export (.pt2).

TorchScript tells neither shapes nor dtypes: its tensors are taken to be float32, with a first dimension that counts items.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Hints, Options, batch_of, give_memory_back


def version() -> str:
    return str(torch.__version__)


def open(source: Source, options: Options) -> TorchModel:
    """Raises ConfigurationError."""
    torch.set_num_threads(1)
    try:
        if source.kind == "torchscript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # in favour of what does not read such files
                module = torch.jit.load(str(source.path), map_location=_device()).eval()
            inputs, outputs = _scripted(module, source)
        else:
            program = torch.export.load(str(source.path))
            module = program.module().to(_device())
            inputs, outputs = _exported(program)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{source}: PyTorch cannot load it: {' '.join(str(error).split())[:300]}") from error
    signature = Signature("serving_default", tuple(inputs), tuple(outputs), "predict", batch_of(inputs, outputs))
    return TorchModel(module, signature, options.threads)


class TorchModel:
    runtime = "torch"
    default = "serving_default"
    hints = Hints()

    def __init__(self, module: Any, signature: Signature, threads: int) -> None:
        self._module, self.streams = module, threads
        self.signatures: Mapping[str, Signature] = {signature.name: signature}
        self._wide = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        spec = self.signatures[signature]
        device = _device()
        tensors = [torch.from_numpy(_writable(inputs[tensor.name])).to(device) for tensor in spec.inputs]
        if wide and self.streams > 1:
            with self._wide:  # the number of threads is the process's own
                torch.set_num_threads(self.streams)
                try:
                    results = self._call(tensors)
                finally:
                    torch.set_num_threads(1)
        else:
            torch.set_num_threads(1)  # OpenMP asks for it in every thread
            results = self._call(tensors)
        return {tensor.name: result.cpu().numpy() for tensor, result in zip(spec.outputs, results, strict=True)}

    def _call(self, tensors: list[Any]) -> list[Any]:
        with torch.inference_mode():
            result = self._module(*tensors)
        if isinstance(result, dict):
            return list(result.values())
        return list(result) if isinstance(result, tuple | list) else [result]

    def close(self) -> None:
        self._module = None
        give_memory_back()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Torch warns of memory that it could write to and must not."""
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy()


def _scripted(module: Any, source: Source) -> tuple[list[TensorSpec], list[TensorSpec]]:
    schema = module.forward.schema
    inputs = [TensorSpec(argument.name, "float32", None) for argument in schema.arguments[1:]]
    kind = schema.returns[0].type
    if kind.kind() == "TensorType":
        return inputs, [TensorSpec("output", "float32", None)]
    elements = kind.elements() if kind.kind() == "TupleType" else []
    if not elements or any(element.kind() != "TensorType" for element in elements):
        raise ConfigurationError(f"{source}: its forward gives {kind}; expected a tensor, or a tuple of tensors")
    return inputs, [TensorSpec(f"output_{i}", "float32", None) for i in range(len(elements))]


def _exported(program: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    nodes = {node.name: node for node in program.graph.nodes}
    inputs = [_spec(name, nodes[name].meta["val"]) for name in program.graph_signature.user_inputs]
    names = program.graph_signature.user_outputs
    layout = program.call_spec.out_spec
    said = list(layout.context) if layout.type is dict else None
    outputs = [
        _spec(said[i] if said else _output(i, len(names)), nodes[name].meta["val"]) for i, name in enumerate(names)
    ]
    return inputs, outputs


def _output(index: int, count: int) -> str:
    return "output" if count == 1 else f"output_{index}"


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) else None for n in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), shape)
