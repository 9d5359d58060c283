"""What becomes of a picture before the model gets it, in words: the model card's, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..card import InputSpec

CHANNELS = {"RGB": "RGB", "BGR": "BGR, blue first", "L": "gray"}


def steps(spec: InputSpec) -> list[str]:
    """In the order in which they are done; see image.py, which does them."""
    if spec.kind == "raw":
        return ["the upload as it is: the model judges and decodes it"]
    if spec.kind == "encoded":
        return ["an encoded picture, JPEG as it came and all else as PNG: the model decodes it"]
    found = ["decode, upright, the first frame"]
    if spec.reduced:
        found[0] += "; large JPEGs at a half, a quarter or an eighth of their size"
    found.append(_resized(spec))
    found.append(CHANNELS[spec.channels])
    found.append(_scaled(spec))
    if spec.flatten:
        depth = 1 if spec.channels == "L" else 3
        count = spec.width * spec.height * depth
        found.append(f"one row of {count} numbers" if count else "one row of numbers")
    elif spec.layout == "chw":
        found.append("channels first")
    found.append(spec.dtype)
    return found


def _resized(spec: InputSpec) -> str:
    size = f"{spec.width} x {spec.height}"
    match spec.resize:
        case "none":
            return "at its own size"
        case "squash":
            return f"resize to {size}, its aspect ratio ignored ({spec.filter})"
        case "pad":
            return f"fit into {size}, the rest black ({spec.filter})"
    if spec.resize_to or spec.width == spec.height:
        side = max(spec.resize_to, 0) or spec.width
        return f"crop the middle: shorter side to {side}, cut {size} ({spec.filter})"
    return f"crop the middle: scale until {size} is filled, cut {size} ({spec.filter})"


def _scaled(spec: InputSpec) -> str:
    mean, std = spec.mean, spec.std
    if all(number == 0 for number in mean) and all(number == 1 for number in std):
        return "pixels 0..255 as they are"
    above = "pixel" if all(number == 0 for number in mean) else f"pixel - {_numbers(mean)}"
    if all(number == 1 for number in std):
        return above
    return f"{above} / {_numbers(std)}" if above == "pixel" else f"({above}) / {_numbers(std)}"


def _numbers(numbers: Sequence[float]) -> str:
    """One number, or one a channel."""
    texts = [f"{number:g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
