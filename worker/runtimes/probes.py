"""What engines are compared by: inputs from a seed, what became of them, and how fast."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..card import InputSpec
from ..image import to_item
from ..model import Loaded
from ..tensor import Signature, TensorSpec
from . import difference
from .difference import Arrays, Comparison

PICTURES = 8
SIZES = (1, 8, 32)
WINDOW = 0.15  # seconds
ROUNDS = 3  # the best is taken
WORTH = 1.25  # times as fast: below that, more at once only costs memory
LONGEST = 3.0  # seconds; sizes whose calls take longer are not timed
NEAR = 0.9  # of the highest speed is within what measuring can tell: from there on the smallest memory decides
EXACT, COARSE = difference.EXACT.largest, difference.COARSE.largest


def pictures(spec: InputSpec) -> list[NDArray[Any]]:
    """Half of them noise, half of them smooth, all from one seed, as items of the model's input."""
    return [to_item(file, spec) for file in files("JPEG" if spec.kind == "encoded" else "PNG")]


def files(kind: str) -> list[bytes]:
    """The same pictures as files; `kind`: JPEG or PNG."""
    random = np.random.default_rng(7)
    made = []
    for number in range(PICTURES):
        if number % 2:
            small = Image.fromarray(random.integers(0, 256, (2 + number, 3 + number, 3), np.uint8))
            image = small.resize((320, 240), Image.Resampling.BICUBIC)
        else:
            image = Image.fromarray(random.integers(0, 256, (240, 320, 3), np.uint8))
        file = io.BytesIO()
        image.save(file, kind, **({"compress_level": 1} if kind == "PNG" else {}))
        made.append(file.getvalue())
    return made


def inputs_for(signature: Signature, items: list[NDArray[Any]] | None) -> list[Arrays]:
    """Calls to compare: `items` where they are the signature's only input, else numbers from a seed.

    Several calls of one batch each; where the number of items is free, the last one holds them all.
    """
    random = np.random.default_rng(7)
    if items is not None:
        name, count = signature.inputs[0].name, signature.batch
        if count is None:
            return [{name: item} for item in items]
        calls = [{name: np.stack([item] * (count or 1))} for item in items]
        return [*calls, {name: np.stack(items)}] if count == 0 and _alike(items) else calls
    sizes = (1, 3) if signature.batch == 0 else (signature.batch or 1,) * 2
    return [{spec.name: _numbers(spec, size, signature.batch, random) for spec in signature.inputs} for size in sizes]


def answers(loaded: Loaded, calls: Mapping[str, list[Arrays]]) -> dict[str, list[Arrays]]:
    """By signature, what it answers to each of its calls."""
    return {name: [loaded.run(inputs, name) for inputs in inputs_of] for name, inputs_of in calls.items()}


def compare(
    expected: Mapping[str, list[Arrays]], given: Mapping[str, list[Arrays]], scores: str, coarse: bool
) -> Comparison:
    """`scores`: the output whose best class counts. `coarse`: less than float32 is allowed."""
    return difference.compare(expected, given, scores, difference.COARSE if coarse else difference.EXACT)


def together(calls: list[Arrays]) -> list[Arrays]:
    """Several calls of one item each, or what was answered to them, as a single one. Raises ValueError if they differ."""
    return [{name: np.concatenate([call[name] for call in calls]) for name in calls[0]}]


def rates(loaded: Loaded, inputs: Arrays) -> dict[int, float]:
    """Batch size -> items a second, with as many calls at once as the model bears. `inputs`: one call of one item."""
    signature = loaded.signatures[loaded.default]
    sizes = SIZES if signature.batch == 0 else (signature.batch or 1,)
    calls: dict[int, Arrays] = {}
    for size in sizes:
        fed = inputs
        if signature.batch == 0:
            fed = {name: np.concatenate([array[:1]] * size) for name, array in inputs.items()}
        begun = time.perf_counter()
        loaded.run(fed, loaded.default)
        if size > 1 and time.perf_counter() - begun > LONGEST:
            break
        calls[size] = fed
    measured = dict.fromkeys(calls, 0.0)
    for _ in range(ROUNDS):  # one after the other, so that a busy moment of the machine is not held against one of them
        for size, fed in calls.items():
            measured[size] = max(measured[size], _rate(loaded, fed) * size)
    return measured


def speed(measured: Mapping[int, float]) -> float:
    """One number: between what one item at a time reaches, and what the best batch does. 0 if nothing was measured."""
    return sqrt(measured[min(measured)] * max(measured.values())) if measured else 0.0


def chunk_for(measured: Mapping[int, float]) -> int:
    """See `Options.chunk`: the smallest size that larger ones do not beat by a quarter; 0 if it is the largest."""
    for size in sorted(measured):
        larger = [rate for other, rate in measured.items() if other > size]
        if larger and max(larger) < WORTH * measured[size]:
            return size
    return 0


def _rate(loaded: Loaded, fed: Arrays) -> float:
    """Calls a second, of several threads together.

    Time for which others had the cores does not count; what was computed does, in any case: of an engine with many threads
    several may have waited in the same moment.
    """
    counts = [0] * loaded.streams
    spent = [0.0] * loaded.streams
    gate = threading.Barrier(loaded.streams)

    def work(number: int) -> None:
        gate.wait()
        begun = time.perf_counter()
        while (spent[number] < WINDOW) or counts[number] < 2:
            loaded.run(fed, loaded.default)
            counts[number] += 1
            spent[number] = time.perf_counter() - begun

    threads = [threading.Thread(target=work, args=(number,)) for number in range(loaded.streams)]
    waited, computed = _waited(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost, needed = (_waited() - waited) / loaded.streams, (time.process_time() - computed) / loaded.streams
    return sum(count / max(seconds - lost, needed) for count, seconds in zip(counts, spent, strict=True))


def resident() -> float:
    """MB of memory that this process holds; 0 where the system does not tell."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return 0.0


def _waited() -> float:
    """Seconds for which this process's threads could have run, and had no core; 0 where the system does not tell."""
    waited = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += int(task.read_text().split()[1])
        except (OSError, IndexError, ValueError):  # a thread that has just ended
            continue
    return waited / 1e9


def _alike(items: list[NDArray[Any]]) -> bool:
    return len({item.shape for item in items}) == 1


def _numbers(spec: TensorSpec, size: int, batch: int | None, random: np.random.Generator) -> NDArray[Any]:
    if spec.shape is None:
        raise ValueError(f"the shape of {spec.name} is not known")
    free = 64 if len(spec.shape) == 4 else 16
    shape = tuple(n if n is not None else free for n in spec.shape)
    if batch is not None:
        shape = (size, *shape[1:])
    if spec.dtype == "bytes":
        return np.full(shape, b"probe", object)
    if spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":  # as indices they must be small
        return random.integers(0, 256 if spec.dtype == "uint8" else 8, shape).astype(dtype)
    return random.random(shape).astype(dtype)
