"""The same pictures through both forms of a model, each by our own engine and with the preprocessing of its own card."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..call import activated
from ..card import InputSpec
from ..errors import ConfigurationError
from ..image import decode, encode_for_model, to_item
from ..model import Loaded, Model
from ..runtimes import probes
from ..runtimes.difference import COARSE, Arrays, Bounds, Comparison, compare
from ..tensor import Signature
from ..wire.examples import CLASSIFY, serialized
from .original import Original

Progress = Callable[[Sequence[Any], str], Iterable[Any]]

TOGETHER = 8  # items in the call that shows that several at once are answered as each alone


@dataclass(frozen=True)
class Verdict:
    """`main`: of the pictures, or for want of an image input of random tensors. `others`: of whatever else was compared, by
    name. `before`, `after`: mean seconds an item, one at a time on one core, of the model and of its new form.
    """

    main: Comparison
    others: dict[str, Comparison]
    before: float
    after: float

    @property
    def reason(self) -> str:
        """Why the new form is not the same; empty if it is."""
        if self.main.reason:
            return self.main.reason
        return next((f"{name}: {other.reason}" for name, other in self.others.items() if other.reason), "")


def verify(original: Original, new: Model, pictures: list[bytes], bounds: Bounds, progress: Progress) -> Verdict:
    """`new`: as our worker would load it. `pictures`: files. Raises ConfigurationError where nothing can be compared."""
    default = original.opened.default
    if new.loaded.default != default:
        return _failed(f"its signature is {new.loaded.default}, not {default}")
    others: dict[str, Comparison] = {}
    if original.use.card is not None:
        if new.card is None:
            return _failed(f"it is no model for pictures any more: {new.reason}")
        # Both are fed by position: LiteRT and ONNX know the tensors by the same names, whatever their order.
        expected, before = _one_by_one(original.opened, original.use.card.input, progress(pictures, "the model"))
        given, after = _one_by_one(new.loaded, new.card.input, progress(pictures, "its new form"))
        main = compare({default: expected}, {default: given}, original.use.scores, bounds)
        if not main.reason:
            others = {
                **_several_at_once(new, pictures, expected, original.use.scores, bounds),
                **_examples(original, new, pictures, expected),
            }
    else:
        calls = _calls(original.signature)
        expected, before = _answers(original.opened, default, calls)
        given, after = _answers(new.loaded, default, calls)
        main = compare({default: expected}, {default: given}, "scores", bounds)
    if not main.reason:
        others |= _signatures(original, new, bounds)
    return Verdict(main, others, before, after)


def _one_by_one(loaded: Loaded, spec: InputSpec, pictures: Iterable[bytes]) -> tuple[list[Arrays], float]:
    """What is answered to each, without those that only fill a call up, and the mean seconds a call."""
    signature = loaded.signatures[loaded.default]
    fed = signature.inputs[0].name
    found: list[Arrays] = []
    spent = 0.0
    for picture in pictures:
        item = to_item(picture, spec)
        inputs = {fed: item if signature.batch is None else np.stack([item] * (signature.batch or 1))}
        if not found:
            loaded.run(inputs, loaded.default)  # the first call makes what the others only use
        begun = time.perf_counter()
        outputs = loaded.run(inputs, loaded.default)
        spent += time.perf_counter() - begun
        found.append(outputs if signature.batch is None else {name: array[:1] for name, array in outputs.items()})
    return found, spent / len(found)


def _several_at_once(
    new: Model, pictures: list[bytes], expected: list[Arrays], scores: str, bounds: Bounds
) -> dict[str, Comparison]:
    """Of what takes any number of them."""
    signature = new.loaded.signatures[new.loaded.default]
    assert new.card is not None, "compared already"
    items = [to_item(picture, new.card.input) for picture in pictures[:TOGETHER]]
    if signature.batch != 0 or len(items) < 2 or len({item.shape for item in items}) > 1:
        return {}
    given = new.loaded.run({signature.inputs[0].name: np.stack(items)}, signature.name)
    wanted = probes.together(expected[: len(items)])
    return {f"{len(items)} at once": compare({"": wanted}, {"": [given]}, scores, bounds)}


def _examples(original: Original, new: Model, pictures: list[bytes], expected: list[Arrays]) -> dict[str, Comparison]:
    """Of the signature that decodes pictures by itself, as TensorFlow does it: a level more or less a pixel is usual."""
    card = original.use.card
    if card is None or CLASSIFY not in new.loaded.signatures or CLASSIFY in original.opened.signatures:
        return {}
    files = [_as_tensorflow_reads_it(picture) for picture in pictures[:TOGETHER]]
    examples = np.empty(len(files), object)
    examples[:] = [serialized({"image/encoded": [file]}) for file in files]
    answer = new.loaded.run({"inputs": examples}, CLASSIFY)
    raw = np.concatenate([outputs[original.use.scores] for outputs in expected[: len(files)]])
    wanted = activated(raw, card.activation).astype(np.float32)
    given = answer["scores"]
    places = {label.encode(): i for i, label in enumerate(card.labels)}
    if len(places) == len(card.labels):
        order = np.argsort([[places[label] for label in row] for row in answer["classes"]], axis=1)
        given = np.take_along_axis(given, order, axis=1)
    else:  # two classes of one name cannot be told apart: then only the scores are looked at
        wanted = -np.sort(-wanted, axis=1)
    return {CLASSIFY: compare({CLASSIFY: [{"scores": wanted}]}, {CLASSIFY: [{"scores": given}]}, "scores", COARSE)}


def _as_tensorflow_reads_it(picture: bytes) -> bytes:
    """JPEG as it is; else PNG, of what every decoder sees alike."""
    if picture.startswith(b"\xff\xd8"):
        return encode_for_model(picture)
    out = io.BytesIO()
    decode(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _signatures(original: Original, new: Model, bounds: Bounds) -> dict[str, Comparison]:
    """Of all signatures but the default one that both have: numbers from a seed."""
    found = {}
    for name, signature in original.opened.signatures.items():
        if name == original.opened.default or name not in new.loaded.signatures:
            continue
        if any(spec.dtype == "bytes" for spec in signature.inputs):
            continue  # what it would parse is not known
        calls = _calls(signature)
        expected, given = ({name: _answers(one, name, calls)[0]} for one in (original.opened, new.loaded))
        found[name] = compare(expected, given, "scores", bounds)
    return found


def _calls(signature: Signature) -> list[Arrays]:
    try:
        return probes.inputs_for(signature, None)
    except ValueError as error:
        raise ConfigurationError(f"the two forms cannot be compared: {error}") from error


def _answers(loaded: Loaded, signature: str, calls: list[Arrays]) -> tuple[list[Arrays], float]:
    """And the mean seconds a call."""
    loaded.run(calls[0], signature)
    begun = time.perf_counter()
    found = [loaded.run(call, signature) for call in calls]
    return found, (time.perf_counter() - begun) / len(calls)


def _failed(reason: str) -> Verdict:
    return Verdict(Comparison(0.0, reason), {}, 0.0, 0.0)
