"""What the Open Inference Protocol's calls mean to this worker, over whichever transport they came.

Pictures: a model with a card also takes an input `image` of BYTES, [n] or [n, 1] encoded pictures, instead of its
tensors, or BYTES under the name of the tensor that the pictures become. They are decoded as uploads are; the answer is
`scores`, FP32 of shape [n, classes].
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadRequest, NotFound, NotReady
from .tensor import TensorSpec
from .wire import datatypes
from .wire.openinference import InferRequest, InferResponse, RequestedOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engine import Answer, Engine
    from .metrics import Counts
    from .model import Model
    from .repository import Repository
    from .tensor import Signature
    from .versions import VersionStatus

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "statistics")
IMAGE, SCORES = "image", "scores"

# our engines -> the protocol's "project_format"
PLATFORMS = {
    "tensorflow": "tensorflow_savedmodel",
    "litert": "tensorflow_tflite",
    "onnx": "onnx_onnxv1",
    "openvino": "openvino_ir",
    "torch": "pytorch_torchscript",
}
STATES = {"LOADING": "LOADING", "AVAILABLE": "READY", "UNLOADING": "UNLOADING"}


def find(repository: Repository, name: str, version: str = "") -> Model:
    """`version`: a number, a label, or empty for the one that is served by default. Raises NotFound, BadRequest."""
    number = _number(version)
    if number is None and version:
        return repository.find(name, label=version)
    return repository.find(name, number)


def require_ready(engine: Engine, repository: Repository, name: str, version: str = "") -> None:
    """Raises NotFound for what there is not, and NotReady for what is not served at the moment."""
    try:
        find(repository, name, version)
    except NotFound:
        states = ", ".join(f"version {s.version} is {s.state}" for s in repository.statuses(name, _number(version)))
        raise NotReady(f"{name} is not served at the moment: {states}") from None
    if not engine.ready:
        raise NotReady("the worker is draining" if engine.draining else "the worker is not ready")


def metadata(repository: Repository, model: Model) -> dict[str, Any]:
    """The model's own tensors; `versions`: of those that are served."""
    signature = model.loaded.signatures[model.loaded.default]
    served = [status.version for status in repository.statuses(model.name) if status.state == "AVAILABLE"]
    return {
        "name": model.name,
        "versions": [str(version) for version in sorted(served)],
        "platform": PLATFORMS.get(model.loaded.runtime, model.loaded.runtime),
        "inputs": [_described(spec) for spec in signature.inputs],
        "outputs": [_described(spec) for spec in signature.outputs],
    }


def index(repository: Repository, only_ready: bool = False) -> list[dict[str, str]]:
    """Every version of every model, in the words of Triton's model repository extension."""
    entries = []
    for name, status in _versions(repository):
        state = STATES.get(status.state, "UNAVAILABLE")
        if state == "READY" or not only_ready:
            entries.append({"name": name, "version": str(status.version), "state": state, "reason": status.message})
    return entries


def statistics(engine: Engine, repository: Repository, name: str = "", version: str = "") -> dict[str, Any]:
    """Triton's statistics extension, of what is served. Left out is what is not counted here: when the last request came,
    how long failures took, and times for each size of batch. Raises what `find` raises.
    """
    if version:
        model = find(repository, name, version)
        wanted = [(model.name, model.version)]
    else:
        found = _versions(repository) if not name else ((name, status) for status in repository.statuses(name))
        wanted = [(name, status.version) for name, status in found if status.state in ("AVAILABLE", "UNLOADING")]
    return {"model_stats": [_counted(*key, engine.metrics.of(*key)) for key in wanted]}


async def infer(
    engine: Engine, model: Model, request: InferRequest, deadline: float | None = None
) -> tuple[InferResponse, frozenset[str], Answer]:
    """The answer, the names of its outputs that are wanted as bytes, and what it took. Raises WorkerError's children.

    `deadline`: seconds of the engine's clock; the request's `timeout`, in microseconds, may make it earlier.
    """
    deadline = _deadline(request, deadline)
    uploads = pictures(model, request.inputs)
    signature = model.loaded.signatures[model.loaded.default]
    names = [spec.name for spec in signature.outputs] if uploads is None else [SCORES]
    wanted = request.outputs or tuple(RequestedOutput(name, binary=request.binary) for name in names)
    known = {*names, model.scores} if uploads is not None else {*names}
    for output in wanted:  # before the model works for nothing
        if output.name not in known:
            what = "an answer to pictures" if uploads is not None else model.name
            raise BadRequest(f"{what} has no output '{output.name}'; expected one of {', '.join(names)}")
    if uploads is None:
        answer = await engine.infer(model, _inputs(model, request.inputs), deadline=deadline)
        found = answer.outputs
    else:
        answer = await engine.classify(model, uploads, deadline)
        found = dict.fromkeys(known, answer.outputs[SCORES])
    outputs = {output.name: found[output.name] for output in wanted}
    for output in wanted:
        if output.classes:
            array = found[output.name]
            batched = uploads is not None or _has_items(signature, output.name, array)
            outputs[output.name] = classification(array, output, _labels(model, output.name), batched)
    response = InferResponse(model.name, str(model.version), outputs, request.id)
    return response, frozenset(output.name for output in wanted if output.binary), answer


def picture(body: bytes) -> InferRequest:
    """The request that a body is which is nothing but an encoded picture."""
    array = np.empty(1, object)
    array[0] = body
    return InferRequest({IMAGE: array}, binary=True)


def pictures(model: Model, inputs: dict[str, NDArray[Any]]) -> list[bytes] | None:
    """The encoded pictures that `inputs` are, if they are: see above. Raises BadRequest for what can only be meant so."""
    (name, array), *others = inputs.items()
    if others or array.dtype != object:
        return None
    if model.card is None:
        own = {spec.name for spec in model.loaded.signatures[model.loaded.default].inputs}
        if name == IMAGE and IMAGE not in own:
            raise BadRequest(f"{model.name} takes no pictures: {model.reason}")
        return None
    if name not in (IMAGE, model.image_input):
        return None
    if not array.size or array.shape not in ((array.size,), (array.size, 1)):
        raise BadRequest(f"input '{name}' has shape {list(array.shape)}; pictures come as [n] or [n, 1]")
    found: list[bytes] = array.reshape(-1).tolist()
    return found


def classification(scores: NDArray[Any], output: RequestedOutput, labels: Sequence[str], batched: bool) -> NDArray[Any]:
    """Triton's classification extension: of each item the best, as `score:index:label`, the label left out if unknown.

    (n, ...) -> BYTES (n, k), or without a batch dimension (...) -> (k,); ties go by the index, NaN comes last.
    """
    if scores.dtype.kind not in "biuf":
        raise BadRequest(f"output '{output.name}' is no array of numbers: there are no best of them")
    rows = scores.reshape(len(scores), -1) if batched and scores.ndim and len(scores) else scores.reshape(1, -1)
    ranked = np.where(np.isnan(rows), -np.inf, rows) if scores.dtype.kind == "f" else rows
    # Sorted backwards and turned over, so that equals keep their order.
    last = rows.shape[1] - 1
    best = last - np.argsort(ranked[:, ::-1], axis=1, kind="stable")[:, : -output.classes - 1 : -1]
    texts = np.empty(best.shape, object)
    for row, places in enumerate(best.tolist()):
        for rank, place in enumerate(places):
            value = rows[row, place]
            score = f"{value:.6g}" if scores.dtype.kind == "f" else f"{int(value)}"
            text = f"{score}:{place}:{labels[place]}" if len(labels) == rows.shape[1] else f"{score}:{place}"
            texts[row, rank] = text.encode()
    return texts if batched else texts[0]


def _inputs(model: Model, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """BF16 came as float32; a model that has such numbers gets them as they were."""
    short = {s.name for s in model.loaded.signatures[model.loaded.default].inputs if s.dtype == "bfloat16"}
    return {
        name: array.astype("bfloat16") if name in short and array.dtype == np.float32 else array
        for name, array in inputs.items()
    }


def _has_items(signature: Signature, output: str, array: NDArray[Any]) -> bool:
    """Whether the first dimension counts items: the signature's own, or one that was given on top of it."""
    shape = next((spec.shape for spec in signature.outputs if spec.name == output), None)
    return signature.batch is not None or (shape is not None and array.ndim > len(shape))


def _labels(model: Model, output: str) -> Sequence[str]:
    return model.card.labels if model.card is not None and output in (SCORES, model.scores) else ()


def _deadline(request: InferRequest, deadline: float | None) -> float | None:
    timeout = request.parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise BadRequest(f"timeout is {timeout!r:.40}; expected microseconds, or 0 for none of its own")
    if not timeout:
        return deadline
    own = time.monotonic() + timeout / 1e6
    return own if deadline is None else min(own, deadline)


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor whose number of dimensions is open is said to have one."""
    shape = [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": datatypes.name_of(spec.dtype), "shape": shape}


def _versions(repository: Repository) -> Iterator[tuple[str, VersionStatus]]:
    for name in repository.names():
        try:
            statuses = repository.statuses(name)
        except NotFound:  # a folder without versions
            continue
        yield from ((name, status) for status in statuses)


def _counted(name: str, version: int, counts: Counts) -> dict[str, Any]:
    def duration(*histograms: Sequence[float]) -> dict[str, int]:
        count = int(sum(histograms[0][:-1]))
        return {"count": count, "ns": round(sum(times[-1] for times in histograms) * 1e9)}

    queue, decode, infer, encode = (
        counts.queue_seconds,
        counts.decode_seconds,
        counts.infer_seconds,
        counts.encode_seconds,
    )
    never = {"count": 0, "ns": 0}  # nothing is cached
    return {
        "name": name,
        "version": str(version),
        "inference_count": counts.inference_count,
        "execution_count": counts.exec_count,
        "inference_stats": {
            "success": {"count": counts.success, "ns": duration(queue, decode, infer, encode)["ns"]},
            "fail": {"count": sum(counts.failures.values()), "ns": 0},
            "queue": duration(queue),
            "compute_input": duration(decode),
            "compute_infer": duration(infer),
            "compute_output": duration(encode),
            "cache_hit": never,
            "cache_miss": never,
        },
        "batch_stats": [],
    }


def _number(version: str) -> int | None:
    return int(version[:19]) if version.isascii() and version.isdigit() else None  # no version has more digits
