"""Anything that Python can call: `python:MODULE:FACTORY`, or `python:MODULE` for a module with `apply`, and `load` if it
has something to prepare.

The factory is called once, without arguments. What it gives is called with a batch, an array whose first dimension counts
the items, and answers scores (n, classes), a tuple of arrays, or arrays by name; or it has a method `apply` that does. A
module's `apply` is given what its `load` returned as a second argument, if it takes one.

Attributes that are looked for on it, all optional:

- `inputs`, `outputs`: tuples (name, dtype, shape), as in TensorSpec; else one input `input` and one output `scores`, of
  float32 and any shape. Several inputs are given by keyword.
- `batch`: as in Signature; else what the shapes say.
- `threads`: how many calls it bears at once; else 1.
- `card`: what would stand in model_card.json; `labels`: what the scores are called.
- `close()`: called when it is not needed any more.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..source import Source
from ..tensor import Signature, TensorSpec
from . import Hints, Options, batch_of, give_memory_back


def version() -> str:
    return sys.version.partition(" ")[0]


def open(source: Source, options: Options) -> PythonModel:
    """Raises ConfigurationError."""
    module_name, _, factory = source.target.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
        made = _look_up(module, factory)() if factory else module
        call = _call(made)
        inputs = _specs(made, "inputs", [TensorSpec("input", "float32", None)])
        outputs = _specs(made, "outputs", [TensorSpec("scores", "float32", None)])
    except ConfigurationError as error:
        raise ConfigurationError(f"python:{source.target}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"python:{source.target}: {type(error).__name__}: {str(error)[:300]}") from error
    batch = getattr(made, "batch", batch_of(inputs, outputs))
    signature = Signature("serving_default", tuple(inputs), tuple(outputs), "predict", batch)
    hints = Hints(None, tuple(getattr(made, "labels", ())), getattr(made, "card", {}))
    return PythonModel(made, call, signature, int(getattr(made, "threads", 1)), hints)


class PythonModel:
    runtime = "python"
    default = "serving_default"

    def __init__(self, made: Any, call: Callable[..., Any], signature: Signature, streams: int, hints: Hints) -> None:
        self._made, self._call = made, call
        self.signatures: Mapping[str, Signature] = {signature.name: signature}
        self.streams, self.hints = streams, hints

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        spec = self.signatures[signature]
        if len(spec.inputs) == 1:
            result = self._call(inputs[spec.inputs[0].name])
        else:
            result = self._call(**{tensor.name: inputs[tensor.name] for tensor in spec.inputs})
        if isinstance(result, Mapping):
            if missing := [tensor.name for tensor in spec.outputs if tensor.name not in result]:
                raise ValueError(f"it answered {list(result)}; expected {', '.join(missing)} as well")
            values = [result[tensor.name] for tensor in spec.outputs]
        else:
            values = list(result) if isinstance(result, tuple) else [result]
        if len(values) != len(spec.outputs):
            raise ValueError(f"it answered {len(values)} arrays; expected {len(spec.outputs)}")
        return {
            tensor.name: np.asarray(value, object if tensor.dtype == "bytes" else tensor.dtype)
            for tensor, value in zip(spec.outputs, values, strict=True)
        }

    def close(self) -> None:
        if callable(end := getattr(self._made, "close", None)):
            end()
        self._made = self._call = None  # type: ignore[assignment]
        give_memory_back()


def _look_up(module: ModuleType, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _call(made: Any) -> Callable[..., Any]:
    state = made.load() if isinstance(made, ModuleType) and hasattr(made, "load") else None
    apply = getattr(made, "apply", None)
    if callable(apply):
        if state is not None and len(inspect.signature(apply).parameters) > 1:
            return lambda batch: apply(batch, state)
        return apply
    if callable(made):
        return made
    what = f"module {made.__name__}" if isinstance(made, ModuleType) else type(made).__name__
    raise ConfigurationError(f"{what} cannot be called, and has no apply(); expected one of them")


def _specs(made: Any, name: str, default: Sequence[TensorSpec]) -> list[TensorSpec]:
    said = getattr(made, name, None)
    if said is None:
        return list(default)
    specs = []
    for entry in said:
        if not isinstance(entry, TensorSpec):
            word, dtype, shape = entry
            entry = TensorSpec(word, dtype, None if shape is None else tuple(shape))
        if entry.dtype != "bytes":
            np.dtype(entry.dtype)
        specs.append(entry)
    return specs
