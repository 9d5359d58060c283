"""HTTP: TensorFlow Serving's REST API.

POST /v1/models/M[/versions/V|/labels/L]:predict    also pictures (multipart, image/*, or just their bytes), and .npy
POST /v1/models/M[/versions/V|/labels/L]:classify   also pictures; ?top=K
POST /v1/models/M[/versions/V|/labels/L]:regress
GET  /v1/models/M[/versions/V|/labels/L][/metadata]
GET  /v1/models                                     all of them, which TensorFlow Serving would not tell

A body is JSON whatever its type is called, unless it says that it is something else. Pictures and .npy take the signature
from `?signature_name=`. `Accept: application/x-npy` asks for the only output, or for `?output=NAME`, as such a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BadRequest
from ...image import looks_like_an_image
from ...wire import answer, examples, multipart, npy, tfserving
from ...wire import tfserving_models as listing
from ...wire.timing import FIELD, timing
from .message import JSON, Request, Response, Route, Served, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...engine import Answer
    from ...model import Model
    from ...tensor import Signature

MODEL = "(?i)/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
PICTURES = ("multipart/form-data", "image/*")
KEY_BYTES = 512  # within which a request without a verb says what it is
ALL = "999999999"  # labels
FEATURES = ("image", "image/encoded", "image_bytes")  # usual names of a picture among an example's features


def routes(served: Served) -> list[Route]:
    def find(model: str, version: str, label: str) -> Model:
        return served.repository.find(model, _number(version), label)

    async def predict(request: Request, model: str, version: str = "", label: str = "") -> Response:
        return await predicted(served, request, find(model, version, label))

    async def classify(request: Request, model: str, version: str = "", label: str = "") -> Response:
        return await _classified(served, request, find(model, version, label))

    async def regress(request: Request, model: str, version: str = "", label: str = "") -> Response:
        return await _regressed(served, request, find(model, version, label))

    async def status(request: Request, model: str, version: str = "", label: str = "") -> Response:
        # A label narrows nothing, as in TensorFlow Serving.
        return Response(listing.encode_status(served.repository.statuses(model, _number(version))))

    async def metadata(request: Request, model: str, version: str = "", label: str = "") -> Response:
        found = find(model, version, label)
        return Response(listing.encode_metadata(model, found.version, found.loaded.signatures))

    async def models(request: Request) -> Response:
        names = served.repository.names()
        return Response(listing.encode_list({name: served.repository.statuses(name) for name in names}))

    async def malformed(request: Request) -> Response:
        raise BadRequest(f"Malformed request: {request.method} {request.path}")

    post, get = "POST", "GET"
    return [
        Route(
            post,
            re.compile(MODEL + ":predict"),
            predict,
            "tensors in, tensors out, as TensorFlow Serving has it; also pictures, and .npy",
            (JSON, npy.CONTENT_TYPE, *PICTURES),
            (JSON, npy.CONTENT_TYPE),
        ),
        Route(
            post,
            re.compile(MODEL + ":classify"),
            classify,
            "examples, or pictures, in; labels with their scores out; ?top=K",
            (JSON, *PICTURES),
        ),
        Route(post, re.compile(MODEL + ":regress"), regress, "examples in, numbers out"),
        Route(get, re.compile(MODEL), status, "a model's versions, and their states"),
        Route(get, re.compile(MODEL + "/metadata"), metadata, "a model's signatures"),
        Route(get, re.compile("(?i)/v1/models"), models, "all models, their versions and states"),
        Route(post, re.compile("(?i)/v1/.*"), malformed),
        Route(get, re.compile("(?i)/v1/.*"), malformed),
    ]


def is_meant(body: bytes) -> bool:
    """Whether JSON that came without a verb is a request to predict; what holds a picture is none."""
    return body.startswith(b"{") and any(key in body[:KEY_BYTES] for key in (b'"instances"', b'"inputs"'))


async def predicted(served: Served, request: Request, model: Model) -> Response:
    """A request of any of predict's forms, answered by `model`. Raises WorkerError's children."""
    asked = await _asked(request, model)
    if asked.images:
        if asked.signature != model.loaded.default:
            raise BadRequest(f'pictures are for the signature "{model.loaded.default}"; asked for "{asked.signature}"')
        result = await served.engine.classify(model, asked.images, request.deadline)
        outputs = {model.scores: result.outputs["scores"]}
    else:
        result = await served.engine.infer(model, asked.inputs, asked.signature, request.deadline)
        outputs = result.outputs
    if npy.CONTENT_TYPE in request.headers.get("accept", ""):
        array = _wanted(outputs, request.query.get("output", ""))
        return Response(npy.encode(array), content_type=npy.CONTENT_TYPE, headers={FIELD: timing(result)})
    characters = 8 * sum(array.size for array in outputs.values())
    return _answered(result, await run(characters, tfserving.encode_response, outputs, asked.rows))


async def _asked(request: Request, model: Model) -> tfserving.Predict:
    body = request.body
    if pictures := _pictures(request):
        return tfserving.Predict(_signature(model, request).name, True, images=pictures)
    if request.content_type == npy.CONTENT_TYPE:
        signature = _signature(model, request)
        if len(signature.inputs) != 1:
            names = ", ".join(spec.name for spec in signature.inputs)
            raise BadRequest(f"a .npy file is one array, but there are {len(signature.inputs)} inputs: {names}")
        (spec,) = signature.inputs
        return tfserving.Predict(signature.name, True, {spec.name: npy.fitted(npy.decode(body), spec.dtype)})
    image_input = model.image_input if model.card is not None else ""
    return await run(len(body), tfserving.decode_request, body, _signatures(model), model.loaded.default, image_input)


async def _classified(served: Served, request: Request, model: Model) -> Response:
    pictures: Sequence[bytes | memoryview] = _pictures(request)
    if pictures:
        return await _labelled(served, request, model, pictures)
    asked = await run(len(request.body), examples.decode, request.body)
    signature = _signatures(model).get(asked.signature or model.loaded.default)
    default = model.loaded.signatures[model.loaded.default]
    alone = signature is None and asked.signature == examples.CLASSIFY  # the engine chosen here does not parse examples
    if model.card is not None and (signature is default or alone) and default.method != "classify":
        pictures = asked.pictures(model.name, model.image_input, *FEATURES)
        return await _labelled(served, request, model, pictures)
    signature = _of_method(signature, asked.signature or model.loaded.default, "classify")
    result = await served.engine.infer(model, _examples(asked, signature), signature.name, request.deadline)
    classes, scores = (result.outputs.get(name) for name in ("classes", "scores"))
    for array in (classes, scores):
        if array is not None and array.ndim != 2:
            raise BadRequest(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
    if scores is None and classes is None:
        raise BadRequest(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature has: {', '.join(result.outputs)}"
        )
    return _answered(result, examples.encode_classes(classes, scores))


async def _labelled(served: Served, request: Request, model: Model, pictures: Sequence[bytes | memoryview]) -> Response:
    top = answer.top_of(request.query.get("top", ALL))
    result = await served.engine.classify(model, pictures, request.deadline)
    assert model.card is not None
    scores = result.outputs["scores"]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    labels = np.array(model.card.labels, object)[best]
    return _answered(result, examples.encode_classes(labels, np.take_along_axis(scores, best, 1)))


async def _regressed(served: Served, request: Request, model: Model) -> Response:
    asked = await run(len(request.body), examples.decode, request.body)
    name = asked.signature or model.loaded.default
    signature = _of_method(_signatures(model).get(name), name, "regress")
    result = await served.engine.infer(model, _examples(asked, signature), signature.name, request.deadline)
    values = result.outputs.get("outputs")
    if values is None:
        raise BadRequest(f'No regression outputs found: expected "outputs", found {", ".join(result.outputs)}')
    if values.ndim not in (1, 2) or values.size != len(values):
        raise BadRequest(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    return _answered(result, examples.encode_values(values.reshape(-1)))


def _examples(asked: examples.Examples, signature: Signature) -> dict[str, NDArray[Any]]:
    """Serialised, for a model that parses them; of any other one, the feature that is called as its input is."""
    (spec,) = signature.inputs
    return {spec.name: asked.serialized() if spec.dtype == "bytes" else asked.rows(spec.name, spec.dtype)}


def _of_method(signature: Signature | None, name: str, method: str) -> Signature:
    """If it is one. Raises BadRequest."""
    if signature is None:
        raise BadRequest(f"No signature was found with the name: {name}")
    if signature.method != method:
        word = "classification" if method == "classify" else "regression"
        raise BadRequest(
            f"Expected {word} signature method_name to be {listing.METHOD}{method}. Was: {listing.METHOD}{signature.method}"
        )
    if len(signature.inputs) != 1:
        raise BadRequest("Expected one input Tensor.")
    return signature


def _pictures(request: Request) -> tuple[bytes | memoryview, ...]:
    """The picture files that the body is, if it is that: all files of a form, or else its fields `data`."""
    kind, body = request.content_type, request.body
    if kind == "multipart/form-data":
        parts = multipart.parse(body, request.headers["content-type"])
        files = [p.data for p in parts if p.filename is not None] or [p.data for p in parts if p.name == "data"]
        if not files:
            raise BadRequest("no picture in the form: expected files, or fields 'data'")
        return tuple(files)
    if kind.startswith("image/"):
        if not body:
            raise BadRequest("the picture is empty")
        return (body,)
    return (body,) if looks_like_an_image(body) else ()  # whatever curl --data-binary calls it


def _signature(model: Model, request: Request) -> Signature:
    """Of a body that is no JSON: said in the query."""
    said = request.query.get(tfserving.SIGNATURE, "")
    return tfserving.signature_of({tfserving.SIGNATURE: said}, _signatures(model), model.loaded.default)


def _signatures(model: Model) -> dict[str, Signature]:
    """All that may be said: clients of TensorFlow Serving say `serving_default`, whatever a model calls its own."""
    loaded = model.loaded
    return {"serving_default": loaded.signatures[loaded.default], **loaded.signatures}


def _wanted(outputs: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """The output called `name`, or the only one. Raises BadRequest."""
    if name not in outputs and (name or len(outputs) != 1):
        raise BadRequest(f"a .npy file is one array: say ?output=NAME, one of {', '.join(outputs)}")
    array = outputs[name] if name else next(iter(outputs.values()))
    if array.dtype.kind not in npy.KINDS:
        raise BadRequest("this output is no array of numbers; ask for it as JSON")
    return array


def _number(version: str) -> int | None:
    if not version:
        return None
    if len(version) > 19 or int(version) >= 2**63:
        raise BadRequest(f"Failed to convert version: {version[:40]} to numeric.")
    return int(version)


def _answered(result: Answer, body: bytes) -> Response:
    return Response(body, headers={FIELD: timing(result)})
