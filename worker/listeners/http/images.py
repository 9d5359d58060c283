"""Pictures in, labels out: the article's upload, and the same for every model there is.

POST /                                           the default model
PUT  /NAME                                       the same, as `curl -T x.jpg` sends it
POST /v1/models/M[/versions/V|/labels/L]:image   any model

To `/` may also be sent what TensorFlow Serving calls predict, as to the EMNIST article's web service.
A body is multipart (field `data`, or the only file), JSON `{"image": {"b64": "..."}}`, or the picture itself.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

import numpy as np
import orjson

from ...errors import BadRequest
from ...tensor import Prediction
from ...wire import answer, multipart
from ...wire.timing import FIELD, timing
from . import tfserving
from .message import JSON, SMALL_BYTES, Request, Response, Route, Served, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...model import Model

OF_A_MODEL = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?:image"
)
TAKES = ("multipart/form-data", "image/*", "application/octet-stream", JSON)
EXPECTED = 'expected {"image": {"b64": "..."}}'
MANY = 64  # classes; fewer are sorted where they are


def routes(served: Served) -> list[Route]:
    async def classify(request: Request, model: str = "", version: str = "", label: str = "") -> Response:
        wanted = served.repository.find(model, int(version) if version else None, label)
        if not model and tfserving.is_meant(request.body):
            return await tfserving.predicted(served, request, wanted)
        top = answer.top_of(request.query.get("top") if request.raw_query else None)
        if len(request.body) > SMALL_BYTES and not request.content_type.startswith(("multipart/", "image/")):
            upload = await run(len(request.body), upload_in, request, wanted)
        else:
            upload = upload_in(request, wanted)
        result = await served.engine.classify(wanted, (upload,), request.deadline)
        prediction = best(result.outputs["scores"][0], wanted, top)
        return Response(answer.encode(prediction), headers={FIELD: timing(result)})

    summary = "a picture -> its labels with their scores, best first; ?top=K"
    return [
        Route("POST", "/", classify, summary, TAKES),
        Route("PUT", re.compile("/[^/]*"), classify, summary + "; as curl -T sends it", TAKES),
        Route("POST", OF_A_MODEL, classify, summary, TAKES),
    ]


def upload_in(request: Request, model: Model) -> bytes | memoryview:
    """The picture in a request. Raises BadRequest."""
    body, kind = request.body, request.content_type
    upload: bytes | memoryview = body
    if kind == "multipart/form-data":
        upload = multipart.image_field(body, request.headers["content-type"])
    elif kind == JSON or body.startswith(b"{"):  # no picture begins so; curl -d calls all it sends a form
        upload = _upload_in_json(body, model)
    if not len(upload):
        raise BadRequest("the upload is empty: send an image as multipart field 'data', or as the body")
    return upload


def best(scores: NDArray[np.float32], model: Model, top: int) -> Prediction:
    """(classes,) -> the `top` best; ties keep the order of the labels."""
    assert model.card is not None
    labels = model.card.labels
    if len(scores) <= MANY:
        return Prediction.from_scores(scores.tolist(), labels, top)
    order = np.argsort(-scores, kind="stable")[:top]
    return Prediction(tuple((labels[i], float(scores[i])) for i in order.tolist()))


def _upload_in_json(body: bytes, model: Model) -> bytes:
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}; {EXPECTED}") from None
    if not isinstance(document, dict):
        raise BadRequest(f"the body is a JSON {type(document).__name__}; {EXPECTED}")
    if "instances" in document or "inputs" in document:
        raise BadRequest(
            f"requests of TensorFlow Serving's form go to /v1/models/{model.name}:predict; "
            "here a picture is wanted: multipart, the picture itself, or JSON " + EXPECTED.removeprefix("expected ")
        )
    match document.get("image"):
        case {"b64": str(text)}:
            try:
                return binascii.a2b_base64(text, strict_mode=True)
            except ValueError as error:
                raise BadRequest(f"image.b64 is not base64: {error}") from None
    raise BadRequest(f"no image in the JSON: {EXPECTED}")
