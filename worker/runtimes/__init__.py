"""The shelf of engines: name -> the module that runs models with it. Libraries are imported only when asked for.

A module has `open(source, options) -> Opened`, which raises ConfigurationError for a model it cannot load.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import ConfigurationError
from ..model import Loaded
from ..source import Kind, Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ..card import InputSpec
    from ..config import WorkerSettings
    from ..tensor import Signature, TensorSpec

# name -> what its library is called in Python, and the kinds of models it reads by itself.
RUNTIMES: dict[str, tuple[str, frozenset[Kind]]] = {
    "tensorflow": ("tensorflow", frozenset({"savedmodel", "frozen", "keras", "application"})),
    "litert": ("ai_edge_litert", frozenset({"tflite"})),
    "onnx": ("onnxruntime", frozenset({"onnx"})),
    "openvino": ("openvino", frozenset({"ir", "savedmodel", "frozen", "onnx", "tflite"})),
    "torch": ("torch", frozenset({"torchscript", "torchexport"})),
    "python": ("", frozenset({"python"})),
}


@dataclass(frozen=True)
class Options:
    """How a model is to be opened.

    `threads`: cores it may use. `bf16`: it may compute in bfloat16. `chunk`: at most so many items are computed at once, 0
    for any number. `labelled`: the user names the labels. The rest: see WorkerSettings.
    """

    threads: int
    bf16: bool = False
    chunk: int = 0
    weights: str = ""
    labelled: bool = False
    input_layer: str = ""
    output_layer: str = ""

    @classmethod
    def of(cls, settings: WorkerSettings, threads: int) -> Options:
        return cls(
            threads, settings.precision == "bf16", 0, settings.weights, bool(settings.labels), settings.input_layer,
            settings.output_layer,
        )  # fmt: skip


@dataclass(frozen=True)
class Hints:
    """What the kind of a model tells beyond its signatures.

    `input`: all that need be known of how a picture is fed, if it is. `labels`: empty if they are not known. `card`: what
    stands in a model card, for a model that brings it along.
    """

    input: InputSpec | None = None
    labels: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


class Opened(Loaded, Protocol):
    """A loaded model, and what its kind tells of it."""

    hints: Hints


def installed(name: str) -> bool:
    """True if the library of the engine `name` can be found; it is not imported."""
    library = RUNTIMES[name][0]
    return not library or find_spec(library) is not None


def reads(kind: Kind) -> list[str]:
    """The engines that read this kind of model by themselves, the one that defines its answers first."""
    return [name for name, (_, kinds) in RUNTIMES.items() if kind in kinds]


def open_source(name: str, source: Source, options: Options) -> Opened:
    """Raises ConfigurationError: no such engine, not installed, or a model it does not take."""
    known(name)
    if source.kind not in RUNTIMES[name][1]:
        raise ConfigurationError(
            f"{source}: the {name} runtime does not read it; {', '.join(reads(source.kind))} would"
        )
    opened: Opened = _module(name).open(source, options)
    return opened


def open_converted(name: str, converted: Converted, options: Options) -> Opened:
    """Raises ConfigurationError, or whatever the engine raises."""
    opened: Opened = _module(name).open_converted(converted, options)
    return opened


def known(name: str) -> None:
    """Raises ConfigurationError if there is no such engine."""
    if name not in RUNTIMES:
        raise ConfigurationError(f"--runtime {name}: expected one of auto, {', '.join(RUNTIMES)}")


def _module(name: str) -> Any:
    try:
        return import_module(f".{name}", __name__)
    except ImportError as error:
        raise ConfigurationError(
            f"the {name} runtime is not installed ({error.name} is missing): pip install 'fairway[{name}]'"
        ) from error


@dataclass(frozen=True)
class Converted:
    """A model in files that an engine takes, with the signatures that another found in it.

    `files`: signature -> file. `numbered`: made by conversion: tensors are i0, i1, ... and o0, o1, ... in the order of
    the signature, and LiteRT's file holds all signatures, as s0, s1, ...; otherwise they have the signature's names.
    `variant`: what was changed on the way.
    """

    files: Mapping[str, Path]
    signatures: Mapping[str, Signature]
    default: str
    hints: Hints = field(default_factory=Hints)
    variant: str = ""
    numbered: bool = True


def batch_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int | None:
    """What `Signature.batch` says of such tensors. An output whose first dimension is not known follows the inputs."""
    if not inputs or any(spec.shape == () for spec in inputs):
        return None
    counts = {spec.shape[0] if spec.shape else None for spec in inputs}
    if len(counts) != 1:
        return None
    count = counts.pop()
    for spec in outputs:
        if spec.shape == () or (spec.shape and spec.shape[0] not in (None, count)):
            return None
    return 0 if count is None else count


def require_shapes(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError for arrays of other shapes, where an engine would take them and answer something."""
    for spec in signature.inputs:
        shape = inputs[spec.name].shape
        if spec.shape is not None and (
            len(shape) != len(spec.shape)
            or any(n not in (None, given) for n, given in zip(spec.shape, shape, strict=True))
        ):
            raise ValueError(f"{spec.name} has the shape {shape}; expected {spec.shape}")


def in_chunks(
    call: Callable[[str, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    signature: Signature,
    inputs: Mapping[str, NDArray[Any]],
    chunk: int,
) -> dict[str, NDArray[Any]]:
    """`call`, with at most `chunk` items at a time (0: all): where more at once are no faster they only cost memory."""
    count = len(inputs[signature.inputs[0].name]) if signature.batch == 0 else 0
    if not chunk or count <= chunk:
        return call(signature.name, inputs)
    parts = [
        call(signature.name, {name: array[i : i + chunk] for name, array in inputs.items()})
        for i in range(0, count, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def give_memory_back() -> None:
    """What a closed model held: Python's garbage, and then what the C library keeps for another time."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)
