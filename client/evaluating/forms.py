"""The forms a question is put in: what is sent for pixels or a picture file, and how the answer is read.

A form knows bytes and headers; where they go is the endpoint's business. Answers are scores by class number, or, of
uploads, labels with their scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson

from ...worker.errors import BadRequest, ConfigurationError
from ...worker.tensor import Prediction
from ...worker.wire import answer, elements, multipart, npy, openinference, tfserving

if TYPE_CHECKING:
    from numpy.typing import NDArray

JSON = "application/json"
TOP = (
    6  # labels of an upload's answer that are asked for: with five or fewer it would be moot who is among the best five
)


class Letter(NamedTuple):
    """A request's body with its headers."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Heard:
    """An answer: `scores` (n, classes), or one `prediction`."""

    scores: NDArray[Any] | None = None
    prediction: Prediction | None = None


class Form:
    """`query`: goes with the path."""

    query = ""

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        """`batch`: (n, ...) as the model takes them. Raises ConfigurationError where the form has no such thing."""
        raise NotImplementedError

    def of_picture(self, file: bytes) -> Letter:
        raise NotImplementedError

    def read(self, headers: Mapping[str, str], body: bytes) -> Heard:
        """Raises ValueError if it is no answer of this form."""
        raise NotImplementedError


class Upload(Form):
    """The article's: one picture as multipart, labels come back."""

    query = f"?top={TOP}"

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        raise ConfigurationError("an upload is a picture file, and not numbers")

    def of_picture(self, file: bytes) -> Letter:
        body, content_type = multipart.encode({"data": ("image", file)})
        return Letter(body, {"Content-Type": content_type})

    def read(self, headers: Mapping[str, str], body: bytes) -> Heard:
        return Heard(prediction=answer.decode(body))


class Rows(Form):
    """TensorFlow Serving's JSON, row by row; the EMNIST post's web service understands it too."""

    def __init__(self, signature: str = "") -> None:
        self._rest = b', "' + tfserving.SIGNATURE.encode() + b'": ' + orjson.dumps(signature) if signature else b""

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        return Letter(
            b'{"instances": ' + elements.write("instances", batch) + self._rest + b"}", {"Content-Type": JSON}
        )

    def of_picture(self, file: bytes) -> Letter:
        held = np.empty(1, object)
        held[0] = file
        written = elements.write("instances", held, True)
        return Letter(b'{"instances": ' + written + self._rest + b"}", {"Content-Type": JSON})

    def read(self, headers: Mapping[str, str], body: bytes) -> Heard:
        return Heard(only_scores(tfserving.decode_response(body)))


class Npy(Form):
    """.npy files both ways, to our workers' predict; a picture goes as it is."""

    def __init__(self, signature: str = "") -> None:
        self.query = f"?signature_name={quote(signature, safe='')}" if signature else ""

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        return Letter(b"".join(npy.encode(batch)), {"Content-Type": npy.CONTENT_TYPE, "Accept": npy.CONTENT_TYPE})

    def of_picture(self, file: bytes) -> Letter:
        return Letter(file, {"Content-Type": openinference.BINARY, "Accept": npy.CONTENT_TYPE})

    def read(self, headers: Mapping[str, str], body: bytes) -> Heard:
        try:
            return Heard(only_scores({"": npy.decode(body)}))
        except BadRequest as error:
            raise ValueError(str(error)) from error


class Binary(Form):
    """The Open Inference Protocol with binary tensors. `name`: of the model's input."""

    def __init__(self, name: str) -> None:
        self._name = name

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        return self._letter(batch)

    def of_picture(self, file: bytes) -> Letter:
        held = np.empty(1, object)
        held[0] = file
        return self._letter(held)

    def read(self, headers: Mapping[str, str], body: bytes) -> Heard:
        try:
            length = openinference.header_length(headers.get(openinference.HEADER), len(body))
            return Heard(only_scores(openinference.decode_response(body, length).outputs))
        except BadRequest as error:
            raise ValueError(str(error)) from error

    def _letter(self, array: NDArray[Any]) -> Letter:
        pieces, length = openinference.encode_request(openinference.InferRequest({self._name: array}, binary=True))
        headers = {"Content-Type": openinference.BINARY, openinference.HEADER: str(length)}
        return Letter(b"".join(pieces), headers)


def only_scores(outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """(n, classes) of a model's outputs: the only one that is numbers of two dimensions, or the one called scores.

    Raises ValueError if there is none, or which is meant cannot be known.
    """
    found = {name: array for name, array in outputs.items() if array.ndim == 2 and array.dtype.kind in "iuf"}
    if len(found) > 1 and "scores" in found:
        found = {"scores": found["scores"]}
    if len(found) != 1:
        shown = ", ".join(f"{name or 'output'} {list(array.shape)}" for name, array in outputs.items())
        raise ValueError(f"{len(found)} of its outputs could be scores, (n, classes): {shown}")
    (scores,) = found.values()
    if not scores.size:
        raise ValueError("its scores are empty")
    return scores
