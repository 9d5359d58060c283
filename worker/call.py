"""One call of a model: items of several requests into arrays, and what comes back cut up again.

Arrays have the dimension that counts items in front, except where a signature has none (`Signature.batch` is None).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadRequest, ModelError, WorkerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import Model
    from .tensor import Signature

    Arrays = dict[str, NDArray[Any]]


def fitting(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> tuple[Arrays, int, bool]:
    """The inputs as the signature wants them, how many items they are, and whether these stand in a dimension of their own.

    Raises BadRequest that says by name what does not fit.
    """
    specs = signature.inputs
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        raise _other_names(signature, inputs)
    stacked = signature.batch is not None
    if not stacked:
        # One item without such a dimension, or several where every input has one dimension more.
        stacked = all(s.shape is not None and inputs[s.name].ndim == len(s.shape) + 1 for s in specs)
    arrays: Arrays = {}
    items = 1 if not stacked else -1
    for spec in specs:
        name, array = spec.name, inputs[spec.name]
        if array.dtype != (object if spec.dtype == "bytes" else spec.dtype):
            if spec.dtype != "bytes" or array.dtype.kind != "S":
                raise BadRequest(f"input {name!r} is of {_dtype(array)}; expected {spec.dtype}")
            array = array.astype(object)
        shape = spec.shape
        if shape is not None:
            if signature.batch is None and stacked:
                shape = (None, *shape)
            if array.ndim != len(shape) or any(
                wanted is not None and wanted != given
                for wanted, given in zip(shape[stacked:], array.shape[stacked:], strict=True)
            ):
                raise BadRequest(f"input {name!r} has shape {list(array.shape)}; expected {_shape(shape, stacked)}")
        if stacked:
            if array.ndim == 0:
                raise BadRequest(f"input {name!r} is a single number; expected a dimension that counts items")
            if items < 0:
                items = len(array)
            elif items != len(array):
                raise BadRequest(f"input {name!r} has {len(array)} items, but input {specs[0].name!r} has {items}")
        arrays[name] = array
    if items < 1:
        raise BadRequest("the inputs have no items; expected at least one" if specs else "the signature has no inputs")
    return arrays, items, stacked


def key(signature: Signature, arrays: Arrays, pictures: bool) -> tuple[Any, ...]:
    """Equal for what may share a call."""
    if len(arrays) == 1:
        for array in arrays.values():
            return pictures, signature.name, array.shape[1:]
    return pictures, signature.name, *(arrays[spec.name].shape[1:] for spec in signature.inputs)


def run(
    model: Model,
    signature: Signature,
    parts: Sequence[Arrays],
    counts: Sequence[int],
    size: int,
    wide: bool,
    pictures: bool = False,
) -> list[Arrays]:
    """The outputs of each of `parts`, which have `counts` items, from one call with `size`; of `pictures` only `scores`.

    Raises ModelError.
    """
    if signature.batch is None:
        outputs = _run(model, signature, parts[0], wide)
        return [{"scores": scores_of(model, outputs, 1)} if pictures else outputs]
    inputs = parts[0]
    if len(parts) > 1 or counts[0] != size:
        inputs = {name: _joined([part[name] for part in parts], size) for name in inputs}
    outputs = _run(model, signature, inputs, wide)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != size:
            raise ModelError(f"the model's output {name!r} has shape {list(array.shape)}; expected {size} items")
    if pictures:
        outputs = {"scores": scores_of(model, outputs, size)}
    if len(parts) == 1:
        return [outputs if counts[0] == size else {name: array[: counts[0]] for name, array in outputs.items()}]
    found, start = [], 0
    for number in counts:
        found.append({name: array[start : start + number] for name, array in outputs.items()})
        start += number
    return found


def raw(model: Model, signature: Signature, upload: bytes | memoryview) -> Arrays:
    """An upload as it is, as one item."""
    data = upload if type(upload) is bytes else bytes(upload)
    return {model.image_input: np.array(data if signature.batch is None else [data], object)}


def pieces(signature: Signature, arrays: Arrays, parts: Sequence[int], stacked: bool) -> list[Arrays]:
    """The inputs cut up, `parts` items each. Without a dimension that counts items each is one item, as it is."""
    if stacked and signature.batch is None:
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(parts))]
    if len(parts) == 1:
        return [arrays]
    found, start = [], 0
    for number in parts:
        found.append({name: array[start : start + number] for name, array in arrays.items()})
        start += number
    return found


def joined(answers: Sequence[Arrays]) -> Arrays:
    """Those of one request's pieces, in order. Raises ModelError if they do not fit together."""
    if len(answers) == 1:
        return answers[0]
    try:
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    except (ValueError, KeyError) as error:
        raise ModelError(f"the model's answers to the pieces of one request do not fit together: {error}") from error


def activated(scores: Any, activation: str) -> Any:
    """Raw outputs of shape (..., classes) -> probabilities, when the card says that the model does not do it itself."""
    if activation == "softmax":
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * scores)  # 1 / (1 + exp(-x)), without its overflow
    return scores


def scores_of(model: Model, outputs: Arrays, items: int) -> NDArray[Any]:
    """What a picture's labels get, of shape (items, classes), float32, activated. Raises ModelError."""
    assert model.card is not None
    try:
        scores = outputs[model.scores].reshape(items, -1)
    except (KeyError, ValueError) as error:
        raise ModelError(f"the model gave no scores for {items} pictures: {error}") from error
    scores = activated(scores, model.card.activation)
    if not np.isfinite(scores).all():
        raise ModelError("the model's scores are not finite numbers")
    if len(model.card.labels) not in (0, scores.shape[1]):
        raise ModelError(
            f"the model gave {scores.shape[1]} scores; expected {len(model.card.labels)}, one for each label"
        )
    return np.asarray(scores, np.float32)


def _run(model: Model, signature: Signature, inputs: Arrays, wide: bool) -> Arrays:
    try:
        return model.loaded.run(inputs, signature.name, wide)
    except WorkerError:
        raise
    except (Exception, SystemExit) as error:  # whatever a runtime throws is the model's failure, not the caller's
        text = " ".join(str(error).split())
        raise ModelError(f"the model failed: {type(error).__name__}: {text[:200]}") from error


def _joined(arrays: Sequence[NDArray[Any]], size: int) -> NDArray[Any]:
    """One after the other; the last item again and again until there are `size`: a number that the model can bear."""
    first = arrays[0]
    whole = np.empty((size, *first.shape[1:]), first.dtype)
    at = 0
    for array in arrays:
        whole[at : at + len(array)] = array
        at += len(array)
    if at < size:
        whole[at:] = whole[at - 1]
    return whole


def _other_names(signature: Signature, inputs: Mapping[str, Any]) -> BadRequest:
    wanted, given = {spec.name for spec in signature.inputs}, set(inputs)
    lacking = ", ".join(map(repr, sorted(wanted - given)))
    strange = ", ".join(map(repr, sorted(given - wanted)))
    text = " and ".join(
        part for part in (lacking and f"input {lacking} is missing", strange and f"there is no input {strange}") if part
    )
    return BadRequest(f"{text}; expected {', '.join(map(repr, sorted(wanted)))}")


def _dtype(array: NDArray[Any]) -> str:
    return "bytes" if array.dtype == object or array.dtype.kind == "S" else str(array.dtype)


def _shape(shape: tuple[int | None, ...], stacked: bool) -> str:
    whole = ("n", *shape[1:]) if stacked else shape
    return f"[{', '.join('any' if size is None else str(size) for size in whole)}]"
