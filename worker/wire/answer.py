"""The article's answer: `[["daisy", 0.97], ["tulips", 0.01], ...]`, best first; and its errors, `{"error": "..."}`."""

from __future__ import annotations

import json
from functools import lru_cache

from ..errors import BadRequest
from ..tensor import Prediction

DEFAULT_TOP = 5
MAX_SCORE = 3.5e38  # scores are float32; NaN is no score either


def encode(prediction: Prediction) -> bytes:
    """One line of JSON. Scores carry six significant digits, more than float32 answers are worth."""
    pairs = [f"[{_written(label)}, {_number(score)}]" for label, score in prediction]
    return f"[{', '.join(pairs)}]\n".encode()


def decode(body: bytes) -> Prediction:
    """Raises ValueError if `body` is not such an answer."""
    try:
        raw = json.loads(body)
    except RecursionError as error:
        raise ValueError("not an answer: JSON nested without end") from error
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"not a list of [label, score] pairs: {body[:80]!r}")
    pairs: list[tuple[str, float]] = []
    for row in raw:
        match row:
            case [str(label), int() | float() as score] if not isinstance(score, bool) and abs(score) <= MAX_SCORE:
                pairs.append((label, float(score)))
            case _:
                raise ValueError(f"not a [label, score] pair: {row!r}")
    return Prediction(tuple(pairs))


def _number(score: float) -> str:
    text = f"{score:.6g}"
    return text if "." in text or "e" in text else f"{float(text)!r}"


_written = lru_cache(4096)(json.dumps)  # labels come again and again


def encode_error(text: str) -> bytes:
    return json.dumps({"error": text}).encode() + b"\n"


def decode_error(body: bytes) -> str:
    """The text of an error answer, whoever wrote it."""
    try:
        raw = json.loads(body)
        return str(raw["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:200].decode("utf-8", "replace").strip()


def top_of(text: str | None) -> int:
    """The `top` query parameter. Raises BadRequest unless it is a whole number from 1 up."""
    if text is None:
        return DEFAULT_TOP
    digits = text.lstrip("0")[:9]  # more digits than that mean "all" as well, and int() would refuse thousands
    if not (text.isascii() and text.isdigit() and digits):
        raise BadRequest(f"top={text[:20]!r}: expected a whole number from 1 up")
    return int(digits)
